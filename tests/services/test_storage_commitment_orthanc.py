"""A real Orthanc sends to our receiver, asks whether it is safe there, and takes our report.

DCMTK has no program that asks for storage commitment; Orthanc does (POST /modalities/…/storage-commitment).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bridge.ports import ChangePage
from bridge.sources.peer import Peer
from bridge.sources.receiver import Receiver
from bridge.sources.scu import report
from bridge.sources.storage_commitment import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE, StorageCommitment
from bridge.state import State
from tests.dicom_files import study_bytes
from tests.services.orthanc_server import OrthancServer, running_orthanc
from tests.services.peers import free_port

STUDY = "1.2.826.0.1.3680043.10.1561.7"


class Rig:
    def __init__(self, folder: Path, port: int, orthanc: OrthancServer) -> None:
        self.folder, self.port, self.orthanc = folder, port, orthanc
        self.state = State(f"sqlite:///{folder / 's.sqlite'}")
        peer = Peer("127.0.0.1", orthanc.dicom_port, orthanc.ae_title, "BRIDGE")
        self.reporter = partial(report, peer, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE)
        self.start()

    def start(self, tells: bool = True) -> None:
        self.commitment = StorageCommitment(
            self.folder / "spool", self._files, {self.orthanc.ae_title: self.reporter}, self._store, time.time
        )
        self.receiver = Receiver(
            "rx", self.folder / "spool", self.state, self._store, time.time, port=self.port, minimum_free_bytes=0,
            services=(self.commitment,),
        )  # fmt: skip
        self.receiver.start()
        assert self.receiver.changes(None).caught_up
        if tells:
            self.commitment.start()

    def stop(self) -> None:
        self.commitment.stop()
        self.receiver.stop()

    def _store(self, page: ChangePage) -> None:
        self.state.commit_page("rx", page, 1.0, 0, 0)

    def _files(self, uids: Sequence[str]) -> Any:
        return self.receiver.instance_files(uids)

    def send(self, count: int) -> list[str]:
        """Orthanc's ids of so many instances that it has and sent here."""
        self.orthanc.upload(study_bytes(STUDY, instances=count))
        with self.orthanc.client() as client:
            ids: list[str] = client.get("/instances").json()
            client.post("/modalities/bridge/store", json={"Resources": ids}).raise_for_status()
        return ids

    def ask(self, ids: Sequence[str]) -> str:
        with self.orthanc.client() as client:
            asked = client.post("/modalities/bridge/storage-commitment", json={"Resources": ids}).raise_for_status()
            return str(asked.json()["ID"])

    def verdict(self, transaction: str) -> dict[str, Any]:
        """What Orthanc makes of our report, once it has it."""
        with self.orthanc.client() as client:

            def answer() -> dict[str, Any]:
                found: dict[str, Any] = client.get(f"/storage-commitment/{transaction}").raise_for_status().json()
                return found

            return wait_for(answer, lambda found: found["Status"] != "Pending")


def wait_for(answer: Callable[[], dict[str, Any]], good: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    until = time.monotonic() + 60
    while not good(found := answer()):
        assert time.monotonic() < until, found
        time.sleep(0.05)
    return found


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    port, folder = free_port(), tmp_path / "orthanc"
    folder.mkdir()
    with running_orthanc(folder, {"DicomModalities": {"bridge": ["BRIDGE", "127.0.0.1", port]}}) as orthanc:
        made = Rig(tmp_path, port, orthanc)
        yield made
        made.stop()
        made.state.close()


def test_orthanc_learns_that_what_it_sent_is_safe(rig: Rig) -> None:
    transaction = rig.ask(rig.send(3))
    found = rig.verdict(transaction)
    assert (found["Status"], len(found["Success"]), found["Failures"]) == ("Success", 3, [])
    assert found["RemoteAET"] == "BRIDGE"


def test_orthanc_learns_which_object_is_damaged_and_which_is_gone(rig: Rig) -> None:
    ids = rig.send(3)
    assert rig.receiver.settled()
    damaged, gone, _whole = sorted((rig.folder / "spool" / "studies").rglob("*.dcm"))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\7")
    gone.unlink()
    found = rig.verdict(rig.ask(ids))
    assert (found["Status"], len(found["Success"])) == ("Failure", 1)
    assert sorted(failure["FailureReason"] for failure in found["Failures"]) == [0x0110, 0x0112]


def test_orthanc_is_told_after_a_restart_what_it_asked_before(rig: Rig) -> None:
    ids = rig.send(1)
    rig.stop()
    rig.start(tells=False)
    transaction = rig.ask(ids)
    rig.stop()
    rig.start()
    assert rig.verdict(transaction)["Status"] == "Success"
