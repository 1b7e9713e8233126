from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi import FastAPI

from bridge.errors import InvalidQuery, Unavailable
from cohort.api import router
from cohort.desk import Desk
from cohort.lake import Lake
from cohort.view_export import MOST_JOBS, Exports
from cohort.view_request import read_request
from tests.policies import EVERYTHING, PATIENT

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fastapi.testclient import TestClient

BASE = "/cohort/fhir"
VIEW: dict[str, Any] = {
    "resourceType": "ViewDefinition", "resource": "Patient", "name": "names",
    "select": [{"column": [{"name": "id", "path": "id"}, {"name": "family", "path": "name.family.first()"}]}],
}  # fmt: skip
PATIENTS = [{"resourceType": "Patient", "id": n, "name": [{"family": f"F{n}"}]} for n in ("a", "b")]


def parameters(*given: dict[str, Any]) -> dict[str, Any]:
    return {"resourceType": "Parameters", "parameter": list(given)}


def given(view: dict[str, Any], resources: list[Any]) -> dict[str, Any]:
    return parameters(
        {"name": "viewResource", "resource": view}, *({"name": "resource", "resource": r} for r in resources)
    )


def named(name: str) -> dict[str, Any]:
    return {"name": "viewReference", "valueReference": {"reference": f"ViewDefinition/{name}"}}


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    lake = Lake(tmp_path_factory.mktemp("views") / "lake")
    line = {"kind": "resource", "origin": "clinical", "type": "Patient", "revision": 1, "deleted": False}
    lake.append([line | {"id": p["id"], "resource": p} for p in PATIENTS])
    lake.publish(datetime.now(UTC))
    app = FastAPI()
    app.include_router(router(lake, Desk(lake.root, EVERYTHING, PATIENT)))
    yield TestClient(app)


@pytest.mark.parametrize("operation", ["$sql-run", "$run"])
def test_a_view_runs_over_resources_that_come_along(web: TestClient, operation: str) -> None:
    answer = web.post(f"{BASE}/ViewDefinition/{operation}", json=given(VIEW, PATIENTS))
    assert answer.status_code == 200
    assert answer.json() == [{"id": "a", "family": "Fa"}, {"id": "b", "family": "Fb"}]


def test_every_format(web: TestClient) -> None:
    def asked(query: str) -> Any:
        return web.post(f"{BASE}/ViewDefinition/$sql-run?{query}", json=given(VIEW, PATIENTS))

    assert asked("_format=csv").text == "id,family\r\na,Fa\r\nb,Fb\r\n"
    assert asked("_format=text/csv&header=false").text == "a,Fa\r\nb,Fb\r\n"
    assert asked("_format=ndjson&_limit=1").text == '{"id":"a","family":"Fa"}\n'
    assert asked("_limit=1").headers["x-truncated"] == "true"
    assert asked("_format=parquet").content.startswith(b"PAR1")


def test_our_own_views_are_answered_from_the_lake(web: TestClient) -> None:
    answer = web.get(f"{BASE}/ViewDefinition/patient/$sql-run")
    assert sorted(row["patient_id"] for row in answer.json()) == ["a", "b"]
    assert answer.headers["x-lake-generation"] == "g000001"
    assert web.get(f"{BASE}/ViewDefinition/patient/$nothing").status_code == 404


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "Parameters"),
        (parameters(), "viewReference or viewResource"),
        (parameters(named("nothing")), "no such view"),
        (parameters(named('patient" --')), "no such view"),
        (parameters({"name": "viewReference", "valueReference": {"reference": "Patient/1"}}), "ViewDefinition/NAME"),
        (parameters(named("patient"), {"name": "patient", "valueReference": {"reference": "Patient/1"}}), "patient"),
        (parameters(named("patient"), {"name": "resource", "resource": PATIENTS[0]}), "viewResource"),
        (given(VIEW, []), "resource: "),
        (given(VIEW | {"select": [{"column": [{"name": "x", "path": "name.nope("}]}]}, PATIENTS), "name.nope("),
        (parameters(named("patient"), {"name": "_limit", "valueInteger": 0}), "_limit"),
        (parameters(named("patient"), {"name": "_format", "valueCode": "xml"}), "_format"),
    ],
)
def test_what_is_wrong_is_named(web: TestClient, body: dict[str, Any], said: str) -> None:
    answer = web.post(f"{BASE}/ViewDefinition/$sql-run", json=body)
    assert answer.status_code == 400
    assert answer.json()["resourceType"] == "OperationOutcome"
    assert said in answer.json()["issue"][0]["diagnostics"]


def test_a_view_that_grows_without_end_is_ended(web: TestClient) -> None:
    each = [{"forEach": "name", "column": [{"name": f"c{n}", "path": "family"}]} for n in range(9)]
    wide = {"resourceType": "Patient", "id": "a", "name": [{"family": "x"} for _ in range(50)]}
    answer = web.post(f"{BASE}/ViewDefinition/$sql-run?_limit=10", json=given(VIEW | {"select": each}, [wide]))
    assert answer.status_code == 200
    assert len(answer.json()) == 10


def finished(web: TestClient, location: str) -> Any:
    until = time.monotonic() + 60
    while (answer := web.get(location)).status_code == 202:
        assert answer.headers["retry-after"]
        assert time.monotonic() < until
        time.sleep(0.05)
    return answer


@pytest.mark.parametrize("operation", ["$sql-export", "$viewdefinition-export"])
def test_an_export_is_made_in_the_background(web: TestClient, operation: str) -> None:
    view = {"name": "view", "part": [{"name": "name", "valueString": "x"}, named("patient")]}
    started = web.post(f"{BASE}/ViewDefinition/{operation}?_format=ndjson", json=parameters(view))
    assert started.status_code == 202
    location = started.headers["content-location"]
    state = finished(web, location).json()
    (output,) = [p["part"] for p in state["parameter"] if p["name"] == "output"]
    content = web.get(next(p["valueUri"] for p in output if p["name"] == "location"))
    assert content.status_code == 200
    assert content.text.count("\n") == 2
    assert web.delete(location).status_code == 202
    assert web.get(location).status_code == 404
    assert web.delete(location).status_code == 404


def test_a_failed_export_says_why(web: TestClient) -> None:
    started = web.post(f"{BASE}/ViewDefinition/$sql-export?_limit=1", json=parameters(named("patient")))
    failed = finished(web, started.headers["content-location"])
    assert failed.status_code == 400
    assert "patient: has more than 1 rows" in failed.json()["issue"][0]["diagnostics"]
    assert web.get(started.headers["content-location"] + "/0").status_code == 404


def test_exports_are_bounded_and_forgotten() -> None:
    now = [0.0]
    exports = Exports(lambda: now[0])
    first = exports.start([("a", lambda: b"x")], "json")
    jobs = [exports.start([("a", lambda: b"x")], "json") for _ in range(MOST_JOBS)]
    until = time.monotonic() + 30
    while any(job.state == "running" for job in jobs):
        assert time.monotonic() < until
        time.sleep(0.01)
    now[0] = 4000.0
    last = exports.start([("a", lambda: b"x")], "json")
    assert exports.find(first.id) is None
    assert exports.find(jobs[0].id) is None
    assert exports.find(last.id) is last


def test_more_exports_than_can_wait_are_refused() -> None:
    exports = Exports()
    import threading

    gate = threading.Event()

    def blocked() -> bytes:
        gate.wait(30)
        return b""

    for _ in range(MOST_JOBS):
        exports.start([("a", blocked)], "json")
    with pytest.raises(Unavailable):
        exports.start([("a", blocked)], "json")
    gate.set()


@pytest.mark.parametrize("body", [None, [], {"resourceType": "Parameters", "parameter": [1]}, "x"])
def test_a_body_that_is_no_parameters_is_refused(body: Any) -> None:
    with pytest.raises(InvalidQuery):
        read_request(body, {})
