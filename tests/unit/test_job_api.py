from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from cohort.api import router
from cohort.desk import Desk
from tests.hospital_lake import HospitalLake
from tests.policies import EVERYTHING

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fastapi.testclient import TestClient

SLOW = "SELECT count(*) AS n FROM patient a, range(100000000) c, range(1000) d WHERE hash(a.patient_id, c, d) = 1"


@pytest.fixture
def web(hospital: HospitalLake) -> Iterator[TestClient]:
    app = FastAPI()
    app.include_router(router(hospital.lake, Desk(hospital.root, EVERYTHING)))
    with TestClient(app) as client:
        yield client


def until(web: TestClient, place: str, *states: str) -> dict[str, Any]:
    end = time.monotonic() + 120
    while True:
        told: dict[str, Any] = web.get(place).json()
        if told["state"] in states:
            return told
        assert time.monotonic() < end, told
        time.sleep(0.05)


def test_a_long_question_is_answered_in_pages(web: TestClient) -> None:
    begun = web.post("/cohort/api/jobs", json={"sql": "SELECT range AS n FROM range(2500) ORDER BY 1"})
    assert begun.status_code == 202
    place = begun.headers["location"]
    told = until(web, place, "completed")
    assert (told["rows"], told["truncated"]) == (2500, False)
    found, page = [], f"{place}/answer"
    while page:
        answer = web.get(page)
        assert answer.headers["x-total-count"] == "2500"
        found += [row["n"] for row in answer.json()["rows"]]
        page = answer.links.get("next", {}).get("url", "")
    assert found == list(range(2500))
    assert len(web.get(f"{place}/answer?format=ndjson&offset=2400&limit=5000").text.splitlines()) == 100


def test_it_has_the_rows_that_waiting_gives(web: TestClient) -> None:
    asked = {"parameters": {"within_years": 5}, "date": "2026-01-01"}
    place = web.post("/cohort/api/jobs", json=asked | {"question": "osteosarcoma-ct"}).headers["location"]
    told = until(web, place, "completed")
    waited = web.post("/cohort/api/questions/osteosarcoma-ct", json=asked).json()
    answer = web.get(f"{place}/answer").json()
    assert answer["rows"] == waited["rows"]
    assert told["generation"] == waited["generation"]


def test_a_running_query_tells_how_far_it_is_and_can_be_ended(web: TestClient) -> None:
    place = web.post("/cohort/api/jobs", json={"sql": SLOW}).headers["location"]
    told = until(web, place, "running")
    assert "progress" in told
    assert web.get(f"{place}/answer").status_code == 409
    began = time.monotonic()
    assert web.delete(place).status_code == 204
    assert web.get(place).status_code == web.delete(place).status_code == 404
    other = web.post("/cohort/api/jobs", json={"sql": "SELECT 1 AS n"}).headers["location"]
    until(web, other, "completed")  # one SQL statement of a person runs at a time: the place of the ended one is free
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({}, 422), ({"sql": "SELECT 1", "question": "q"}, 422), ({"question": "none"}, 404),
        ({"document": {"name": "x"}}, 400), ({"sql": "SELECT 1", "generation": "none"}, 400),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_told_at_once(web: TestClient, asked: dict[str, Any], status: int) -> None:
    assert web.post("/cohort/api/jobs", json=asked).status_code == status


def test_what_fails_says_why(web: TestClient) -> None:
    place = web.post("/cohort/api/jobs", json={"sql": "SELECT nothing FROM patient"}).headers["location"]
    told = until(web, place, "failed")
    assert told["error"].startswith("sql:")
    assert web.get(f"{place}/answer").status_code == 400


def test_a_job_keeps_to_the_policy(hospital: HospitalLake, tmp_path: Path) -> None:
    app = FastAPI()
    app.include_router(router(hospital.lake, Desk(hospital.root)))
    with TestClient(app) as web:
        place = web.post("/cohort/api/jobs", json={"sql": "SELECT patient_id FROM patient"}).headers["location"]
        assert until(web, place, "failed")["error"]
