"""Which specimens a series shows (PS3.3 C.7.6.22 Specimen)."""

from __future__ import annotations

from collections.abc import Sequence

from bridge.model import Resource
from bridge.translate.headers import Headers
from bridge.translate.identifiers import Issuers, entity_system, identifier
from bridge.translate.merge import distinct
from bridge.translate.uids import uid_identifier

_ITEMS = "SpecimenDescriptionSequence"
_CONTAINER, _CONTAINER_ISSUER = "ContainerIdentifier", "IssuerOfTheContainerIdentifierSequence"


def specimens(instances: Sequence[Headers], issuers: Issuers) -> list[Resource]:
    """Logical references to the specimens that a series shows, each once.

    From    PS3.3 C.7.6.22 SpecimenDescriptionSequence: SpecimenIdentifier with its issuer, SpecimenUID; where it names
            none, ContainerIdentifier with its issuer
    To      FHIR R4 ImagingStudy.series.specimen: the id if its issuer has a system, else the UID, else the bare id
    """
    found: dict[tuple[str, str], Resource] = {}
    for headers in distinct(instances, _ITEMS, _CONTAINER, _CONTAINER_ISSUER):
        known = [made for item in headers.items_of(_ITEMS) if (made := _specimen(item, issuers))]
        if not known and (container := headers.text(_CONTAINER)):
            system = entity_system(headers.item(_CONTAINER_ISSUER), issuers)
            known = [({"system": system} if system else {}) | {"value": container}]
        for one in known:
            found.setdefault((one.get("system", ""), one["value"]), {"type": "Specimen", "identifier": one})
    return [found[key] for key in sorted(found)]


def _specimen(item: Headers, issuers: Issuers) -> Resource | None:
    value, uid = item.text("SpecimenIdentifier"), uid_identifier(item.text("SpecimenUID"))
    system = entity_system(item.item("IssuerOfTheSpecimenIdentifierSequence"), issuers)
    if value and (system or uid is None):
        return identifier("SID", system, value)
    return uid
