"""The cases of the ready questions: small synthetic people in short words, made FHIR, put into a lake."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from cohort.generation import Generation
from cohort.lake import Lake

SYSTEMS = {
    "sct": "http://snomed.info/sct", "loinc": "http://loinc.org", "atc": "http://www.whocc.no/atc",
    "icdo": "urn:oid:2.16.840.1.113883.6.43.1", "icd10": "http://hl7.org/fhir/sid/icd-10",
    "cpt": "http://www.ama-assn.org/go/cpt", "local": "https://imaging-bridge.example/CodeSystem/finding",
}  # fmt: skip
Entry = Mapping[str, Any]


def cases() -> dict[str, dict[str, Any]]:
    """question → its case: people and what is expected of each ask."""
    folder = files("mappings") / "questions" / "cases"
    return {f.name.removesuffix(".yaml"): yaml.safe_load(f.read_text("utf-8")) for f in folder.iterdir()}


def generation(case: Mapping[str, Any], folder: Path) -> Generation:
    """A lake with the case's people."""
    lake = Lake(folder / "lake")
    lake.append(lines(case))
    published = lake.publish(datetime.now(UTC))
    assert published is not None
    assert not list((folder / "lake" / "parked").glob("*"))
    return published


def lines(case: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The delta's lines of a case."""
    for section, made in _MADE.items():
        for entry in case.get(section, []):
            origin = "bridge" if section in ("studies", "imaging_patients") else "clinical"
            resource = {k: v for k, v in made(entry).items() if v not in (None, [])}
            yield {
                "kind": "resource", "origin": origin, "type": resource["resourceType"], "id": resource["id"],
                "revision": 1, "deleted": False, "resource": resource,
            }  # fmt: skip
    for section, table, own in (
        ("series", "dicom_series", "series_instance_uid"),
        ("instances", "dicom_instance", "sop_instance_uid"),
    ):
        by_study: dict[str, list[dict[str, Any]]] = {}
        for entry in case.get(section, []):
            row = {"study_instance_uid": entry["study"], own: entry["uid"]}
            row |= {"series_instance_uid": entry["series"]} if "series" in entry else {}
            row |= {k: v for k, v in entry.items() if k not in ("study", "series", "uid")}
            by_study.setdefault(entry["study"], []).append(row)
        for uid, rows in by_study.items():
            yield {"kind": "rows", "table": table, "key": uid, "revision": 1, "rows": rows}


def _patient(e: Entry) -> dict[str, Any]:
    numbers = e["mrn"] if isinstance(e["mrn"], list) else [e["mrn"]]
    return {
        "resourceType": "Patient", "id": e["id"], "birthDate": e.get("birthDate"), "gender": e.get("gender"),
        "identifier": [{"system": "urn:example:mrn", "value": n} for n in numbers],
    }  # fmt: skip


def _study(e: Entry) -> dict[str, Any]:
    accession = {"type": {"coding": [{"code": "ACSN"}]}, "value": e.get("accession")}
    uid = {"system": "urn:dicom:uid", "value": f"urn:oid:{e['uid']}"}
    return {
        "resourceType": "ImagingStudy", "id": f"study-{e['uid']}", "status": e.get("status", "available"),
        "subject": {"reference": f"Patient/{e.get('patient') or e.get('imaging_patient')}"},
        "identifier": [uid, *([accession] if "accession" in e else [])], "started": e.get("started"),
        "modality": [{"system": "http://dicom.nema.org/resources/ontology/DCM", "code": m} for m in e["modality"]],
    }  # fmt: skip


def _condition(e: Entry) -> dict[str, Any]:
    verified = {"coding": [{"code": e["verification"]}]} if "verification" in e else None
    return _coded(e, "Condition", "onsetDateTime", "recordedDate") | {"verificationStatus": verified}


def _procedure(e: Entry) -> dict[str, Any]:
    made = _coded(e, "Procedure", "performedDateTime", "performedPeriod")
    return made | {"status": e.get("status", "completed")}


def _observation(e: Entry) -> dict[str, Any]:
    quantity = {"value": e["value"][0], "code": e["value"][1]} if "value" in e else None
    return _coded(e, "Observation", "effectiveDateTime") | {"status": "final", "valueQuantity": quantity}


def _finding(e: Entry) -> dict[str, Any]:
    answer = {"coding": [{"system": SYSTEMS["sct"], "code": "52101004" if e["present"] else "2667000"}]}
    return _coded(e, "Observation", "effectiveDateTime") | {
        "status": "preliminary", "category": [{"coding": [{"code": "imaging"}]}], "valueCodeableConcept": answer,
        "derivedFrom": [{"reference": f"ImagingStudy/study-{e['study']}"}],
        "device": {"display": e["device"]} if "device" in e else None,
    }  # fmt: skip


def _medication(e: Entry) -> dict[str, Any]:
    made = _coded(e, "MedicationRequest", "authoredOn")
    code = made.pop("code")
    code["coding"][0] |= {"display": e["display"]}
    status = {"status": e.get("status", "active"), "intent": e.get("intent", "order")}
    return made | status | {"medicationCodeableConcept": code}


def _encounter(e: Entry) -> dict[str, Any]:
    return {
        "resourceType": "Encounter", "id": e["id"], "status": e.get("status", "finished"),
        "class": {"code": e["class"]}, "subject": {"reference": f"Patient/{e['patient']}"},
        "period": {k: e[k] for k in ("start", "end") if k in e},
    }  # fmt: skip


def _report(e: Entry) -> dict[str, Any]:
    by_uid = {"identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{e.get('study')}"}}
    order = {"identifier": {"type": {"coding": [{"code": "ACSN"}]}, "value": e.get("accession")}}
    text = base64.b64encode(e.get("text", "").encode()).decode()
    return {
        "resourceType": "DiagnosticReport", "id": e["id"], "status": e.get("status", "final"),
        "subject": {"reference": f"Patient/{e['patient']}"}, "effectiveDateTime": e.get("effectiveDateTime"),
        "issued": e.get("issued"), "conclusion": e.get("conclusion"),
        "imagingStudy": [by_uid] if "study" in e else None, "basedOn": [order] if "accession" in e else None,
        "presentedForm": [{"contentType": "text/plain", "data": text}] if "text" in e else None,
    }  # fmt: skip


def _coded(e: Entry, kind: str, *kept: str) -> dict[str, Any]:
    system, code = e["code"]
    return {
        "resourceType": kind, "id": e["id"], "subject": {"reference": f"Patient/{e['patient']}"},
        "code": {"coding": [{"system": SYSTEMS[system], "code": code}]}, **{k: e[k] for k in kept if k in e},
    }  # fmt: skip


_MADE = {
    "patients": _patient, "imaging_patients": _patient, "studies": _study, "conditions": _condition,
    "procedures": _procedure, "observations": _observation, "findings": _finding, "medications": _medication,
    "encounters": _encounter, "reports": _report,
}  # fmt: skip


def plain(value: Any) -> Any:
    """A value as the cases write it: days and moments (in UTC) as text, lists as lists."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, date):
        return value.isoformat()
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value
