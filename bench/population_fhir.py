"""The clinical side of `bench.population` as FHIR: the SQL that writes a resource as a line of NDJSON."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from bench.population import LOINC, SCT

MRN = "http://hospital.example/mrn"
DCM, UCUM, VERIFIED = (
    "http://dicom.nema.org/resources/ontology/DCM", "http://unitsofmeasure.org",
    "http://terminology.hl7.org/CodeSystem/condition-ver-status",
)  # fmt: skip
_CLASS = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
ACSN = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "ACSN"}]}
UID = {"system": "urn:dicom:uid", "value": "urn:oid:$study_instance_uid"}
_PERSON, _VISIT = {"reference": "Patient/$patient_id"}, {"reference": "Encounter/$encounter_id"}
_CODED = {"coding": [{"system": "$code_system", "code": "$code", "display": "Meaning of $code"}]}


def json_sql(template: Mapping[str, Any], optional: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """SQL that writes the JSON: `$name` in a text is a column's text, a text that is `#name` alone its JSON. Elements
    of `optional` are written where the column they are listed under is not NULL.

    >>> json_sql({"id": "$id", "n": "#n"})
    '\\'{"id":"\\' || id || \\'","n":\\' || n || \\'}\\''
    """
    body = _filled(orjson.dumps(template).decode()[:-1])
    for column, elements in (optional or {}).items():
        body += (
            f" || CASE WHEN {column} IS NULL THEN '' ELSE {_filled(',' + orjson.dumps(elements).decode()[1:-1])} END"
        )
    return f"{body} || '}}'"


def _filled(text: str) -> str:
    text = text.replace("'", "''")
    text = re.sub(r'"#(\w+)"', r"' || \1 || '", text)
    return "'" + re.sub(r"\$(\w+)", r"' || \1 || '", text) + "'"


IDENTIFIED = {"identifier": [{"system": MRN, "value": "$mrn"}], "gender": "$gender"}
BORN = {"birth_date": {"birthDate": "$birth_date"}}

CLINICAL: Mapping[str, tuple[str, str]] = {
    "Patient": ("person WHERE known", json_sql({"resourceType": "Patient", "id": "$patient_id"} | IDENTIFIED, BORN)),
    "Encounter": (
        "visit WHERE known",
        json_sql(
            {"resourceType": "Encounter", "id": "$encounter_id", "status": "$status",
             "class": {"system": _CLASS, "code": "$class_code"}, "subject": _PERSON},
            {"end_time": {"period": {"start": "$start_time", "end": "$end_time"}},
             "(CASE WHEN end_time IS NULL THEN 1 END)": {"period": {"start": "$start_time"}}},
        ),
    ),
    "Condition": (
        "condition",
        json_sql(
            {"resourceType": "Condition", "id": "$id", "subject": _PERSON, "encounter": _VISIT, "code": _CODED,
             "verificationStatus": {"coding": [{"system": VERIFIED, "code": "$verification_status"}]},
             "recordedDate": "$recorded_date"},
            {"onset_date": {"onsetDateTime": "$onset_date"},
             "abatement_date": {"abatementDateTime": "$abatement_date"}},
        ),
    ),
    "MedicationRequest": (
        "medication_request",
        json_sql(
            {"resourceType": "MedicationRequest", "id": "$id", "status": "$status", "intent": "$intent",
             "subject": _PERSON, "encounter": _VISIT, "authoredOn": "$authored_date",
             "medicationCodeableConcept": {"text": "$medication_display", "coding": [
                 {"system": "$medication_system", "code": "$medication_code", "display": "$medication_display"}]}}
        ),
    ),
    "Observation": (
        "observation",
        json_sql(
            {"resourceType": "Observation", "id": "$id", "status": "$status", "subject": _PERSON, "encounter": _VISIT,
             "code": _CODED, "effectiveDateTime": "$effective_date",
             "valueQuantity": {"value": "#value_number", "unit": "$value_unit", "system": UCUM, "code": "$value_unit"}}
        ),
    ),
    "Procedure": (
        "procedure",
        json_sql(
            {"resourceType": "Procedure", "id": "$id", "status": "$status", "subject": _PERSON, "encounter": _VISIT,
             "code": _CODED},
            {"(CASE WHEN lasted THEN 1 END)": {"performedPeriod": {"start": "$performed"}},
             "(CASE WHEN NOT lasted THEN 1 END)": {"performedDateTime": "$performed"}},
        ),
    ),
    "DiagnosticReport": (
        "(SELECT *, base64(encode(text)) AS data FROM diagnostic_report)",
        json_sql(
            {"resourceType": "DiagnosticReport", "id": "$id", "status": "$status", "subject": _PERSON,
             "code": {"coding": [{"system": LOINC, "code": "18748-4", "display": "Diagnostic imaging study"}]},
             "effectiveDateTime": "$effective_date", "issued": "$issued_time", "conclusion": "$conclusion"},
            {"(CASE WHEN has_text THEN 1 END)": {"presentedForm": [{"contentType": "text/plain", "data": "$data"}]},
             "(CASE WHEN names = 'uid' THEN 1 END)": {"imagingStudy": [{"identifier": UID}]},
             "(CASE WHEN names = 'accession' THEN 1 END)":
                 {"basedOn": [{"identifier": {"type": ACSN, "value": "$accession_number"}}]},
             "(CASE WHEN names = 'reference' THEN 1 END)":
                 {"imagingStudy": [{"reference": "ImagingStudy/$imaging_study_id"}]}},
        ),
    ),
    "Finding": (
        "finding",
        json_sql(
            {"resourceType": "Observation", "id": "$id", "status": "$finding_status", "subject": _PERSON,
             "code": _CODED, "effectiveDateTime": "$effective_time", "device": {"display": "$device"},
             "valueCodeableConcept": {"coding": [{"system": SCT, "code": "$value_code"}]}},
            {"(CASE WHEN by_reference THEN 1 END)": {"partOf": [{"reference": "ImagingStudy/$imaging_study_id"}]},
             "(CASE WHEN NOT by_reference THEN 1 END)": {"derivedFrom": [{"identifier": UID}]}},
        ),
    ),
}  # fmt: skip
"""File → what it is made of, the SQL of a line. Findings are Observations too."""
