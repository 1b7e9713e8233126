from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom.data
import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt

from bridge.errors import ConfigError, StateUnavailable
from bridge.ports import ChangePage
from bridge.sources.part10 import read_headers
from bridge.sources.receiver import Receiver, answer_at_once
from bridge.state import State
from tests.builders import STUDY, a_dataset
from tests.services.peers import free_port

VERIFICATION = "1.2.840.10008.1.1"


class Rig:
    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder, self.port = folder, free_port()
        self.state = State(f"sqlite:///{folder / 's.sqlite'}")
        settings = {"port": self.port, "minimum_free_bytes": 0} | settings
        self.receiver = Receiver("rx", folder / "spool", self.state, self._store, lambda: 1e9, **settings)
        self.receiver.start()

    def _store(self, page: ChangePage) -> None:
        self.state.commit_page("rx", page, 1.0, 0, 0)

    def send(self, *datasets: Any, called: str = "BRIDGE", affected: dict[str, str] | None = None) -> list[int | None]:
        """The status of each C-STORE; [] when the association was refused."""
        entity = AE("TEST")
        for context in {(d.SOPClassUID, d.file_meta.TransferSyntaxUID) for d in datasets}:
            entity.add_requested_context(*context)
        entity.add_requested_context(VERIFICATION)
        handlers = [(evt.EVT_CONN_OPEN, answer_at_once)]
        association = entity.associate("127.0.0.1", self.port, ae_title=called, evt_handlers=handlers)
        if not association.is_established:
            return []
        try:
            assert association.send_c_echo().Status == 0
            return [getattr(association.send_c_store(d), "Status", None) for d in datasets]
        finally:
            association.release()

    def files(self) -> list[Path]:
        return sorted((self.folder / "spool" / "studies").rglob("*.dcm"))

    def parked(self) -> list[str]:
        return [i.error for i in self.state.items(parked=True)]

    def close(self) -> None:
        self.receiver.stop()
        self.state.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def test_success_means_on_disk_and_known(rig: Rig) -> None:
    dataset = a_dataset()
    assert rig.send(dataset) == [0]
    (file,) = rig.files()
    assert read_headers(file).text("SOPInstanceUID") == dataset.SOPInstanceUID
    assert dcmread(file).PixelData == dataset.PixelData
    assert [i.key for i in rig.state.items(queue="study")] == [STUDY]
    assert len(rig.receiver.read(STUDY).instances) == 1
    assert list(rig.receiver.inventory()) == [(STUDY, 1)]
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_wrong_called_title_is_refused(rig: Rig) -> None:
    assert rig.send(a_dataset(), called="OTHER") == []


def test_the_same_object_again_is_one_file(rig: Rig) -> None:
    assert rig.send(a_dataset(), a_dataset()) == [0, 0]
    assert len(rig.files()) == 1


def test_another_content_under_the_same_uid_is_kept_beside_and_reported(rig: Rig) -> None:
    assert rig.send(a_dataset(), a_dataset(StudyDescription="changed")) == [0, 0]
    assert len(rig.files()) == 2
    found = rig.receiver.read(STUDY)
    assert found.instances[0].text("StudyDescription") == "CT chest"
    assert len(found.rejected) == 1


def test_compressed_objects_and_private_classes_are_kept_as_they_are(rig: Rig) -> None:
    jpeg = dcmread(Path(pydicom.data.__file__).parent / "test_files" / "JPEG2000.dcm")
    private = a_dataset(instance=3, SOPClassUID="1.3.12.2.1107.5.9.1")
    assert rig.send(jpeg, private) == [0, 0]
    syntaxes = {read_headers(f).text("TransferSyntaxUID") for f in rig.files()}
    assert syntaxes == {jpeg.file_meta.TransferSyntaxUID, ExplicitVRLittleEndian}


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SOPInstanceUID"])
@pytest.mark.filterwarnings("ignore:.*")
def test_a_hostile_uid_never_reaches_a_path(rig: Rig, keyword: str) -> None:
    before = sorted(p.name for p in rig.folder.parent.iterdir())
    (status,) = rig.send(a_dataset(**{keyword: "../../../pwned"}))
    assert status != 0
    assert rig.files() == []
    assert sorted(p.name for p in rig.folder.parent.iterdir()) == before
    assert not list(rig.folder.rglob("*pwned*"))
    assert any(keyword in error for error in rig.parked())


def test_what_is_refused_is_kept_for_a_person(rig: Rig) -> None:
    assert rig.send(a_dataset(StudyInstanceUID=None), a_dataset()) == [0xC000, 0]
    (refused,) = (rig.folder / "spool" / "refused").iterdir()
    assert read_headers(refused).text("Modality") == "CT"
    (error,) = rig.parked()
    assert error.startswith("StudyInstanceUID")


def test_no_room_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    rig = Rig(tmp_path, minimum_free_bytes=2**60)
    assert rig.send(a_dataset()) == [0xA700]
    assert rig.files() == []
    assert list((tmp_path / "spool" / "incoming").iterdir()) == []
    rig.close()


def test_a_disk_that_refuses_is_told_and_nothing_is_left(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bridge.sources.receiver._write_durably", full)
    assert rig.send(a_dataset()) == [0xA700]
    assert rig.files() == []


def test_a_state_that_cannot_answer_is_told_and_the_sender_tries_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*_: object) -> None:
        raise StateUnavailable("state: the database cannot answer now")

    with monkeypatch.context() as patched:
        patched.setattr(rig.state, "commit_page", locked)
        assert rig.send(a_dataset()) == [0xA700]
    assert rig.send(a_dataset()) == [0]
    assert len(rig.files()) == 1
    assert len(rig.receiver.read(STUDY).instances) == 1


def test_parts_of_a_crash_are_swept_at_the_start(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.receiver.stop()
    part = tmp_path / "spool" / "incoming" / "x.part"
    part.write_bytes(b"half")
    rig.receiver.start()
    assert not part.exists()
    rig.close()


def test_a_port_in_use_is_told_with_its_number(rig: Rig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"port {rig.port} on 127.0.0.1 is in use"):
        Rig(tmp_path / "second", port=rig.port)


def test_four_senders_at_once_lose_nothing(rig: Rig) -> None:
    statuses: list[int | None] = []

    def sender(series: int) -> None:
        statuses.extend(rig.send(*(a_dataset(series=series, instance=i) for i in range(1, 26))))

    threads = [threading.Thread(target=sender, args=(s,)) for s in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [0] * 100
    assert len(rig.receiver.read(STUDY).instances) == 100


KILLED = """
import os, signal, sys, time
from pathlib import Path
from bridge.sources.receiver import Receiver
from bridge.state import State
folder, port, stage = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
state = State(f"sqlite:///{folder / 's.sqlite'}")
seen = []
def at(where):
    seen.append(where)
    if where == stage and seen.count(stage) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
Receiver("rx", folder / "spool", state, lambda page: state.commit_page("rx", page, 1.0, 0, 0), lambda: 1e10,
         port=port, minimum_free_bytes=0, at=at).start()
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("stage", ["fsynced", "renamed", "stored"])
def test_what_was_acknowledged_survives_a_kill(tmp_path: Path, stage: str) -> None:
    port = free_port()
    killed = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path), str(port), stage], stdout=subprocess.PIPE)
    assert killed.stdout is not None
    assert killed.stdout.readline() == b"ready\n"
    entity = AE("TEST")
    entity.add_requested_context(a_dataset().SOPClassUID, ExplicitVRLittleEndian)
    entity.dimse_timeout = entity.network_timeout = 2
    association = entity.associate("127.0.0.1", port, ae_title="BRIDGE")
    acknowledged = set()
    for instance in range(1, 6):
        if not association.is_established:
            break
        answer = association.send_c_store(a_dataset(instance=instance))
        if getattr(answer, "Status", None) == 0:
            acknowledged.add(f"{STUDY}.1.{instance}")
    association.abort()
    assert killed.wait(30) == -9
    killed.stdout.close()
    assert len(acknowledged) == 2
    rig = Rig(tmp_path)
    rig.state.commit_page("rx", rig.receiver.changes(rig.state.position("rx")), 1.0, 0, 0)
    found = [h.text("SOPInstanceUID") for h in rig.receiver.read(STUDY).instances]
    assert acknowledged <= set(found)
    assert len(found) == len(set(found)) == len(rig.files())
    digests = {hashlib.sha256(f.read_bytes()).hexdigest() for f in rig.files()}
    assert len(digests) == len(rig.files())
    rig.close()
