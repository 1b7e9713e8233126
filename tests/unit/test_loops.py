from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import StateUnavailable
from bridge.loops import Loop, Loops
from bridge.model import ALL_ROLES, Role
from bridge.state import State
from bridge.sync import Timing
from tests.builders import STUDY, headers
from tests.unit.test_sync import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    state = State(f"sqlite:///{tmp_path / 's.sqlite'}")
    made = Rig(state)
    made.now = 0.0  # of this rig: by how much its clock is wrong
    made.pipeline.clock = lambda: time.time() + made.now
    made.pipeline.timing = Timing(quiet_s=0.1, max_wait_s=1.0)
    made.a.poll_s = 0.1
    made.pipeline.prepare()
    yield made
    state.close()


def until(look: Callable[[], object]) -> None:
    ends = time.monotonic() + 60
    while not look():
        assert time.monotonic() < ends
        time.sleep(0.02)


def loops(rig: Rig, roles: frozenset[Role] = ALL_ROLES, *others: Loop) -> Loops:
    failed: list[str] = []
    return Loops(rig.pipeline, roles, "p", 1, rig.state, failed.append, others)


def test_a_clock_that_was_an_hour_ahead_stops_nothing_when_it_is_right_again(rig: Rig) -> None:
    running = loops(rig)
    rig.now = 3600.0
    running.start()
    try:
        rig.a.put(headers(study=f"{STUDY}.1"))
        until(lambda: f"{STUDY}.1" in rig.ehr.newest())
        rig.now = 0.0
        rig.a.put(headers(study=f"{STUDY}.2"))
        until(lambda: f"{STUDY}.2" in rig.ehr.newest())
    finally:
        running.stop()


@pytest.mark.parametrize("lost", ["retry", "claim"])
def test_what_a_database_kept_leased_when_it_went_away_is_done_when_it_is_back(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """It went before the step could give its claim back, or after it had committed a claim that nobody heard of."""
    away = StateUnavailable("state: the database cannot answer now")
    plain, gone = getattr(rig.state, lost), list[str]()

    def goes_away(*given: Any) -> Any:
        about = given[0] if lost == "claim" else given[0].queue
        found = None if gone or about != "poll" or lost == "retry" else plain(*given)
        if gone or about != "poll" or found == []:
            return plain(*given) if found is None else found
        gone.append("once")
        raise away

    monkeypatch.setattr(rig.state, lost, goes_away)
    monkeypatch.setattr("bridge.loops.UNAVAILABLE_S", 0.1)
    del rig.pipeline.sources["b"]
    rig.a.down, rig.a.sweep_s = lost == "retry", 3600.0
    rig.pipeline.prepare()
    running = loops(rig)
    running.start()
    try:
        until(lambda: gone)
        rig.a.down = False
        until(lambda: all(item.due_at > time.time() + 1000 for item in rig.state.items(queue="sweep")))
        rig.a.put(headers(study=f"{STUDY}.1"))
        until(lambda: f"{STUDY}.1" in rig.ehr.newest())
    finally:
        running.stop()


def test_a_process_does_what_its_roles_are_and_what_is_due_there(rig: Rig) -> None:
    asked: list[str] = []

    def step(worker: str) -> int:
        asked.append(worker)
        return 0

    rig.a.put(headers(study=f"{STUDY}.1"))
    rig.state.mark("other", ["k"], time.time())
    running = loops(rig, frozenset({Role.POLL}), Loop("other", "other", step), Loop("always", "", step))
    running.start()
    try:
        until(lambda: rig.state.items(queue="study"))
        until(lambda: min(asked.count("p/other"), asked.count("p/always")) > 2)
        time.sleep(0.5)
        assert rig.state.study_resources(f"{STUDY}.1") == ()
    finally:
        running.stop()
