"""What a study was made for: order numbers and the visit → FHIR identifiers and logical references."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bridge.model import Resource
from bridge.translate.headers import Headers
from bridge.translate.identifiers import Issuers, entity_system, identifier
from bridge.translate.merge import Remarks, agreed_of, distinct

_OWN = (
    "AccessionNumber", "IssuerOfAccessionNumberSequence", "RequestAttributesSequence", "ReferencedRequestSequence",
    "PlacerOrderNumberImagingServiceRequest", "OrderPlacerIdentifierSequence", "FillerOrderNumberImagingServiceRequest",
    "OrderFillerIdentifierSequence", "RequestedProcedureID",
)  # fmt: skip
_NUMBERS = (
    ("ACSN", "AccessionNumber", "IssuerOfAccessionNumberSequence"),
    ("PLAC", "PlacerOrderNumberImagingServiceRequest", "OrderPlacerIdentifierSequence"),
    ("FILL", "FillerOrderNumberImagingServiceRequest", "OrderFillerIdentifierSequence"),
)
_SENDERS = ("SourceApplicationEntityTitle", "StationAETitle", "PerformedStationAETitle")


def requests_of(headers: Headers) -> tuple[Headers, ...]:
    """The requests an object was made for: RequestAttributesSequence of images, ReferencedRequestSequence of
    documents."""
    return headers.items_of("RequestAttributesSequence") + headers.items_of("ReferencedRequestSequence")


def order_identifiers(instances: Sequence[Headers], issuers: Issuers) -> list[Resource]:
    """Every number of every order of a study, each once: accession, placer, filler numbers, then requested procedures.

    From    PS3.3 C.7.2.1 AccessionNumber; C.7.3.1 RequestAttributesSequence; C.17.2 ReferencedRequestSequence; C.4.12
    To      FHIR R4 Identifier of type ACSN, PLAC, FILL; a requested procedure id only with the site's system. One
            without a system is left out where the same value has one
    """
    senders = _SENDERS if issuers.ae_titles else ()
    found: dict[tuple[int, str, str], Resource] = {}
    for headers in distinct(instances, *_OWN, *senders):
        own_system = issuers.ae_title(headers).accession_system or issuers.accession_system
        for holder in (headers, *requests_of(headers)):
            for rank, made in _numbers(holder, own_system, issuers):
                found.setdefault((rank, made.get("system", ""), made["value"]), made)
    known = {(rank, value) for rank, system, value in found if system}
    return [found[key] for key in sorted(found) if key[1] or (key[0], key[2]) not in known]


def _numbers(holder: Headers, accession_system: str, issuers: Issuers) -> Iterator[tuple[int, Resource]]:
    for rank, (kind, keyword, issuer_keyword) in enumerate(_NUMBERS):
        if value := holder.text(keyword):
            issuer = holder.item(issuer_keyword)
            default = accession_system if kind == "ACSN" and not issuer else ""
            yield rank, identifier(kind, entity_system(issuer, issuers) or default, value)
    if (value := holder.text("RequestedProcedureID")) and (system := issuers.requested_procedure_id_system):
        yield len(_NUMBERS), {"type": {"text": "Requested Procedure ID"}, "system": system, "value": value}


def accession_numbers(orders: Sequence[Resource]) -> list[Resource]:
    """The accession numbers among the identifiers of orders: they identify the study too."""
    return [one for one in orders if one["type"].get("coding", [{}])[0].get("code") == "ACSN"]


def study_id(instances: Sequence[Headers], issuers: Issuers, remarks: Remarks) -> list[Resource]:
    """StudyID as Identifier, where the site has a system for it; without one it is unique nowhere."""
    if not issuers.study_id_system:
        return []
    value = agreed_of(instances, remarks, "StudyID").text("StudyID")
    return [{"system": issuers.study_id_system, "value": value}] if value else []


def encounter(values: Headers, issuers: Issuers) -> Resource | None:
    """A logical reference to the Encounter; None without AdmissionID.

    From    PS3.3 C.3.3 AdmissionID, IssuerOfAdmissionIDSequence
    To      FHIR R4 ImagingStudy.encounter: Identifier of type VN
    """
    value, issuer = values.text("AdmissionID"), values.item("IssuerOfAdmissionIDSequence")
    if not value:
        return None
    system = entity_system(issuer, issuers) or ("" if issuer else issuers.admission_id_system)
    return {"type": "Encounter", "identifier": identifier("VN", system, value)}
