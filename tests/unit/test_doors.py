"""Every door that gives out data keeps to `[cohort]`, and what is asked at it stands in the log."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from fastapi import FastAPI
from typer.testing import CliRunner

import cohort
from bridge.errors import NotAllowed
from cohort.api import router
from cohort.cli import app
from cohort.desk import Caller, Desk
from cohort.keys import key
from cohort.privacy import Policy
from cohort.pseudonym import Pseudonyms, read_secret
from cohort.query_log import QueryLog
from tests.hospital_lake import HospitalLake
from tests.policies import EVERYTHING, PATIENT

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fastapi.testclient import TestClient

COUNTS, ROWS = Policy(), Policy(line_level=True)
TOML = {COUNTS: "", ROWS: "[cohort]\nline_level = true\n"}
NEEDS_ROWS, NEEDS_IDENTIFIERS = "line_level = true", 'identifiers = "identifiers"'
ASKED = {"date": "2026-01-01"}
QUESTION = "/cohort/api/questions/osteosarcoma-ct"
FEEDBACK = "/cohort/api/feedback/lung-nodule-cancer"
SIMILAR, ALIKE = "/cohort/api/similar", {"whom": "MRN000001"}
VIEW = {
    "resourceType": "Parameters",
    "parameter": [{"name": "viewReference", "valueReference": {"reference": "ViewDefinition/patient"}}],
}

EXPORTS: dict[str, Callable[[TestClient], Any]] = {
    "group": lambda web: web.post(f"{QUESTION}/group", json=ASKED),
    "manifest": lambda web: web.post(f"{QUESTION}/manifest", json=ASKED),
    "omop": lambda web: web.post(f"{QUESTION}/omop", json=ASKED),
}
OF_ROWS: dict[str, Callable[[TestClient], Any]] = {
    "timeline": lambda web: web.post("/cohort/api/timeline", json={"patient": "MRN000001"}),
    "feedback": lambda web: web.get(FEEDBACK),
    "$sql-run": lambda web: web.post("/cohort/fhir/ViewDefinition/$sql-run", json=VIEW),
    "$sql-run of a name": lambda web: web.get("/cohort/fhir/ViewDefinition/patient/$sql-run"),
    "$sql-export": lambda web: web.post("/cohort/fhir/ViewDefinition/$sql-export", json=VIEW),
}
WEB_DOORS = {f"/cohort/api/questions/{{name}}/{name}" for name in EXPORTS} | {
    "/cohort/api/timeline", "/cohort/api/feedback/{name}", "/cohort/api/feedback/{name}/scores", "/cohort/api/similar",
    "/cohort/api/questions/{name}", "/cohort/api/questions/{name}/attrition", "/cohort/api/ask",
    "/cohort/api/compare", "/cohort/api/sql", "/cohort/api/tables",
    "/cohort/api/jobs", "/cohort/api/jobs/{id_}", "/cohort/api/jobs/{id_}/answer",
    "/cohort/api/charts/{name}", "/cohort/fhir/ViewDefinition/{name}/${operation_name}",
    "/cohort/fhir/export/{id}/{number}",
    *(f"/cohort/fhir/ViewDefinition/${n}" for n in ("sql-run", "run", "sql-export", "export", "viewdefinition-export")),
}  # fmt: skip
TELL_NOTHING = {
    "/cohort/api/questions", "/cohort/api/generation", "/cohort/api/policy", "/cohort/api/feedback",
    "/cohort/fhir/export/{id}",
}  # fmt: skip


def web(lake: HospitalLake, policy: Policy) -> TestClient:
    made = FastAPI(openapi_url="/openapi.json")
    made.include_router(router(lake.lake, Desk(lake.root, policy, PATIENT)))
    return TestClient(made)


def canaries(lake: HospitalLake) -> list[str]:
    """Ids, numbers and keys of patients, and their birth dates but those that are a 1 January as all shown ones are."""
    people = lake.hospital.patients
    ids = [f"pat-{p.mrn.lower()}" for p in people]
    born = (str(p.birth_date) for p in people if not str(p.birth_date).endswith("-01-01"))
    return [*ids, *(p.mrn for p in people), *(str(key(one)) for one in ids), *born]


@pytest.mark.parametrize("door", EXPORTS)
@pytest.mark.parametrize(("policy", "named"), [(COUNTS, NEEDS_ROWS), (ROWS, NEEDS_IDENTIFIERS)])
def test_what_names_patients_to_archives_needs_identifiers(
    hospital: HospitalLake, door: str, policy: Policy, named: str
) -> None:
    refused = EXPORTS[door](web(hospital, policy))
    assert refused.status_code == 403
    assert named in refused.json()["detail"] and "[cohort]" in refused.json()["detail"]


def test_scores_and_patients_alike_keep_to_the_settings_and_stand_in_the_log(
    hospital: HospitalLake, tmp_path: Path
) -> None:
    """What they show where there is something to show: `test_feedback_scores` and `test_similar`."""
    lake = hospital.copy(tmp_path)
    scores, alike = web(lake, COUNTS).get(f"{FEEDBACK}/scores"), web(lake, COUNTS).post(SIMILAR, json=ALIKE)
    assert (scores.status_code, alike.status_code) == (400, 403)  # no model predicted anything here
    assert NEEDS_ROWS in alike.json()["detail"]
    assert web(lake, ROWS).post(SIMILAR, json=ALIKE).status_code == 400  # whom a number names cannot be looked up
    events = [(e["kind"], e["event"]) for e in QueryLog(lake.root / "log").questions()]
    assert events == [("scores", "failed"), ("similar", "failed"), ("similar", "failed")]


@pytest.mark.parametrize("door", OF_ROWS)
def test_where_rows_may_not_be_seen_nothing_of_one_patient_comes_out(hospital: HospitalLake, door: str) -> None:
    refused = OF_ROWS[door](web(hospital, COUNTS))
    assert refused.status_code == 403
    assert NEEDS_ROWS in refused.text.replace("\\", "")


def test_a_question_in_the_background_shows_what_one_that_is_waited_for_shows(hospital: HospitalLake) -> None:
    for policy in (COUNTS, ROWS):
        client = web(hospital, policy)
        waited = client.post(QUESTION, json=ASKED).json()
        place = client.post("/cohort/api/jobs", json={**ASKED, "question": "osteosarcoma-ct"}).headers["location"]
        until = time.monotonic() + 60
        while client.get(place).json()["state"] != "completed" and time.monotonic() < until:
            time.sleep(0.05)
        answer = client.get(f"{place}/answer")
        assert answer.json()["rows"] == waited["rows"]
        assert [c for c in canaries(hospital) if c in answer.text] == []


def test_views_of_the_lake_show_pseudonyms(hospital: HospitalLake, tmp_path: Path) -> None:
    lake = hospital.copy(tmp_path)
    client = web(lake, ROWS)
    run = OF_ROWS["$sql-run"](client)
    assert len(run.json()) == len(lake.hospital.patients)
    started = OF_ROWS["$sql-export"](client)
    place = started.headers["content-location"]
    until = time.monotonic() + 60
    while client.get(place).status_code == 202 and time.monotonic() < until:
        time.sleep(0.05)
    exported = client.get(f"{place}/0")
    assert exported.json() == run.json()
    assert [c for c in canaries(lake) if c in run.text] == []
    made = Pseudonyms.of_project(read_secret(lake.root), "")
    named = made.id("Patient", "pat-mrn000001")
    timeline = client.post("/cohort/api/timeline", json={"patient": named})
    assert timeline.json()["patient_id"] == named
    stored = Desk(lake.root, EVERYTHING, PATIENT).timeline(lake.generation, "MRN000001", Caller("me", "cli"))
    assert len(stored.events) > 5
    assert Counter(e["kind"] for e in timeline.json()["events"]) == Counter(str(e.kind) for e in stored.events)
    assert [c for c in canaries(lake) if c in timeline.text] == []
    assert OF_ROWS["timeline"](client).status_code == 400  # who is known by a number cannot be looked up
    logged = QueryLog(lake.root / "log").questions()
    assert [(e["kind"], e["what"], e["event"]) for e in logged] == [
        ("view", "patient", "answered"), ("view", "patient", "answered"),
        ("timeline", "timeline", "answered"), ("timeline", "timeline", "answered"), ("timeline", "timeline", "failed"),
    ]  # fmt: skip
    assert logged[0]["rows"] == len(lake.hospital.patients)


def test_every_route_of_the_cohort_is_known_here(hospital: HospitalLake) -> None:
    """A new route that gives out data asks the desk, and stands in this file."""
    routes = set(web(hospital, COUNTS).get("/openapi.json").json()["paths"])
    assert routes - TELL_NOTHING == WEB_DOORS


@pytest.mark.parametrize(
    ("command", "policy", "named"),
    [
        (["group", "osteosarcoma-ct"], ROWS, NEEDS_IDENTIFIERS),
        (["manifest", "osteosarcoma-ct"], COUNTS, NEEDS_ROWS),
        (["omop", "osteosarcoma-ct", "--to", "out"], ROWS, NEEDS_IDENTIFIERS),
        (["fetch", "osteosarcoma-ct", "--to", "out"], ROWS, NEEDS_IDENTIFIERS),
        (["fetch", "osteosarcoma-ct", "--to", "out", "--from", "A@127.0.0.1:1"], COUNTS, NEEDS_ROWS),
        (["timeline", "MRN000001"], COUNTS, NEEDS_ROWS),
    ],
)
def test_commands_keep_to_the_settings_and_write_nothing(
    hospital: HospitalLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], policy: Policy,
    named: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bridge.toml").write_text(TOML[policy])
    done = CliRunner().invoke(app, [*command, "--lake", str(hospital.root), "--config", "bridge.toml"])
    assert isinstance(done.exception, NotAllowed)
    assert named in str(done.exception) and "[cohort]" in str(done.exception)
    assert [p.name for p in tmp_path.iterdir()] == ["bridge.toml"]


def test_from_python_there_are_coarse_counts_without_a_configuration(
    hospital: HospitalLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lake is named as people do: relative to where they are."""
    lake = hospital.copy(tmp_path)
    monkeypatch.chdir(tmp_path)
    counted = cohort.open("lake").ask("osteosarcoma-ct", date="2026-01-01")
    assert counted.columns == ("patients", "studies")
    assert "fewer than 10 patients" in counted.notes[0]
    with pytest.raises(NotAllowed, match="line_level"):
        cohort.open("lake").timeline("MRN000001")
    with pytest.raises(NotAllowed, match="where rows may not be seen"):
        cohort.open("lake").sql("SELECT * FROM patient")
    Path("rows.toml").write_text(TOML[ROWS])
    rows = cohort.open("lake", config="rows.toml").sql("SELECT p::VARCHAR FROM patient p")
    assert len(rows) == len(lake.hospital.patients)
    assert [c for c in canaries(lake) if c in repr(rows.rows)] == []
    doors = {(e["door"], e["access"]) for e in QueryLog(lake.root / "log").questions()}
    assert doors == {("python", "counts, pseudonyms"), ("python", "rows, pseudonyms")}


def test_an_export_stands_in_the_log_with_what_was_asked_and_how_much_came(
    hospital: HospitalLake, tmp_path: Path
) -> None:
    lake = hospital.copy(tmp_path)
    group = orjson.loads(EXPORTS["group"](web(lake, EVERYTHING)).content)
    EXPORTS["group"](web(lake, ROWS))
    done, refused = QueryLog(lake.root / "log").questions()
    assert (done["kind"], done["what"], done["door"], done["who"]) == ("export", "group", "api", "testclient")
    assert done["parameters"] == {"question": "osteosarcoma-ct", "date": "2026-01-01"}
    assert done["rows"] >= group["quantity"] > 0
    assert (refused["event"], refused["reason"]) == ("failed", "NotAllowed")
