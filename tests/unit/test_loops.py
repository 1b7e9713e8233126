from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

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
    return Loops(rig.pipeline, roles, "p", 1, rig.state.renew_process, failed.append, others)


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
