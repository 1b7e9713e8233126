"""What operators do about parked work, and what they see happen: by command and by HTTP."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from typer.testing import CliRunner

from bridge.api import operations
from bridge.cli import app
from bridge.errors import InvalidQuery, RefusedByServer
from bridge.model import Rejection
from bridge.ports import ChangePage
from bridge.state import State
from bridge.tail_command import happenings
from tests.builders import STUDY, headers
from tests.unit.test_sync import Rig

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fastapi.testclient import TestClient

REFUSED, PATH = f"{STUDY}.1", "scans/DOE^JANE.txt"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """Two studies, of which the EHR refused one, and a file that is none of DICOM."""
    state = State(f"sqlite:///{tmp_path / 'state.sqlite'}")
    made = Rig(state)
    made.ehr.refuses[REFUSED] = RefusedByServer("sink ehr: HTTP 422")
    made.a.put(headers(study=f"{STUDY}.0"), headers(study=REFUSED))
    made.run()
    state.commit_page(
        "inbox",
        ChangePage(frozenset(), "1", True, rejected=(Rejection(PATH, "no DICOM", {"size": 7}),)),
        made.now,
        0,
        0,
    )
    yield made
    state.close()


@pytest.fixture
def client(rig: Rig) -> TestClient:
    served = FastAPI()
    served.include_router(operations.router(rig.state, lambda: rig.now))
    return TestClient(served)


def bridge(tmp_path: Path, *words: str) -> str:
    done = CliRunner().invoke(app, [*words, "--data-dir", str(tmp_path)])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_show_tells_all_of_one_parked_item(rig: Rig, client: TestClient, tmp_path: Path) -> None:
    told = json.loads(bridge(tmp_path, "parked", "show", "file:inbox", PATH, "--json"))
    assert (told["key"], told["error"], told["evidence"]) == (PATH, "no DICOM", {"size": 7})
    assert "evidence: size" in bridge(tmp_path, "parked", "show", "file:inbox", PATH)
    assert client.get("/operations/parked/item", params={"queue": "file:inbox", "key": PATH}).json() == told
    assert client.get("/operations/parked/item", params={"queue": "file:inbox", "key": "other"}).status_code == 404


def test_a_discarded_item_is_forgotten_until_it_is_marked_again(rig: Rig, tmp_path: Path) -> None:
    assert json.loads(bridge(tmp_path, "parked", "discard", "sink:ehr", REFUSED, "--json")) == {"discarded": 1}
    assert [i.key for i in rig.state.items(parked=True)] == [PATH]
    with pytest.raises(InvalidQuery, match="nothing parked in queue sink:ehr"):
        rig.state.discard("sink:ehr", REFUSED)
    rig.state.mark("sink:ehr", [REFUSED], rig.now)
    rig.run()
    assert {i.key for i in rig.state.items(parked=True)} == {PATH, REFUSED}


def test_work_that_waits_is_not_discarded(rig: Rig) -> None:
    rig.state.mark("sink:ehr", [f"{STUDY}.0"], rig.now)
    with pytest.raises(InvalidQuery):
        rig.state.discard("sink:ehr", f"{STUDY}.0")


def test_a_whole_queue_is_discarded_or_replayed(rig: Rig, tmp_path: Path) -> None:
    assert json.loads(bridge(tmp_path, "parked", "replay", "file:inbox", "all", "--json")) == {"replayed": 1}
    assert bridge(tmp_path, "parked", "discard", "sink:ehr", "all") == "1 discarded\n"
    assert rig.state.items(parked=True) == []


def test_items_are_discarded_by_http(rig: Rig, client: TestClient) -> None:
    item = {"queue": "file:inbox", "key": PATH}
    assert client.post("/operations/parked/discard", json=item).json() == {"discarded": PATH}
    assert client.post("/operations/parked/discard", json=item).status_code == 404


def test_tail_shows_versions_in_their_order_and_what_is_parked(rig: Rig, tmp_path: Path) -> None:
    events = [json.loads(line) for line in bridge(tmp_path, "tail", "--since", "0", "--once", "--json").splitlines()]
    sequences = [e["sequence"] for e in events if "sequence" in e]
    assert sequences == list(range(1, rig.state.latest_revision() + 1))
    refused, file = sorted((e for e in events if e["event"] == "parked"), key=lambda e: e["queue"], reverse=True)
    assert (refused["queue"], refused["studyInstanceUid"], refused["error"]) == (
        "sink:ehr",
        REFUSED,
        "sink ehr: HTTP 422",
    )
    assert file["queue"] == "file:inbox"


def test_tail_names_neither_patients_nor_paths(rig: Rig, client: TestClient, tmp_path: Path) -> None:
    lines = bridge(tmp_path, "tail", "--since", "0", "--once")
    assert len(lines.splitlines()) == rig.state.latest_revision() + 2
    for shown in (lines, bridge(tmp_path, "tail", "--since", "0", "--once", "--json")):
        assert "DOE" not in shown.upper().replace("DOES", "")
    assert "DOE" not in client.get("/operations/troubles").text


def test_tail_goes_on_with_what_comes_and_repeats_nothing(rig: Rig) -> None:
    def more() -> None:
        rig.a.put(headers(study=f"{STUDY}.0", instance=2))
        rig.run()

    before = rig.state.latest_revision()
    events = list(happenings(rig.state, before, more, range(2)))
    assert [e["event"] for e in events] == ["parked", "parked", "updated"]
    assert events[-1]["sequence"] == before + 1
