"""Findings by AI as FHIR R4 Observations, for lakes that need some."""

from __future__ import annotations

from typing import Any

SYSTEM = "http://snomed.info/sct"


def finding(
    id_: str, patient: str, study: str, series: str = "", *, ai: bool = True, status: str = "preliminary", **more: Any
) -> dict[str, Any]:
    """A pulmonary nodule of 8.5 mm in a study, and in a series when it is named; with a tracking UID."""
    label = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "AIAST"}
    of = {"type": "ImagingStudy", "identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{study}"}}
    tracking = {"type": {"coding": [{"code": "112040"}]}, "system": "urn:dicom:uid", "value": "urn:oid:1.2.99"}
    named = {"coding": [{"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "112002"}]}
    made: dict[str, Any] = {
        "resourceType": "Observation",
        "id": id_,
        "meta": {"security": [label]} if ai else {},
        "identifier": [tracking],
        "status": status,
        "category": [{"coding": [{"code": "imaging"}]}],
        "code": {"coding": [{"system": SYSTEM, "code": "427359005", "display": "Solitary nodule of lung"}]},
        "subject": {"reference": f"Patient/{patient}"},
        "partOf": [of],
        "derivedFrom": [of],
        "effectiveDateTime": "2025-12-01T10:00:00Z",
        "issued": "2025-12-01T10:05:00Z",
        "bodySite": {"coding": [{"system": SYSTEM, "code": "39607008"}]},
        "device": {"display": "Nodule Finder 2.1"},
        "valueQuantity": {"value": 8.5, "unit": "mm", "system": "http://unitsofmeasure.org", "code": "mm"},
        "component": [{"code": named, "valueString": series}] if series else [],
    }
    return {key: value for key, value in (made | more).items() if value not in ([], {})}
