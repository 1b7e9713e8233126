"""Alive and ready: each check bounded in time, and what is wrong told in words."""

from __future__ import annotations

import socket
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import FastAPI

from bridge.api.monitoring import router
from bridge.errors import StateUnavailable, Unavailable
from bridge.loops import Loop, Loops
from bridge.model import ALL_ROLES
from bridge.state import State
from bridge.telemetry import health
from bridge.telemetry.health import STATE, Readiness, Verdict, connects, first_of, is_there
from tests.services.peers import free_port
from tests.unit.test_sync import Rig

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fastapi.testclient import TestClient


def well() -> str:
    return ""


def test_a_check_that_hangs_is_told_in_time_and_not_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "ANSWER_WITHIN_S", 0.1)
    monkeypatch.setattr(health, "KEPT_S", 0.0)
    release, started = threading.Event(), []

    def hangs() -> str:
        started.append(1)
        release.wait(30)
        return ""

    readiness = Readiness({"state": hangs, "sink ehr": well})
    for _ in range(3):
        assert readiness.verdict().problems == {"state": "no answer within 0.1 s", "sink ehr": ""}
    assert len(started) == 1
    release.set()
    until = time.monotonic() + 20
    while not readiness.verdict().well:
        assert time.monotonic() < until


def test_however_many_ask_peers_are_looked_at_once_a_second() -> None:
    now, looked = 0.0, []
    readiness = Readiness({"state": lambda: looked.append(1) or ""}, lambda: now)  # type: ignore[func-returns-value]
    for _ in range(10):
        assert readiness.verdict().well
    assert len(looked) == 1
    now = 1.0
    readiness.verdict()
    assert len(looked) == 2


def test_an_unexpected_error_is_told_by_its_type_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def bug() -> str:
        raise ValueError("CANARY^ANNA")

    def away() -> str:
        raise StateUnavailable("state: the database cannot answer now (OperationalError)")

    found = Readiness({"a": bug, "b": away}).verdict().problems
    assert found == {"a": "unexpected ValueError", "b": "state: the database cannot answer now (OperationalError)"}


def test_a_port_that_nobody_listens_on_is_a_problem() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert connects("127.0.0.1", listener.getsockname()[1])() == ""
    assert connects("127.0.0.1", free_port())() == "connection refused"
    assert connects("no-such-host.invalid", 80)() == "it cannot be connected to"


def test_a_folder_that_is_not_mounted_is_a_problem(tmp_path: Path) -> None:
    assert is_there(tmp_path)() == ""
    assert "No such file" in is_there(tmp_path / "gone")()
    assert first_of(is_there(tmp_path), lambda: "its last look failed")() == "its last look failed"


def client(alive: Callable[[], Verdict], ready: Callable[[], Verdict]) -> TestClient:
    app = FastAPI()
    app.include_router(router(alive, ready, lambda: b"bridge_state_up 1.0\n"))
    return TestClient(app)


def test_the_routes_tell_what_is_wrong() -> None:
    fine, ill = Verdict({"loops": ""}), Verdict({STATE: "", "source pacs": "connection refused"})
    asked = client(lambda: fine, lambda: ill)
    assert asked.get("/healthz").status_code == 200
    refused = asked.get("/readyz")
    assert refused.status_code == 503
    assert refused.json() == {"well": False, "checks": {"state": "ok", "source pacs": "connection refused"}}
    assert asked.get("/readyz/state").status_code == 200
    assert asked.get("/readyz/state").json() == {"well": True, "checks": {"state": "ok"}}
    metrics = asked.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert metrics.text == "bridge_state_up 1.0\n"


def test_a_loop_that_dies_is_named(tmp_path: Path) -> None:
    state = State(f"sqlite:///{tmp_path / 's.sqlite'}")
    rig, failed = Rig(state), threading.Event()

    def dies(_worker: str) -> int:
        raise Died

    loops = Loops(rig.pipeline, ALL_ROLES, "p", 1, state, lambda _reason: failed.set(), [Loop("export", "", dies)])
    assert "export" in loops.dead()
    hook, threading.excepthook = threading.excepthook, lambda _arguments: None
    try:
        loops.start()
        assert failed.wait(20)
    finally:
        loops.stop()
        threading.excepthook = hook
    assert "export" in loops.dead()
    state.close()


class Died(Exception):
    """A bug of a step."""


def test_a_loop_goes_on_when_the_state_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.loops.UNAVAILABLE_S", 0.01)
    state = State(f"sqlite:///{tmp_path / 's.sqlite'}")
    rig, tried = Rig(state), threading.Semaphore(0)

    def away(_worker: str) -> int:
        tried.release()
        raise Unavailable("state: the database cannot answer now")

    loops = Loops(rig.pipeline, ALL_ROLES, "p", 1, state, lambda _reason: None, [Loop("export", "", away)])
    loops.start()
    assert all(tried.acquire(timeout=20) for _ in range(3))
    assert loops.dead() == ()
    loops.stop()
    state.close()
