"""The cases of the ready outcome definitions: those of questions, with predictions, programs and reviews."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from cohort.generation import Generation
from cohort.lake import Lake
from tests.question_cases import SYSTEMS, lines

LABELS = "http://terminology.hl7.org/CodeSystem/v3-ObservationValue"
AS_MADE = "https://imaging-bridge.example/StructureDefinition/ai-finding-as-made"
PREDICTED = {"code": ["sct", "427359005"], "present": True, "percent": 90, "made": "2022-01-03T10:00:00Z"}
"""A nodule of the lung that a program is 90 % sure of."""

PRESENCE = {True: "52101004", False: "2667000"}


def cases() -> dict[str, dict[str, Any]]:
    """outcome definition → its case."""
    folder = files("mappings") / "outcomes" / "cases"
    return {f.name.removesuffix(".yaml"): yaml.safe_load(f.read_text("utf-8")) for f in folder.iterdir()}


def generation(case: Mapping[str, Any], folder: Path) -> Generation:
    """A lake with the case's people and predictions."""
    lake = Lake(folder / "lake")
    published = publish(lake, case)
    assert not list((folder / "lake" / "parked").glob("*"))
    return published


def publish(lake: Lake, case: Mapping[str, Any], revision: int = 1) -> Generation:
    """The case's people and predictions in a lake, in this revision."""
    lake.append(line | {"revision": revision} for line in all_lines(case))
    published = lake.publish(datetime.now(UTC))
    assert published is not None
    return published


def all_lines(case: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The delta's lines of a case."""
    dead = {e["id"]: e["died"] for e in case.get("patients", []) if "died" in e}
    devices = {e["id"]: e["devices"] for e in case.get("procedures", []) if "devices" in e}
    answers = {e["id"]: e["answer"] for e in case.get("observations", []) if "answer" in e}
    for line in lines(case):
        if line["kind"] == "resource" and line["id"] in dead and line["type"] == "Patient":
            line["resource"]["deceasedDateTime"] = dead[line["id"]]
        if line["kind"] == "resource" and line["type"] == "Observation" and line["id"] in answers:
            system, code = answers[line["id"]]
            line["resource"]["valueCodeableConcept"] = {"coding": [{"system": SYSTEMS[system], "code": code}]}
        if line["kind"] == "resource" and line["type"] == "Procedure" and line["id"] in devices:
            named = [{"manipulated": {"reference": f"Device/{one}"}} for one in devices[line["id"]]]
            line["resource"]["focalDevice"] = named
        yield line
    for study in case.get("studies", []):
        if "site" in study:
            row = {"study_instance_uid": study["uid"], "institution_name": study["site"]}
            yield {"kind": "rows", "table": "dicom_study", "key": study["uid"], "revision": 1, "rows": [row]}
    for section, made in (("programs", _program), ("implants", _implant), ("predictions", _prediction)):
        for entry in case.get(section, []):
            resource = made(entry)
            yield {
                "kind": "resource", "origin": "bridge", "type": resource["resourceType"], "id": resource["id"],
                "revision": 1, "deleted": entry.get("deleted", False), "resource": resource,
            }  # fmt: skip


def _program(e: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "resourceType": "Device", "id": e["id"], "status": "active", "version": [{"value": e["version"]}],
        "deviceName": [{"name": e["name"], "type": "model-name"}],
    }  # fmt: skip


def _implant(e: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "resourceType": "Device",
        "id": e["id"],
        "deviceName": [{"name": e["name"], "type": "model-name"}],
    }
    if "diameter" in e:
        number, unit = e["diameter"]
        kind = {"coding": [{"system": SYSTEMS["sct"], "code": "81827009"}]}
        made["property"] = [{"type": kind, "valueQuantity": [{"value": number, "code": unit}]}]
    return made


def _prediction(e: Mapping[str, Any]) -> dict[str, Any]:
    """An AI's finding. `reviewed` is what a reader did: accept, reject, or the presence as amended."""
    system, code = e["code"]
    review = e.get("reviewed")
    present = review if isinstance(review, bool) else e.get("present")
    labels = ["AIAST", *(["CLINAST"] if review == "accept" or isinstance(review, bool) else [])]
    status = {"accept": "final", "reject": "entered-in-error"}.get(
        str(review), "amended" if review is not None else "preliminary"
    )
    study = {
        "reference": f"ImagingStudy/study-{e['study']}",
        "identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{e['study']}"},
    }
    made: dict[str, Any] = {
        "resourceType": "Observation", "id": e["id"], "status": e.get("status", status),
        "meta": {"security": [{"system": LABELS, "code": c} for c in labels]},
        "code": {"coding": [{"system": SYSTEMS[system], "code": code}]},
        "subject": {"reference": f"Patient/{e['patient']}"},
        "issued": e["reviewed_at"] if review is not None else e["made"],
        "partOf": [study], "derivedFrom": [study],
        "device": {"reference": f"Device/{e['program']}"} if "program" in e else {"display": e.get("display", "A net")},
    }  # fmt: skip
    if present is not None:
        made["valueCodeableConcept"] = _presence(present)
    if "value" in e:
        made["valueQuantity"] = {"value": e["value"][0], "code": e["value"][1]}
    if "percent" in e:
        made["component"] = [{"code": {"coding": [{"code": "112012"}, {"code": "111012"}]},
                              "valueQuantity": {"value": e["percent"], "code": "%"}}]  # fmt: skip
    if review is not None:
        parts: list[dict[str, Any]] = [{"url": "producedAt", "valueInstant": e["made"]}]
        parts += [{"url": "value", "valueCodeableConcept": _presence(e["present"])}] if "present" in e else []
        parts += [{"url": "confidence", "valueQuantity": {"value": e["percent"]}}] if "percent" in e else []
        made["extension"] = [{"url": AS_MADE, "extension": parts}]
    return made


def _presence(present: bool) -> dict[str, Any]:
    return {"coding": [{"system": SYSTEMS["sct"], "code": PRESENCE[present]}]}
