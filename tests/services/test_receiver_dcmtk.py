"""Our receiver against DCMTK's senders."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders import STUDY, write_file
from tests.services.peers import program
from tests.unit.test_receiver import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path / "rx")
    yield made
    made.close()


def run(tool: str, *arguments: object) -> int:
    command = [str(program(tool)), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode


def files(folder: Path, count: int) -> Path:
    for instance in range(1, count + 1):
        write_file(folder / f"{instance}.dcm", instance=instance)
    return folder


@pytest.mark.parametrize("tool", ["storescu", "dcmsend"])
def test_what_dcmtk_sends_is_received_whole(rig: Rig, tmp_path: Path, tool: str) -> None:
    folder = files(tmp_path / "out", 25)
    assert run("echoscu", "-aec", "BRIDGE", "127.0.0.1", rig.port) == 0
    assert run(tool, "+sd", "-aec", "BRIDGE", "127.0.0.1", rig.port, folder) == 0
    assert rig.receiver.settled()
    assert len(rig.receiver.read(STUDY).instances) == 25
    assert run(tool, "+sd", "-aec", "BRIDGE", "127.0.0.1", rig.port, folder) == 0
    assert len(rig.files()) == 25


def test_several_senders_at_once(rig: Rig, tmp_path: Path) -> None:
    folders = []
    for sender in range(1, 5):
        for instance in range(1, 11):
            path = tmp_path / f"out{sender}" / f"{instance}.dcm"
            write_file(path, series=sender, instance=instance)
        folders.append(tmp_path / f"out{sender}")
    command = [str(program("storescu")), "+sd", "-aec", "BRIDGE", "127.0.0.1", str(rig.port)]
    senders = [subprocess.Popen([*command, str(folder)]) for folder in folders]
    assert [sender.wait(60) for sender in senders] == [0, 0, 0, 0]
    assert rig.receiver.settled()
    assert len(rig.receiver.read(STUDY).instances) == 40


def test_a_wrong_title_is_refused(rig: Rig, tmp_path: Path) -> None:
    assert run("storescu", "-aec", "OTHER", "127.0.0.1", rig.port, files(tmp_path / "out", 1) / "1.dcm") != 0
    assert rig.files() == []
