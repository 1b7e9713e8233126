"""Rows of outcomes as FHIR R4: a Bundle of Observations, one for each prediction. Pure.

Observation   code prediction-outcome; value confirmed, refuted, censored or pending; derivedFrom the prediction's
              Observation; focus the evidence; effective its day; device the model and its version; components score,
              threshold, class, index date, delay and the reader's agreement. status final; preliminary while pending;
              entered-in-error once the prediction is withdrawn
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid5

import orjson

from cohort.answer import Answer

MEDIA_TYPE = "application/fhir+json"
SYSTEM = "https://imaging-bridge.example/CodeSystem/prediction-outcome"
_NAMESPACE = UUID("8a4f4c0e-6a5e-5b0e-9d39-3a7f2f0f6c11")
_STATUS = {"pending": "preliminary", "withdrawn": "entered-in-error"}
Resource = dict[str, Any]


def bundle(answer: Answer, definition: str) -> bytes:
    """A Bundle of type collection, in JSON: the same rows give the same bytes. Ids follow from definition and
    prediction, so that a later one of the same prediction replaces the earlier one."""
    names = [name for name, _ in answer.columns]
    made = [_observation(dict(zip(names, row, strict=True)), definition) for row in answer.rows]
    entries = [{"fullUrl": f"urn:uuid:{one['id']}", "resource": one} for one in made]
    return orjson.dumps({"resourceType": "Bundle", "type": "collection"} | ({"entry": entries} if entries else {}))


def _observation(row: Mapping[str, Any], definition: str) -> Resource:
    made: Resource = {
        "resourceType": "Observation",
        "id": str(uuid5(_NAMESPACE, f"{definition}/{row['prediction_id']}")),
        "status": _STATUS.get(row["outcome"], "final"),
        "code": _concept("prediction-outcome"),
        "derivedFrom": [{"reference": f"Observation/{row['prediction_id']}", "type": "Observation"}],
    }
    if row["patient"]:
        made["subject"] = {"reference": f"Patient/{row['patient']}", "type": "Patient"}
    if row["evidence"]:
        made["focus"] = [{"reference": row["evidence"], "type": row["evidence"].partition("/")[0]}]
    if row["evidence_date"]:
        made["effectiveDateTime"] = row["evidence_date"]
    if row["outcome"] not in _STATUS or row["outcome"] == "pending":
        made["valueCodeableConcept"] = _concept(row["outcome"])
    model = " ".join(part for part in (row["model"], row["model_version"]) if part)
    if model:
        made["device"] = {"type": "Device", "display": model}
    made["component"] = [{"code": _concept(code)} | value for code, value in _components(row)]
    return {k: v for k, v in made.items() if v != []}


def _components(row: Mapping[str, Any]) -> list[tuple[str, Resource]]:
    found: list[tuple[str, Resource]] = []
    if row["finding_code"]:
        coding = {k: v for k, v in (("system", row["finding_system"]), ("code", row["finding_code"])) if v}
        found.append(("finding", {"valueCodeableConcept": {"coding": [coding]}}))
    for name in ("score", "threshold"):
        if row[name] is not None:
            found.append((name, {"valueQuantity": {"value": row[name]}}))
    for name in ("predicted", "reader_agrees"):
        if row[name] is not None:
            found.append((name.replace("_", "-"), {"valueBoolean": row[name]}))
    if row["index_date"]:
        found.append(("index-date", {"valueDateTime": row["index_date"]}))
    if row["delay_days"] is not None:
        days = {"value": row["delay_days"], "unit": "d", "system": "http://unitsofmeasure.org", "code": "d"}
        found.append(("delay", {"valueQuantity": days}))
    return found


def _concept(code: str) -> Resource:
    return {"coding": [{"system": SYSTEM, "code": code}]}
