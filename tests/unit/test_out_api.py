from __future__ import annotations

import io
import warnings
import zipfile
from typing import Any

import pytest
from fastapi import FastAPI

from bridge.api.security import harden
from cohort.api import router
from cohort.desk import Desk
from cohort.omop import TABLES
from tests.hospital_lake import HospitalLake
from tests.policies import EVERYTHING, PATIENT
from tests.validity import told_wrong

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fastapi.testclient import TestClient

QUESTION = "/cohort/api/questions/osteosarcoma-ct"
ASKED = {"date": "2026-01-01"}


@pytest.fixture(scope="module")
def web(hospital: HospitalLake) -> TestClient:
    app = FastAPI()
    app.include_router(router(hospital.lake, Desk(hospital.root, EVERYTHING, PATIENT)))
    harden(app, ["testserver"])
    return TestClient(app)


@pytest.mark.parametrize("version", ["r4", "r5"])
def test_a_group_says_its_version(web: TestClient, version: Any) -> None:
    answer = web.post(f"{QUESTION}/group?version={version}", json=ASKED)
    assert answer.headers["content-type"].startswith(f"application/fhir+json; fhirVersion={version[1]}.0")
    assert answer.headers["x-lake-generation"] == "g000001"
    assert told_wrong(answer.json(), version) == []


def test_a_manifest_is_json_or_a_csv_to_keep(web: TestClient) -> None:
    assert web.post(f"{QUESTION}/manifest", json=ASKED).json()["studies"]
    kept = web.post(f"{QUESTION}/manifest?format=csv", json=ASKED)
    assert kept.headers["content-disposition"] == 'attachment; filename="osteosarcoma-ct-manifest.csv"'
    assert kept.text.startswith("patient_id,study_instance_uid")


def test_omop_tables_come_in_one_zip(web: TestClient) -> None:
    answer = web.post(f"{QUESTION}/omop?format=csv", json=ASKED | {"parameters": {"older_than_years": 30}})
    names = zipfile.ZipFile(io.BytesIO(answer.content)).namelist()
    assert {f"{table}.csv" for table in TABLES} < set(names)


@pytest.mark.parametrize(("kind", "start"), [("json", b"{"), ("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_a_timeline_is_data_or_a_picture_without_scripts(web: TestClient, kind: str, start: bytes) -> None:
    answer = web.post("/cohort/api/timeline", json={"patient": "MRN000001", "format": kind})
    assert answer.content.startswith(start)
    assert kind == "json" or "script" not in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("questions/none/group", {}, 404),
        ("questions/osteosarcoma-ct/group?version=r3", {}, 422),
        ("questions/osteosarcoma-ct/manifest", {"parameters": {"x": 1}}, 400),
        ("questions/osteosarcoma-ct/omop", {"date": "soon"}, 422),
        ("timeline", {"patient": "nobody"}, 400),
        ("timeline", {"patient": ""}, 422),
        ("timeline", {"patient": "MRN000001", "format": "pdf"}, 422),
    ],
)
def test_a_wrong_request_is_told(web: TestClient, path: str, body: dict[str, Any], status: int) -> None:
    assert web.post(f"/cohort/api/{path}", json=body).status_code == status
