"""NDJSON of Observations, MedicationRequests and ImagingStudies by a seed, and the views over them."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

LOINC, SNOMED, RXNORM = "http://loinc.org", "http://snomed.info/sct", "http://www.nlm.nih.gov/research/umls/rxnorm"
UCUM, DCM = "http://unitsofmeasure.org", "http://dicom.nema.org/resources/ontology/DCM"


def write(path: Path, make: Callable[[random.Random, int], dict[str, Any]], seed: int, size: int) -> int:
    """Resources until the file has `size` bytes. Gives how many."""
    chance, written, count = random.Random(seed), 0, 0
    with path.open("wb") as file:
        while written < size:
            written += file.write(orjson.dumps(make(chance, count)) + b"\n")
            count += 1
    return count


def observation(chance: random.Random, n: int) -> dict[str, Any]:
    code = str(chance.randrange(1000, 9999))
    codings = [{"system": LOINC, "code": f"{code}-{n % 10}", "display": f"Laboratory value {code}"}]
    if chance.random() < 0.5:
        codings.append(
            {"system": SNOMED, "code": str(chance.randrange(10**7, 10**9)), "display": "The same in SNOMED CT"}
        )
    return {
        "resourceType": "Observation", "id": f"obs-{n}", "status": chance.choice(["final", "amended", "preliminary"]),
        "meta": {"lastUpdated": "2024-05-01T10:00:00.000+00:00", "versionId": "1"},
        "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category",
                                  "code": "laboratory", "display": "Laboratory"}], "text": "Laboratory"}],
        "code": {"coding": codings, "text": f"Laboratory value {code}"},
        "subject": {"reference": f"Patient/p{chance.randrange(100_000)}", "display": "A patient"},
        "encounter": {"reference": f"Encounter/e{chance.randrange(300_000)}"},
        "effectiveDateTime": f"20{chance.randrange(10, 25)}-{chance.randrange(1, 13):02}-11T08:30:00+01:00",
        "issued": "2024-05-01T10:00:00.000+00:00",
        "valueQuantity": {"value": round(chance.uniform(0, 300), 2), "unit": "mg/dL", "system": UCUM, "code": "mg/dL"},
        "referenceRange": [{"low": {"value": 10, "unit": "mg/dL"}, "high": {"value": 200, "unit": "mg/dL"}}],
    }  # fmt: skip


def medication_request(chance: random.Random, n: int) -> dict[str, Any]:
    code = str(chance.randrange(10_000, 2_000_000))
    return {
        "resourceType": "MedicationRequest", "id": f"med-{n}",
        "status": chance.choice(["active", "completed", "stopped"]),
        "meta": {"lastUpdated": "2024-05-01T10:00:00.000+00:00"}, "intent": "order",
        "medicationCodeableConcept": {"coding": [{"system": RXNORM, "code": code, "display": f"Medicine {code}"}],
                                      "text": f"Medicine {code} 500 MG oral tablet"},
        "subject": {"reference": f"Patient/p{chance.randrange(100_000)}", "display": "A patient"},
        "encounter": {"reference": f"Encounter/e{chance.randrange(300_000)}"},
        "authoredOn": f"20{chance.randrange(10, 25)}-{chance.randrange(1, 13):02}-11T08:30:00+01:00",
        "requester": {"reference": f"Practitioner/d{chance.randrange(500)}", "display": "A doctor"},
        "reasonCode": [{"coding": [{"system": SNOMED, "code": str(chance.randrange(10**7, 10**9))}]}],
        "dosageInstruction": [{"sequence": 1, "text": "One tablet twice a day", "asNeededBoolean": False,
                               "timing": {"repeat": {"frequency": 2, "period": 1, "periodUnit": "d"}},
                               "doseAndRate": [{"doseQuantity": {"value": 1, "unit": "tablet"}}]}],
    }  # fmt: skip


def imaging_study(chance: random.Random, n: int) -> dict[str, Any]:
    root = f"1.2.826.0.1.3680043.8.498.{n}"
    series = [
        {
            "uid": f"{root}.{s}", "number": s, "numberOfInstances": 120, "description": "Axial, soft tissue",
            "modality": {"system": DCM, "code": chance.choice(["CT", "MR", "SR"])},
            "bodySite": {"system": SNOMED, "code": "51185008", "display": "Thoracic structure"},
            "started": "2024-05-01T10:00:00+02:00",
            "instance": [{"uid": f"{root}.{s}.{i}", "number": i,
                          "sopClass": {"system": "urn:ietf:rfc:3986", "code": "urn:oid:1.2.840.10008.5.1.4.1.1.2"}}
                         for i in range(chance.randrange(1, 6))],
        }
        for s in range(1, chance.randrange(2, 6))
    ]  # fmt: skip
    return {
        "resourceType": "ImagingStudy", "id": f"img-{n}", "status": "available",
        "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{root}"}],
        "subject": {"reference": f"Patient/p{chance.randrange(100_000)}"},
        "started": f"20{chance.randrange(10, 25)}-{chance.randrange(1, 13):02}-11T08:30:00+01:00",
        "numberOfSeries": len(series), "description": "CT of the chest with contrast", "series": series,
    }  # fmt: skip


def _view(resource: str, own: dict[str, str], each: str, inner: dict[str, str]) -> dict[str, Any]:
    types = {"value": "decimal", "number": "integer", "instances": "integer", "frequency": "integer"}

    def columns(paths: dict[str, str]) -> list[dict[str, str]]:
        return [{"name": name, "path": path, "type": types.get(name, "string")} for name, path in paths.items()]

    return {
        "resourceType": "ViewDefinition", "resource": resource, "name": resource.lower(), "status": "active",
        "select": [{"column": columns(own)}, {"forEach": each, "column": columns(inner)}],
    }  # fmt: skip


VIEWS = {
    "Observation": _view(
        "Observation",
        {
            "id": "getResourceKey()", "patient_id": "subject.getReferenceKey(Patient)", "status": "status",
            "effective": "effective.ofType(dateTime)", "value": "value.ofType(Quantity).value",
            "unit": "value.ofType(Quantity).unit",
        },
        "code.coding", {"system": "system", "code": "code", "display": "display"},
    ),
    "MedicationRequest": _view(
        "MedicationRequest",
        {
            "id": "getResourceKey()", "patient_id": "subject.getReferenceKey(Patient)", "status": "status",
            "intent": "intent", "authored": "authoredOn", "dosage": "dosageInstruction.first().text",
        },
        "medication.ofType(CodeableConcept).coding", {"system": "system", "code": "code", "display": "display"},
    ),
    "ImagingStudy": _view(
        "ImagingStudy",
        {
            "id": "getResourceKey()", "patient_id": "subject.getReferenceKey(Patient)", "status": "status",
            "started": "started",
        },
        "series",
        {
            "uid": "uid", "number": "number", "modality": "modality.code", "description": "description",
            "instances": "numberOfInstances",
        },
    ),
}  # fmt: skip
MAKERS: dict[str, Callable[[random.Random, int], dict[str, Any]]] = {
    "Observation": observation, "MedicationRequest": medication_request, "ImagingStudy": imaging_study,
}  # fmt: skip
