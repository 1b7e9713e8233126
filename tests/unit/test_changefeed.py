from __future__ import annotations

import random
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from bridge.api import changefeed
from bridge.api.changefeed import leading
from bridge.model import Change, ChangeAction, StudyResult
from bridge.state import State
from tests.builders import STUDY

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fastapi.testclient import TestClient


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    made = State(f"sqlite:///{tmp_path / 's.sqlite'}")
    yield made
    made.close()


def commit(state: State, number: int, now: float, patient: str = "p", worker: str = "w", **elements: Any) -> None:
    """One study as a translation makes it: its ImagingStudy, its Patient and the Endpoint they all share."""
    uid = f"{STUDY}.{number}"
    state.mark(worker, [uid], now)
    (claim,) = state.claim(worker, now, 30, 1, worker)
    study = {"resourceType": "ImagingStudy", "id": f"s{number}", "status": "available"} | elements
    study["subject"] = {"reference": f"Patient/{patient}"}
    endpoint = {"resourceType": "Endpoint", "id": "e", "status": "active"}
    person = {"resourceType": "Patient", "id": patient, "active": True}
    state.commit_study(claim, StudyResult(uid, patient, "1", person, (endpoint, study)), [], [], now)


class Follower:
    """Keeps a copy of everything true by the feed alone."""

    def __init__(self, state: State) -> None:
        app = FastAPI()
        app.include_router(changefeed.router(state))
        self.client, self.since = TestClient(app), 0
        self.entries: list[dict[str, Any]] = []
        self.copy: dict[tuple[str, str], Any] = {}

    def get(self, **parameters: Any) -> list[dict[str, Any]]:
        response = self.client.get("/changefeed", params={"since": self.since, **parameters})
        assert response.status_code == 200, response.text
        return list(response.json())

    def step(self, limit: int) -> int:
        found = self.get(limit=limit, include="resource")
        for entry in found:
            key = entry["resourceType"], entry["id"]
            if entry["action"] == "deleted":
                self.copy.pop(key)
            else:
                assert (key in self.copy) == (entry["action"] == "updated")
                self.copy[key] = entry["resource"]
        self.entries += found
        self.since = found[-1]["sequence"] if found else self.since
        return len(found)


def held(state: State) -> dict[tuple[str, str], Any]:
    """Type and id → content of everything that is there."""
    found = {}
    for change in state.changes(0, 100_000):
        one = state.read_resource(change.resource_type, change.id)
        if one is not None and one.content is not None:
            found[one.resource_type, one.id] = one.content | {"version": str(one.version)}
    return found


def without_meta(resource: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in resource.items() if k != "meta"} | {"version": resource["meta"]["versionId"]}


def test_each_change_is_an_entry_with_what_became_of_the_resource(state: State) -> None:
    follower = Follower(state)
    assert follower.get() == []
    assert follower.client.get("/changefeed/latest").status_code == 204
    commit(state, 1, 1000.0, "old")
    commit(state, 1, 2000.0, "new")
    commit(state, 1, 3000.0, "old")
    found = [(e["sequence"], e["resourceType"], e["id"], e["versionId"], e["action"]) for e in follower.get()]
    assert found == [
        (1, "Patient", "old", "1", "created"),
        (2, "Endpoint", "e", "1", "created"),
        (3, "ImagingStudy", "s1", "1", "created"),
        (4, "Patient", "new", "1", "created"),
        (5, "Patient", "old", "2", "deleted"),
        (6, "ImagingStudy", "s1", "2", "updated"),
        (7, "Patient", "new", "2", "deleted"),
        (8, "Patient", "old", "3", "created"),
        (9, "ImagingStudy", "s1", "3", "updated"),
    ]
    latest = follower.client.get("/changefeed/latest").json()
    assert latest == follower.get()[-1]
    assert latest["studyInstanceUid"] == f"{STUDY}.1"
    assert latest["timestamp"] == "1970-01-01T00:50:00.000Z"
    assert "studyInstanceUid" not in follower.get()[0]


def test_a_replay_from_anywhere_gives_the_same_entries(state: State) -> None:
    for n in range(6):
        commit(state, n % 3, 1000.0 + n, f"p{n % 2}", description=str(n))
    follower = Follower(state)
    everything = follower.get(limit=1000, include="resource")
    for since in range(len(everything) + 1):
        follower.since = since
        assert follower.get(limit=3, include="resource") == everything[since : since + 3]
    follower.since = 2
    of_studies = [e for e in everything[2:] if e["resourceType"] == "ImagingStudy"]
    assert follower.get(type="ImagingStudy", include="resource") == of_studies
    assert [e["resource"]["description"] for e in of_studies] == ["0", "1", "2", "3", "4", "5"]


def test_a_follower_keeps_a_true_copy_while_writes_go_on(state: State) -> None:
    problems: list[BaseException] = []

    def write(worker: int) -> None:
        dice = random.Random(worker)
        try:
            for n in range(25):
                study = worker * 100 + dice.randrange(4)
                commit(state, study, 1000.0 + n, f"p{dice.randrange(5)}", f"w{worker}", description=str(n))
        except BaseException as error:
            problems.append(error)

    writers = [threading.Thread(target=write, args=(n,)) for n in range(3)]
    follower, dice = Follower(state), random.Random(7)
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        follower.step(dice.randrange(1, 8))
    for writer in writers:
        writer.join()
    while follower.step(100):
        pass
    assert not problems
    assert [e["sequence"] for e in follower.entries] == list(range(1, len(follower.entries) + 1))
    assert {key: without_meta(r) for key, r in follower.copy.items()} == held(state)
    times = [e["timestamp"] for e in follower.entries]
    assert times == sorted(times)


def test_a_page_is_bounded_in_bytes_but_never_empty() -> None:
    changes = [
        Change(n, "Patient", str(n), 1, ChangeAction.CREATED, 0.0, size=size) for n, size in enumerate((9, 1, 1))
    ]
    assert leading(changes, 5) == changes[:1]
    assert leading(changes[1:], 1) == changes[1:2]
    assert leading(changes, 11) == changes
    assert leading([], 5) == []


@pytest.mark.parametrize(
    ("query", "status"),
    [("limit=0", 422), ("limit=1001", 422), ("since=-1", 422), ("since=9223372036854775808", 422), ("since=a", 422),
     ("include=all", 422), ("type=Medication", 400), ("since=9223372036854775807", 200)],
)  # fmt: skip
def test_what_is_out_of_bounds_is_refused(state: State, query: str, status: int) -> None:
    assert Follower(state).client.get(f"/changefeed?{query}").status_code == status


def test_what_was_held_at_a_revision_stays_the_same(state: State) -> None:
    for n in range(3):
        commit(state, n, 1000.0 + n, "p")
    point = state.latest_revision()
    before = list(state.held_at(point, "ImagingStudy", 0.0))
    commit(state, 1, 2000.0, "q", description="later")
    commit(state, 9, 2001.0, "q")
    assert list(state.held_at(point, "ImagingStudy", 0.0)) == before
    assert [c.id for c in before] == ["s0", "s1", "s2"]
    assert [c.id for c in state.held_at(point, "ImagingStudy", 1001.0)] == ["s1", "s2"]
    assert state.time_of(point) == 1002.0
    assert state.time_of(0) == 0.0
