"""What the operations page is told."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from bridge.api.overview import overview, router, throughput
from bridge.errors import RefusedByServer
from bridge.state import State
from tests.builders import STUDY, headers
from tests.unit.test_sync import Rig

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fastapi.testclient import TestClient

SOURCES = {"a": "orthanc", "b": "folder"}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    state = State(f"sqlite:///{tmp_path / 's.sqlite'}")
    yield Rig(state)
    state.close()


def test_a_source_that_fails_and_a_sink_that_refuses_are_told(rig: Rig) -> None:
    rig.run()
    rig.b.put(headers(study=f"{STUDY}.1"), headers(study=f"{STUDY}.2"))
    rig.ehr.refuses[f"{STUDY}.2"] = RefusedByServer("sink ehr: HTTP 422")
    rig.a.down = True
    rig.run(30)
    seen = overview(rig.state, SOURCES, ["ehr", "lake"], frozenset({"lake"}), rig.now)
    a, b = seen["sources"]
    assert (a["name"], a["kind"], a["error"]) == ("a", "orthanc", "source a: down")
    assert a["lag_s"] > 20
    assert b == {"name": "b", "kind": "folder", "parked": 0, "lag_s": 0.0, "error": ""}
    ehr, lake = seen["sinks"]
    assert ehr == {"name": "ehr", "waiting": 0, "parked": 1, "lag_s": 0.0, "studies": 1, "error": ""}
    assert (lake["studies"], lake["error"]) == (None, "it could not be reached when it was tried last")
    assert {q["queue"]: q["parked"] for q in seen["queues"]}["sink:ehr"] == 1


def test_throughput_has_every_interval_and_counts_what_changed_in_it(rig: Rig) -> None:
    rig.run()
    rig.a.put(headers(study=f"{STUDY}.1"), headers(study=f"{STUDY}.2"))
    rig.run()
    told = throughput(rig.state, 3, rig.now)
    starts = [i["start"] for i in told["intervals"]]
    assert told["interval_s"] == 300
    assert starts == list(range(starts[0], starts[0] + 36 * 300, 300))
    assert starts[-1] <= rig.now < starts[-1] + 300
    assert sum(i["studies"] for i in told["intervals"]) == 2
    assert sum(i["studies"] for i in throughput(rig.state, 3, rig.now + 4 * 3600)["intervals"]) == 0


def test_the_page_may_run_only_its_own_script(rig: Rig) -> None:
    app = FastAPI()
    app.include_router(router(rig.state, SOURCES, ["ehr"], frozenset, lambda: rig.now))
    client = TestClient(app)
    page = client.get("/operations/")
    assert "default-src 'none'; script-src 'self'" in page.headers["content-security-policy"]
    assert "<script>" not in page.text
    assert client.get("/operations/static/page.js").headers["content-type"].startswith("text/javascript")
    assert client.get("/operations/static/..%2findex.html").status_code == 404
    assert client.get("/operations/throughput", params={"hours": 0}).status_code == 422
    assert client.get("/operations/overview").json()["sinks"][0]["name"] == "ehr"
