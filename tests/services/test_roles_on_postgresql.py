"""Several `bridge run` on one PostgreSQL, each with a part of the roles: nothing is lost or done twice."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bridge.state import State
from tests.builders import STUDY, write_file
from tests.services.bridge_process import BridgeProcess
from tests.services.peers import free_port
from tests.services.postgresql import fresh_database, running_postgresql

STUDIES, SERIES, INSTANCES = 40, 2, 3
SOURCES = '[[sources]]\nkind = "folder"\nname = "inbox"\npath = "inbox"\npoll_s = 0.3\nsettle_s = 0\nsweep_s = 5\n'
RECEIVER = '[[sources]]\nkind = "receiver"\nname = "receiver"\nport = {port}\n'
WITHIN_S = 100.0


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_postgresql() as url:
        yield url


def fill(inbox: Path, studies: range) -> None:
    for study in studies:
        for series in range(1, SERIES + 1):
            for instance in range(1, INSTANCES + 1):
                path = inbox / f"{study}" / f"{series}-{instance}.dcm"
                write_file(path, study=f"{STUDY}.{study}", series=series, instance=instance, PatientID=f"P{study}")


def ended(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(20)


@pytest.mark.timeout(400)
def test_work_is_shared_and_that_of_a_killed_process_is_done_by_another(server: str, tmp_path: Path) -> None:
    url = fresh_database(server, "roles")
    bridge = BridgeProcess(tmp_path, SOURCES, {}, settings=f'state_url = "{url}"\n', roles=["serve"])
    fill(tmp_path / "inbox", range(STUDIES // 2))
    with ExitStack() as stack:
        bridge.start()
        stack.callback(bridge.close)
        first = bridge.beside("poll", "work")
        stack.callback(ended, first)
        state = State(url)
        stack.callback(state.close)

        def holds() -> bool:
            held = [i for i in state.items(queue="study") if i.leased_until is not None]
            return bool(held) and first.poll() is None

        bridge.wait_for("a lease on a study", holds, WITHIN_S)
        first.send_signal(signal.SIGKILL)
        first.wait(20)
        for roles in (["poll", "work"], ["work"], ["deliver"], ["deliver"]):
            stack.callback(ended, bridge.beside(*roles))
        fill(tmp_path / "inbox", range(STUDIES // 2, STUDIES))

        def whole() -> bool:
            rows = bridge.sql("SELECT count(*) AS n, count(DISTINCT sop_instance_uid) AS d FROM dicom_instance")
            wanted = STUDIES * SERIES * INSTANCES
            return rows is not None and rows[0] == {"n": wanted, "d": wanted}

        bridge.wait_for("all in the lake", whole, WITHIN_S)
        bridge.until_settled()
        for study in (0, STUDIES // 2 - 1, STUDIES // 2, STUDIES - 1):
            (found,) = bridge.studies(f"{STUDY}.{study}")
            assert found["numberOfInstances"] == SERIES * INSTANCES
        assert bridge.get("/fhir/ImagingStudy", _summary="count")["total"] == STUDIES
        assert state.items(parked=True) == []


def test_one_process_receives_for_all_that_share_a_folder(server: str, tmp_path: Path) -> None:
    url = fresh_database(server, "receivers")
    sources = RECEIVER.format(port=free_port())
    bridge = BridgeProcess(tmp_path, sources, {}, settings=f'state_url = "{url}"\n')
    bridge.start()
    try:
        second = bridge.beside("poll")
        assert second.wait(60) == 2
        assert "one does so for all" in bridge.log
        third = bridge.beside("work")
        bridge.wait_for("the roles of the third", lambda: "Roles        work" in bridge.log)
        third.send_signal(signal.SIGTERM)
        assert third.wait(40) == 0
    finally:
        bridge.close()


def test_a_second_data_folder_on_one_database_is_refused(server: str, tmp_path: Path) -> None:
    settings = f'state_url = "{fresh_database(server, "folders")}"\n'
    for folder in ("a", "b"):
        (tmp_path / folder / "inbox").mkdir(parents=True)
    bridge, other = (BridgeProcess(tmp_path / folder, SOURCES, {}, settings=settings) for folder in ("a", "b"))
    bridge.start()
    try:
        assert other.beside().wait(60) == 2
        assert "share one folder" in other.log
    finally:
        bridge.close()
        other.close()
