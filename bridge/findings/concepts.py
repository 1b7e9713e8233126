"""Codes, references and labels that AI results have in FHIR."""

from __future__ import annotations

from bridge.findings.model import Code, Laterality, Presence
from bridge.model import Resource
from bridge.translate.codes import DCM, SCT, CodeTables
from bridge.translate.uids import study_identifier

UCUM = "http://unitsofmeasure.org"
RESULT_SYSTEM = "https://imaging-bridge.example/ai-result"
"""Identifier.system of what a run made: `run_id`, `run_id/finding` or `run_id/finding/measurement`."""

ITEM_SYSTEM = "https://imaging-bridge.example/document-item"
"""Identifier.system of what single items of a document say: `SOP Instance UID/place`."""

MODEL_SYSTEM = "https://imaging-bridge.example/ai-model"
"""Identifier.system of programs: vendor, name, version and UDI."""

_LABELS = "http://terminology.hl7.org/CodeSystem/v3-ObservationValue"
AIAST: Resource = {"system": _LABELS, "code": "AIAST", "display": "Artificial Intelligence asserted"}
CLINAST: Resource = {"system": _LABELS, "code": "CLINAST", "display": "clinician asserted"}

_PRESENCE = {
    Presence.PRESENT: Code(SCT, "52101004", "Present"),
    Presence.ABSENT: Code(SCT, "2667000", "Absent"),
    Presence.UNDETERMINED: Code(SCT, "373068000", "Undetermined"),
}
_LATERALITY = {
    Laterality.LEFT: Code(SCT, "7771000", "Left"),
    Laterality.RIGHT: Code(SCT, "24028007", "Right"),
    Laterality.BILATERAL: Code(SCT, "51440002", "Bilateral"),
}
LATERALITY = Code(SCT, "272741003", "Laterality")
CERTAINTY = Code(DCM, "111012", "Certainty of Finding")
DERIVATION = Code(DCM, "121401", "Derivation")
COMMENT = Code(DCM, "121106", "Comment")
SERIES = Code(DCM, "112002", "Series Instance UID")


def fixed(code: Code) -> Resource:
    """A code of ours, whose scheme is its system already, as CodeableConcept."""
    return {"coding": [{"system": code.scheme, "code": code.code, "display": code.display}]}


def concept(code: Code, tables: CodeTables) -> Resource:
    """A code of a result as CodeableConcept: what the site's concept map says first, then the code itself; the text
    alone where its scheme has no code system any more."""
    text = {"text": code.display} if code.display else {}
    system = tables.coding_scheme.get(code.scheme)
    if system is None:
        own = tables.local(code.scheme, code.code, code.display)
        return {"coding": [own]} | text if own else {"text": code.display or f"{code.code} of {code.scheme}"}
    own = {"system": system, "code": code.code} | ({"display": code.display} if code.display else {})
    mapped = tables.concept_map.get((system, code.code))
    first = [fixed(Code(mapped.system, mapped.code, mapped.display))["coding"][0]] if mapped else []
    return {"coding": [*first, own]} | text


def presence(value: Presence) -> Resource:
    return fixed(_PRESENCE[value])


def laterality(value: Laterality) -> Resource:
    return fixed(_LATERALITY[value])


def decimal(value: float) -> int | float:
    """A number as FHIR's decimal: whole ones without a point, others to 14 digits, since R5 has 17 behind the point.

    >>> decimal(93.0), decimal(0.0040752675359352975)
    (93, 0.0040752675359353)
    """
    short = float(f"{value:.14g}")
    return int(short) if short.is_integer() and abs(short) < 2**53 else short


def quantity(value: float, unit: str) -> Resource:
    """A number with its UCUM unit; see `decimal`."""
    return {"value": decimal(value), "unit": unit, "system": UCUM, "code": unit}


def study_reference(imaging_study: Resource) -> Resource:
    """The study by its id here and by its Study Instance UID everywhere."""
    uid = study_instance_uid(imaging_study)
    identifier = {k: v for k, v in study_identifier(uid).items() if k != "use"}
    return {"reference": f"ImagingStudy/{imaging_study['id']}", "type": "ImagingStudy", "identifier": identifier}


def study_instance_uid(imaging_study: Resource) -> str:
    """The Study Instance UID of one of our ImagingStudy resources: its first identifier."""
    return str(imaging_study["identifier"][0]["value"]).removeprefix("urn:oid:")


def identifier(*parts: str) -> Resource:
    return {"system": RESULT_SYSTEM, "value": "/".join(parts)}
