"""DICOM ids and their issuers → FHIR Identifier (PS3.3 10.14 HL7v2 Hierarchic Designator)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import tzinfo

from bridge.model import Resource
from bridge.translate.headers import Headers

IDENTIFIER_TYPE = "http://terminology.hl7.org/CodeSystem/v2-0203"

_AE_TITLES = ("SourceApplicationEntityTitle", "StationAETitle", "PerformedStationAETitle")
"""Who sent or made an object, the sender first (PS3.10 7.1; PS3.3 C.7.5.1, C.4.14)."""

_ENTITY = {
    "ISO": (re.compile(r"^[0-2](\.(0|[1-9][0-9]*))+$"), "urn:oid:"),
    "UUID": (re.compile(r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"), "urn:uuid:"),
    "URI": (re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:[!-~]+$"), ""),
}


@dataclass(frozen=True)
class AeTitle:
    """What a site knows of the objects of one application entity; "" and None: nothing of its own."""

    patient_id_system: str = ""
    accession_system: str = ""
    zone: tzinfo | None = None


NO_AE_TITLE = AeTitle()


@dataclass(frozen=True)
class Issuers:
    """How issuers become Identifier.system, for one site.

    Result  `systems` issuer name or local namespace → system; `*_system` for values without an issuer ("": patient,
            accession and admission ids get no system, study and requested procedure ids are left out); `ae_titles`
            AE title → what holds of its objects instead; `unknown_patient_ids` PatientIDs that identify nobody,
            casefolded
    """

    systems: Mapping[str, str]
    patient_id_system: str = ""
    accession_system: str = ""
    study_id_system: str = ""
    admission_id_system: str = ""
    requested_procedure_id_system: str = ""
    ae_titles: Mapping[str, AeTitle] = field(default_factory=dict)
    unknown_patient_ids: frozenset[str] = frozenset()

    def ae_title(self, headers: Headers) -> AeTitle:
        """What the site says of whoever sent or made the object: of the first of its AE titles that it names."""
        if self.ae_titles:
            for keyword in _AE_TITLES:
                if (known := self.ae_titles.get(headers.text(keyword))) is not None:
                    return known
        return NO_AE_TITLE


def entity_system(item: Headers, issuers: Issuers) -> str:
    """The system of an HL7 v2 hierarchic designator (PS3.3 10.14); "" when it cannot be said without guessing."""
    entity, kind = item.text("UniversalEntityID"), item.text("UniversalEntityIDType").upper()
    if entity in issuers.systems:
        return issuers.systems[entity]
    if kind in _ENTITY:
        form, prefix = _ENTITY[kind]
        bare = entity.removeprefix(prefix)
        if form.fullmatch(bare):
            return prefix + bare
    return issuers.systems.get(item.text("LocalNamespaceEntityID"), "")


def entity_name(item: Headers) -> str:
    """What a hierarchic designator calls its authority."""
    return item.text("LocalNamespaceEntityID") or item.text("UniversalEntityID")


def identifier(kind: str, system: str, value: str, assigner: str = "") -> Resource:
    """A FHIR Identifier with a v2-0203 type."""
    made: Resource = {"type": {"coding": [{"system": IDENTIFIER_TYPE, "code": kind}]}}
    if system:
        made["system"] = system
    made["value"] = value
    if assigner:
        made["assigner"] = {"display": assigner}
    return made
