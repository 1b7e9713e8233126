from __future__ import annotations

import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pyarrow.ipc
import pytest
from fastapi import FastAPI
from typer.testing import CliRunner

from bridge.api.security import harden
from cohort.api import CHARTS, router
from cohort.catalogue import questions
from cohort.cli import app as cohort_cli
from cohort.desk import Desk
from cohort.lake import Lake
from cohort.privacy import Policy
from tests.policies import EVERYTHING, PATIENT

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fastapi.testclient import TestClient

EVIL = "<img src=x onerror=alert(1)>"


def client(lake: Lake, policy: Policy = EVERYTHING) -> TestClient:
    app = FastAPI()
    app.include_router(router(lake, Desk(lake.root, policy, PATIENT)))
    harden(app, ["testserver"])
    return TestClient(app)


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    lake = Lake(tmp_path_factory.mktemp("api") / "lake")
    lines = [
        {
            "kind": "resource", "origin": "clinical", "type": "Patient", "id": f"p{n}", "revision": 1, "deleted": False,
            "resource": {"resourceType": "Patient", "id": f"p{n}", "gender": EVIL if n == 3 else "female"},
        }
        for n in range(4)
    ]  # fmt: skip
    lake.append(lines)
    lake.publish(datetime.now(UTC))
    yield client(lake)


def test_the_page_is_served_with_a_policy_that_runs_only_its_own_script(web: TestClient) -> None:
    page = web.get("/cohort/")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    for name in ("page.js", "page.css"):
        assert web.get(f"/cohort/static/{name}").status_code == 200
    assert "innerHTML" not in web.get("/cohort/static/page.js").text


@pytest.mark.parametrize("name", ["../api.py", "..%2fapi.py", "index.html", "x"])
def test_no_other_file_is_served(web: TestClient, name: str) -> None:
    assert web.get(f"/cohort/static/{name}").status_code == 404


def test_questions_tables_and_generation_are_listed(web: TestClient) -> None:
    assert {q["name"] for q in web.get("/cohort/api/questions").json()} == set(questions())
    tables = {t["name"]: t for t in web.get("/cohort/api/tables").json()}
    assert tables["patient"]["rows"] == 4
    assert web.get("/cohort/api/generation").json()["generation"] == "g000001"


def test_sql_is_answered_in_every_format(web: TestClient) -> None:
    asked = {"sql": "SELECT patient_id, gender FROM patient ORDER BY 1"}
    answer = web.post("/cohort/api/sql", json=asked)
    assert answer.json()["rows"][3] == {"patient_id": "p3", "gender": EVIL}
    assert answer.headers["content-type"] == "application/json"
    download = web.post("/cohort/api/sql", json=asked | {"format": "csv"})
    assert download.headers["content-disposition"] == 'attachment; filename="query.csv"'
    assert web.post("/cohort/api/sql", json=asked | {"format": "parquet"}).content.startswith(b"PAR1")
    lines = web.post("/cohort/api/sql", json=asked | {"format": "ndjson"}).text.splitlines()
    stream = web.post("/cohort/api/sql", json=asked | {"format": "arrow"})
    assert stream.headers["content-type"] == "application/vnd.apache.arrow.stream"
    rows = pyarrow.ipc.open_stream(stream.content).read_all().to_pylist()
    assert rows == [orjson.loads(line) for line in lines] == web.post("/cohort/api/sql", json=asked).json()["rows"]


@pytest.mark.parametrize("name", sorted(CHARTS))
def test_the_plots_have_their_rows(web: TestClient, name: str) -> None:
    assert web.get(f"/cohort/api/charts/{name}").status_code == 200


def test_a_question_is_answered(web: TestClient) -> None:
    asked = {"parameters": {"older_than_years": "30"}, "date": "2026-01-01"}
    found = web.post("/cohort/api/questions/osteosarcoma-ct", json=asked)
    assert found.status_code == 200
    assert found.headers["x-lake-generation"] == "g000001"


def test_a_document_is_answered(web: TestClient) -> None:
    asked = {
        "name": "women", "title": "Women", "description": "All women",
        "parameters": {"gender": {"type": "text", "default": "male", "description": "G"}},
        "criteria": {"patient": {"where": {"gender": "$gender"}}},
        "return": {"unit": "patient", "columns": ["patient_id"]},
    }  # fmt: skip
    answer = web.post("/cohort/api/ask", json={"document": asked, "parameters": {"gender": "female"}})
    assert [row["patient_id"] for row in answer.json()["rows"]] == ["p0", "p1", "p2"]
    wrong = web.post("/cohort/api/ask", json={"document": asked | {"criteria": {"patient": {"where": {"sex": "f"}}}}})
    assert wrong.status_code == 400
    assert wrong.json()["detail"].startswith("criteria.patient.where.sex:")


def test_attrition_and_comparison_are_answered(web: TestClient) -> None:
    told = web.post("/cohort/api/questions/osteosarcoma-ct/attrition", json={"date": "2026-01-01"}).json()["rows"]
    assert [row["step"] for row in told] == [0, 1, 2, 3]
    assert told[1]["criterion"] == "Older than the age given"
    both = {"first": {"question": "patients-by-age"}, "second": {"question": "repeated-ct", "parameters": {"times": 2}}}
    rows = web.post("/cohort/api/compare", json=both).json()["rows"]
    assert rows == []
    assert web.post("/cohort/api/compare", json=both | {"first": {"question": "none"}}).status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("ask", {"document": {}}, 400),
        ("ask", {"document": []}, 422),
        ("compare", {"first": {"question": "repeated-ct"}}, 422),
        ("sql", {"sql": "DROP TABLE x"}, 400),
        ("sql", {"sql": ""}, 422),
        ("sql", {"sql": "SELECT 1", "format": "exe"}, 422),
        ("sql", {"sql": "SELECT 1", "more": 1}, 422),
        ("sql", {"sql": "x" * 2_000_000}, 413),
        ("questions/none", {}, 404),
        ("questions/osteosarcoma-ct", {"parameters": {"older_than_years": "old"}}, 400),
        ("questions/osteosarcoma-ct", {"parameters": {"x": 1}}, 400),
        ("questions/osteosarcoma-ct", {"date": "soon"}, 422),
    ],
)
def test_a_wrong_request_is_told(web: TestClient, path: str, body: dict[str, Any], status: int) -> None:
    answer = web.post(f"/cohort/api/{path}", json=body)
    assert answer.status_code == status
    assert answer.json()


def test_another_host_name_is_refused(web: TestClient) -> None:
    assert web.get("/cohort/api/tables", headers={"Host": "evil.example"}).status_code == 400


def test_before_there_is_data_it_says_so(tmp_path: Path) -> None:
    empty = client(Lake(tmp_path / "lake"))
    assert empty.get("/cohort/api/generation").json()["generation"] is None
    assert empty.post("/cohort/api/sql", json={"sql": "SELECT 1"}).status_code == 409


def test_a_kept_generation_is_asked_again_over_http(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    for n in range(2):
        resource = {"resourceType": "Patient", "id": f"p{n}"}
        kind = {"kind": "resource", "origin": "clinical", "type": "Patient", "id": f"p{n}", "revision": 1}
        lake.append([kind | {"deleted": False, "resource": resource}])
        lake.publish(datetime.now(UTC))
        if n == 0:
            lake.keep("paper", "g000001")
    asked = client(lake)
    found = asked.post("/cohort/api/sql", json={"sql": "SELECT count(*) n FROM patient", "generation": "paper"}).json()
    assert (found["generation"], found["rows"][0]["n"]) == ("g000001", 1)
    wrong = asked.post("/cohort/api/sql", json={"sql": "SELECT 1", "generation": "other"})
    assert (wrong.status_code, "none is kept" in wrong.text) == (400, True)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The API as it is without settings: 23 women, 3 men."""
    lake = Lake(tmp_path_factory.mktemp("guarded") / "lake")
    lake.append(
        {
            "kind": "resource", "origin": "clinical", "type": "Patient", "id": f"p{n}", "revision": 1, "deleted": False,
            "resource": {"resourceType": "Patient", "id": f"p{n}", "gender": "male" if n < 3 else "female"},
        }
        for n in range(26)
    )  # fmt: skip
    lake.publish(datetime.now(UTC))
    yield client(lake, Policy())


def test_without_settings_there_are_coarse_counts_and_no_rows(guarded: TestClient) -> None:
    refused = guarded.post("/cohort/api/sql", json={"sql": "SELECT * FROM patient"})
    assert refused.status_code == 403
    assert "rows may not be seen" in refused.json()["detail"]
    sql = "SELECT gender, count(DISTINCT patient_id) AS n FROM patient GROUP BY 1"
    answer = guarded.post("/cohort/api/sql", json={"sql": sql}).json()
    assert answer["rows"] == [{"gender": "female", "n": 20}]
    assert "fewer than 10 patients" in answer["notes"][0]
    assert guarded.post("/cohort/api/sql", json={"sql": sql, "format": "csv"}).text.split() == ["gender,n", "female,20"]


def test_tables_tell_neither_their_exact_size_nor_hide_what_is_withheld(guarded: TestClient) -> None:
    tables = {t["name"]: t for t in guarded.get("/cohort/api/tables").json()}
    assert tables["patient"]["rows"] == 20
    assert {c["name"]: c["shown"] for c in tables["patient"]["columns"]}["patient_id"] == "pseudonym"
    policy = guarded.get("/cohort/api/policy").json()
    assert (policy["line_level"], policy["small_cells"], policy["identifiers"]) == (False, 10, "pseudonyms")


def test_a_question_that_lists_answers_with_counts(guarded: TestClient) -> None:
    answer = guarded.post("/cohort/api/questions/osteosarcoma-ct", json={}).json()
    assert answer["rows"] == [{"patients": None, "studies": None}]


def test_the_page_served_alone_answers_to_names_it_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[FastAPI] = []
    monkeypatch.setattr("cohort.serve_command.uvicorn.run", lambda web, **_: served.append(web))
    command = ["serve", "--lake", str(tmp_path / "lake"), "--host", "0.0.0.0", "--host-name", "cohort.example"]
    assert CliRunner().invoke(cohort_cli, command).exit_code == 0
    asked = TestClient(served[0])
    for host, status in (("127.0.0.1:8081", 200), ("cohort.example", 200), ("evil.example", 400)):
        answer = asked.get("/cohort/", headers={"Host": host})
        assert answer.status_code == status, host
    assert asked.get("/cohort/", headers={"Host": "localhost"}).headers["x-frame-options"] == "DENY"
