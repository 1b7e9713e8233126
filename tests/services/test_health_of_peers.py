"""A real bridge says within seconds which of its peers are away, and goes on answering."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import httpx
import psycopg
import pytest

from tests.builders import STUDY, write_file
from tests.services.bridge_process import BridgeProcess
from tests.services.orthanc_server import OrthancServer
from tests.services.peers import free_port, one_of
from tests.services.postgresql import fresh_database, running_postgresql
from tests.services.test_orthanc_to_fhir import SOURCE

TURNS_WITHIN_S = 5.0
RUNS = count(1)


class Postgres:
    """A PostgreSQL that the test stops as a crash does, and starts again."""

    def __init__(self, server: str) -> None:
        self.server, self.url = server, fresh_database(server, f"health{next(RUNS)}")
        with psycopg.connect(server.replace("+psycopg", "")) as connection:
            self._data = str(connection.execute("SHOW data_directory").fetchone()[0])  # type: ignore[index]

    def crash(self) -> None:
        self._control("-m", "immediate", "stop")

    def start(self) -> None:
        self._control("restart")  # goes on with the options it was started with

    def _control(self, *arguments: str) -> None:
        as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        control = one_of(*map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), reverse=True)))
        command = [*as_user, str(control), "-D", self._data, "-w", "-l", f"{self._data}/../log", *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd="/")


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    with running_postgresql() as server:
        yield Postgres(server)


class Asked:
    """What a monitor asks, once a second as they do."""

    def __init__(self, port: int) -> None:
        self._base = f"http://127.0.0.1:{port}"

    def status(self, path: str) -> int:
        return httpx.get(self._base + path, timeout=5, trust_env=False).status_code

    def checks(self) -> dict[str, str]:
        answer = httpx.get(f"{self._base}/readyz", timeout=5, trust_env=False).json()
        return dict(answer["checks"])

    def metric(self, line: str) -> float:
        text = httpx.get(f"{self._base}/metrics", timeout=10, trust_env=False).raise_for_status().text
        return next(float(one.rpartition(" ")[2]) for one in text.splitlines() if one.startswith(f"{line} "))

    def answers(self) -> bool:
        try:
            return self.status("/healthz") == 200
        except httpx.TransportError:
            return False

    def turns(self, path: str, status: int, within_s: float) -> float:
        """Seconds until a path answers with a status; fails when that takes longer than `within_s`."""
        started = time.monotonic()
        while self.status(path) != status:
            assert time.monotonic() - started < within_s, (path, self.checks())
            time.sleep(0.2)
        return time.monotonic() - started


@pytest.fixture
def bridge(orthanc: OrthancServer, postgres: Postgres, tmp_path: Path) -> Iterator[BridgeProcess]:
    source = SOURCE.format(url=orthanc.url, username=orthanc.username).replace("poll_s = 0.2", "poll_s = 2")
    settings = f'state_url = "{postgres.url}"\n'
    bridge = BridgeProcess(tmp_path, source, {"ORTHANC_PASSWORD": orthanc.password}, settings=settings)
    bridge.start()
    yield bridge
    bridge.close()


def test_readiness_turns_when_postgresql_is_killed_and_when_it_is_back(
    bridge: BridgeProcess, postgres: Postgres
) -> None:
    asked = Asked(bridge.port)
    asked.turns("/readyz", 200, 20)
    assert asked.metric("bridge_state_up") == 1
    postgres.crash()
    try:
        asked.turns("/readyz", 503, TURNS_WITHIN_S)
        assert asked.checks()["state"].startswith("state: the database cannot answer now")
        assert asked.status("/readyz/state") == 503
        assert asked.status("/healthz") == 200  # a restart would not help
        assert asked.metric("bridge_state_up") == 0
    finally:
        postgres.start()
    asked.turns("/readyz/state", 200, TURNS_WITHIN_S)
    asked.turns("/readyz", 200, 60)  # once the paused loops have looked at the source again
    assert asked.metric("bridge_state_up") == 1


def test_readiness_turns_when_the_archive_is_killed_and_when_it_is_back(
    bridge: BridgeProcess, orthanc: OrthancServer
) -> None:
    asked = Asked(bridge.port)
    asked.turns("/readyz", 200, 20)
    orthanc.kill()
    asked.turns("/readyz", 503, TURNS_WITHIN_S)
    assert asked.checks()["source pacs"] == "connection refused"
    assert asked.checks()["state"] == "ok"
    assert asked.status("/readyz/state") == 200  # what is known is served all the same
    assert asked.status("/healthz") == 200
    bridge.wait_for("the failing source", lambda: asked.metric('bridge_source_failing{source="pacs"}') == 1)
    assert asked.metric('bridge_source_lag_seconds{source="pacs"}') > 0
    orthanc.start()
    asked.turns("/readyz", 200, 60)


def test_a_process_that_does_not_serve_tells_how_it_is_at_a_port_of_its_own(postgres: Postgres, tmp_path: Path) -> None:
    write_file(tmp_path / "inbox" / "1.dcm", study=STUDY)
    port = free_port()
    source = f'monitoring_port = {port}\n[[sources]]\nkind = "folder"\nname = "inbox"\npath = "inbox"\nsettle_s = 0\n'
    bridge = BridgeProcess(tmp_path, source, {}, settings=f'state_url = "{postgres.url}"\n', roles=["serve"])
    with ExitStack() as stack:
        stack.callback(bridge.close)
        bridge.start()
        other = bridge.beside("poll", "work", "deliver")
        stack.callback(other.wait, 20)
        stack.callback(other.kill)
        bridge.study(STUDY, status="available")
        worker, server = Asked(port), Asked(bridge.port)
        bridge.wait_for("the worker's health", worker.answers)
        worker.turns("/readyz", 200, 30)
        server.turns("/readyz", 200, 30)
        assert worker.metric('bridge_studies_translated_total{changed="yes"}') == 1
        assert server.metric('bridge_studies_translated_total{changed="yes"}') == 0
        assert worker.status("/fhir/ImagingStudy") == 404
        assert worker.status("/operations/status") == 404
