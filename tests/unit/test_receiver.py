from __future__ import annotations

import contextlib
import hashlib
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom.data
import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt

from bridge.errors import ConfigError, InvalidQuery, StateUnavailable
from bridge.ports import ChangePage
from bridge.sources.association import answer_at_once
from bridge.sources.manifest import association, associations
from bridge.sources.part10 import read_headers
from bridge.sources.receiver import Receiver
from bridge.sources.upper_layer import command_set, data_pdus
from bridge.state import State
from tests.builders import STUDY, a_dataset, as_file
from tests.services.peers import free_port

VERIFICATION = "1.2.840.10008.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"


class Rig:
    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder, self.port, self.now = folder, free_port(), 1e9
        self.state = State(f"sqlite:///{folder / 's.sqlite'}")
        settings = {"port": self.port, "minimum_free_bytes": 0} | settings
        self.receiver = Receiver("rx", folder / "spool", self.state, self._store, lambda: self.now, **settings)
        self.receiver.start()

    def _store(self, page: ChangePage) -> None:
        self.state.commit_page("rx", page, 1.0, 0, 0)

    def send(self, *datasets: Any, called: str = "BRIDGE", settle: bool = True) -> list[int | None]:
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
            assert not settle or self.receiver.settled()

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
    (refused,) = (rig.folder / "spool" / "quarantine").iterdir()
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
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("bridge.sources.association.os.fsync", full)
        assert rig.send(a_dataset()) == [0xA700]
    assert rig.files() == []
    assert list((rig.folder / "spool" / "incoming").iterdir()) == []


def test_a_state_that_cannot_answer_gets_its_entries_later(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = []

    def locked(*arguments: object) -> None:
        if len(refusals) < 2:
            refusals.append(1)
            raise StateUnavailable("state: the database cannot answer now")
        commit_page(*arguments)  # type: ignore[arg-type]

    commit_page = rig.state.commit_page
    monkeypatch.setattr(rig.state, "commit_page", locked)
    monkeypatch.setattr("bridge.sources.indexer.RETRY_S", 0.05)
    assert rig.send(a_dataset()) == [0]
    assert len(refusals) == 2
    assert len(rig.receiver.read(STUDY).instances) == 1


def test_a_state_that_takes_nothing_for_long_makes_senders_wait_and_is_told(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*_: object) -> None:
        raise StateUnavailable("state: the database cannot answer now")

    monkeypatch.setattr("bridge.sources.indexer.STUCK_S", 0.05)
    with monkeypatch.context() as patched:
        patched.setattr(rig.state, "commit_page", locked)
        patched.setattr(rig.receiver._indexer._queue, "maxsize", 1)
        patched.setattr("bridge.sources.indexer.GROUP", 1)
        datasets = [a_dataset(instance=i) for i in range(1, 5)]
        statuses = rig.send(*datasets, settle=False)
        assert statuses[0] == 0
        assert statuses[-1] == 0xA700
    assert rig.receiver.settled()


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
    if where == stage and seen.count(stage) == (1 if stage == "stored" else 3):
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
    assert len(acknowledged) == 2 or (stage == "stored" and acknowledged)
    rig = Rig(tmp_path)
    rig.state.commit_page("rx", rig.receiver.changes(rig.state.position("rx")), 1.0, 0, 0)
    found = [h.text("SOPInstanceUID") for h in rig.receiver.read(STUDY).instances]
    assert acknowledged <= set(found)
    assert len(found) == len(set(found)) == len(rig.files())
    digests = {hashlib.sha256(f.read_bytes()).hexdigest() for f in rig.files()}
    assert len(digests) == len(rig.files())
    rig.close()


def test_a_quarantined_object_is_taken_in_when_a_person_has_repaired_and_replayed_it(rig: Rig) -> None:
    assert rig.send(a_dataset(StudyInstanceUID=None)) == [0xC000]
    (quarantined,) = (rig.folder / "spool" / "quarantine").iterdir()
    (item,) = rig.state.items(parked=True)
    rig.state.replay(item.queue, item.key, 2.0)
    rig.receiver.changes(None)
    assert [i.key for i in rig.state.items(parked=True)] == [item.key]
    quarantined.write_bytes(as_file(a_dataset()))
    rig.state.replay(item.queue, item.key, 3.0)
    rig.receiver.changes(None)
    assert rig.state.items(queue=item.queue) == []
    assert len(rig.receiver.read(STUDY).instances) == 1
    assert list((rig.folder / "spool" / "quarantine").iterdir()) == []


def manifests(rig: Rig) -> list[dict[str, Any]]:
    return associations(rig.receiver.manifests)


def test_a_manifest_says_what_came_and_what_became_of_it(rig: Rig) -> None:
    sent = [a_dataset(), a_dataset(), a_dataset(StudyDescription="changed"), a_dataset(StudyInstanceUID=None)]
    assert rig.send(*sent) == [0, 0, 0, 0xC000]
    (opening,) = manifests(rig)
    assert (opening["received"], opening["accepted"], opening["quarantined"], opening["refused"]) == (4, 3, 1, 0)
    assert (opening["calling_ae_title"], opening["called_ae_title"], opening["how"]) == ("TEST", "BRIDGE", "released")
    objects = association(rig.receiver.manifests, opening["id"])["objects"]
    assert [o["verdict"] for o in objects] == ["accepted", "duplicate", "conflict", "quarantined"]
    assert [o["status"] for o in objects] == ["0000", "0000", "0000", "C000"]
    assert objects[0]["sha256"] == objects[1]["sha256"] != objects[2]["sha256"]
    assert objects[3]["reason"].startswith("StudyInstanceUID")


@pytest.mark.parametrize("id_", ["../../etc/passwd", "20260101T000000000000Z-00000000", ""])
def test_a_manifest_is_asked_for_by_its_id_alone(rig: Rig, id_: str) -> None:
    with pytest.raises(InvalidQuery):
        association(rig.receiver.manifests, id_)


def test_only_listed_callers_are_admitted_and_others_are_recorded(tmp_path: Path) -> None:
    rig = Rig(tmp_path, calling_ae_titles=["CT1"])
    assert rig.send(a_dataset()) == []
    (turned_away,) = manifests(rig)
    assert turned_away["how"] == "refused: calling ae title"
    rig.close()


def test_promiscuous_admits_any_titles(tmp_path: Path) -> None:
    rig = Rig(tmp_path, promiscuous=True, calling_ae_titles=["CT1"])
    assert rig.send(a_dataset(), called="ANY") == [0]
    rig.close()


def echo_works(rig: Rig) -> bool:
    entity = AE("TEST")
    entity.add_requested_context(VERIFICATION)
    entity.acse_timeout = entity.dimse_timeout = 10
    found = entity.associate("127.0.0.1", rig.port, ae_title="BRIDGE")
    if not found.is_established:
        return False
    status = found.send_c_echo()
    found.release()
    return getattr(status, "Status", None) == 0


def request_bytes(contexts: list[tuple[str, str]] | None = None) -> bytes:
    """An A-ASSOCIATE-RQ as bytes: Verification and CT Image Storage unless told otherwise."""

    def item(kind: int, content: bytes) -> bytes:
        return bytes([kind, 0]) + len(content).to_bytes(2, "big") + content

    proposed = contexts or [(VERIFICATION, ExplicitVRLittleEndian), (CT, ExplicitVRLittleEndian)]
    body = b"\0\1\0\0" + b"BRIDGE".ljust(16) + b"TEST".ljust(16) + b"\0" * 32
    body += item(0x10, b"1.2.840.10008.3.1.1.1")
    for number, (abstract, transfer) in enumerate(proposed):
        inner = item(0x30, abstract.encode()) + item(0x40, transfer.encode())
        body += item(0x20, bytes([2 * number + 1 & 0xFF, 0, 0, 0]) + inner)
    body += item(0x50, item(0x51, (16384).to_bytes(4, "big")) + item(0x52, b"1.2.3"))
    return b"\x01\0" + len(body).to_bytes(4, "big") + body


def established(rig: Rig) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", rig.port), timeout=10)
    connection.sendall(request_bytes())
    assert connection.recv(4096)[0] == 2
    return connection


def store_command(instance: str | None = "1.2.3.4") -> bytes:
    elements: dict[int, int | str] = {0x0002: CT, 0x0100: 1, 0x0110: 1, 0x0700: 0, 0x0800: 1}
    return data_pdus(3, command_set(elements | ({0x1000: instance} if instance else {})), True, 16384)


@contextlib.contextmanager
def silent(rig: Rig, count: int, first: bytes = b"") -> Iterator[None]:
    """Connections that say `first` and no more. All of them together stay below 1,024 files, where select() ends."""
    with contextlib.ExitStack() as held:
        for _ in range(count):
            connection = held.enter_context(socket.create_connection(("127.0.0.1", rig.port), timeout=10))
            connection.sendall(first)
        yield


@pytest.mark.parametrize(
    ("count", "first"),
    [(11, b"\x01"), (200, b"\x01\0\0"), (400, b""), (300, b"\x9a garbage"), (20, b"\x01\0\xff\xff\xff\xff")],
    ids=["one byte", "three bytes", "idle", "garbage", "a request of 4 GB"],
)
def test_connections_that_ask_for_nothing_keep_nobody_from_an_echo(tmp_path: Path, count: int, first: bytes) -> None:
    with contextlib.closing(Rig(tmp_path, maximum_connections=150)) as rig, silent(rig, count, first):
        assert echo_works(rig)


def test_silent_associations_make_room_for_a_newcomer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.sources.receiver.UNSPOKEN_S", 0.0)
    with contextlib.closing(Rig(tmp_path, maximum_associations=3)) as rig, contextlib.ExitStack() as held:
        for _ in range(3):
            held.enter_context(established(rig))
        assert echo_works(rig)


def ends(connection: socket.socket) -> bytes:
    """What the receiver still says until it closes."""
    said = b""
    try:
        while found := connection.recv(4096):
            said += found
    except ConnectionResetError:
        pass
    connection.close()
    return said


@pytest.mark.parametrize(
    "hostile",
    [
        b"\x04\0\xff\xff\xff\xff",
        b"\x04\0\0\0\0\0",
        b"\x42\0\0\0\0\x04abcd",
        b"\x02\0\0\0\0\x04abcd",
        b"\x04\0\0\0\0\x06\0\0\0\x02\x63\x03",
        b"\x04\0\0\0\0\x06\0\xff\0\x02\x03\x03",
        store_command(instance=None),
        data_pdus(3, b"data without command", False, 16384),
        data_pdus(3, b"\x08\0\x05\0\x04\0\0\0abcd", True, 16384),
        data_pdus(3, b"\0" * 70_000, True, 16384),
    ],
    ids=[
        "a PDU of 4 GB", "an empty P-DATA", "an unknown PDU", "an AC within", "a context never accepted",
        "a PDV longer than its PDU", "no Affected SOP Instance UID", "data without command", "a group of no command",
        "a command of 70 KB",
    ],
)  # fmt: skip
def test_what_dicom_does_not_allow_is_aborted_and_leaves_nothing(rig: Rig, hostile: bytes) -> None:
    connection = established(rig)
    connection.sendall(hostile)
    assert ends(connection)[:1] == b"\x07"
    assert list((rig.folder / "spool" / "incoming").iterdir()) == []
    assert echo_works(rig)


def test_an_object_that_never_ends_is_aborted_at_the_limit_and_leaves_no_file(tmp_path: Path) -> None:
    rig = Rig(tmp_path, maximum_object_bytes=1_048_576)
    connection = established(rig)
    connection.sendall(store_command())
    fragment = data_pdus(3, b"\0" * 16_000, False, 16384)
    fragment = fragment[:11] + b"\0" + fragment[12:]  # not the last
    with contextlib.suppress(OSError):
        for _ in range(500):
            connection.sendall(fragment)
    connection.close()
    wait_until(lambda: [m for m in manifests(rig) if m.get("refused") == 1])
    assert list((tmp_path / "spool" / "incoming").iterdir()) == []
    rig.close()


def test_objects_cut_off_a_hundred_times_leave_no_file_and_are_counted(rig: Rig) -> None:
    for number in range(100):
        connection = established(rig)
        connection.sendall(store_command() + data_pdus(3, b"half", False, 16384)[:11] + b"\0half")
        if number % 2:
            connection.sendall(b"\x07\0\0\0\0\x04\0\0\0\0")
        connection.close()
    wait_until(lambda: sum(m.get("refused", 0) for m in manifests(rig)) == 100)
    assert list((rig.folder / "spool" / "incoming").iterdir()) == []
    assert rig.files() == []


def test_a_bug_met_by_one_object_refuses_it_and_leaves_no_part(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def stumbles(_part: Path) -> None:
        monkeypatch.undo()
        raise ValueError("Test^Eva")

    monkeypatch.setattr("bridge.sources.receiver.preflight", stumbles)
    assert rig.send(a_dataset(instance=1), a_dataset(instance=2)) == [0x0110, 0]
    wait_until(lambda: [m for m in manifests(rig) if "how" in m])
    (opening,) = manifests(rig)
    assert (opening["received"], opening["accepted"], opening["refused"]) == (2, 1, 1)
    assert opening["how"] == "released"
    refused, accepted = association(rig.receiver.manifests, opening["id"])["objects"]
    assert refused["reason"].startswith("unexpected ValueError at test_receiver.py:")
    assert accepted["sop_instance_uid"] == f"{STUDY}.1.2"
    assert list((rig.folder / "spool" / "incoming").iterdir()) == []
    assert "unexpected ValueError" in caplog.text
    assert "Test^Eva" not in caplog.text


def test_a_bug_before_an_object_is_taken_ends_the_association_and_counts_the_object(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def stumbles() -> None:
        raise ValueError("Test^Eva")

    monkeypatch.setattr(rig.receiver, "part", stumbles)
    connection = established(rig)
    connection.sendall(store_command())
    ends(connection)
    wait_until(lambda: [m for m in manifests(rig) if "how" in m])
    (opening,) = manifests(rig)
    assert (opening["received"], opening["refused"]) == (1, 1)
    assert opening["how"] == "ended by a bug of this program"
    wait_until(lambda: "unexpected ValueError at test_receiver.py:" in caplog.text)
    assert "Test^Eva" not in caplog.text


def test_too_many_presentation_contexts_are_not_decoded(rig: Rig) -> None:
    connection = socket.create_connection(("127.0.0.1", rig.port), timeout=10)
    connection.sendall(request_bytes([(VERIFICATION, ExplicitVRLittleEndian)] * 200))
    assert ends(connection)[:1] == b"\x07"


def test_many_event_reports_are_answered_one_by_one_without_a_thread_each(rig: Rig) -> None:
    connection = established(rig)
    before = threading.active_count()
    asked = command_set({0x0002: VERIFICATION, 0x0100: 0x0100, 0x0110: 1, 0x0800: 0x0101, 0x1000: "1.2", 0x1002: 1})
    for _ in range(2000):
        connection.sendall(data_pdus(1, asked, True, 16384))
        answer = connection.recv(4096)
        assert b"\x11\x02" in answer
    assert threading.active_count() <= before
    connection.close()


def test_a_clock_that_jumps_ends_no_association(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    connection = established(rig)
    rig.now += 3600
    echo = command_set({0x0002: VERIFICATION, 0x0100: 0x30, 0x0110: 1, 0x0800: 0x0101})
    connection.sendall(data_pdus(1, echo, True, 16384))
    assert connection.recv(4096)[0] == 4
    rig.now -= 7200
    connection.sendall(data_pdus(1, echo, True, 16384))
    assert connection.recv(4096)[0] == 4
    connection.close()
    rig.close()


def wait_until(look: Any) -> None:
    until = time.monotonic() + 60
    while not look():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_what_is_odd_is_taken_with_its_findings_and_what_is_cut_is_quarantined(rig: Rig) -> None:
    odd, cut = a_dataset(SpecificCharacterSet="utf_7"), a_dataset(instance=2, PixelData=None)
    assert rig.send(odd, cut) == [0, 0xC000]
    (opening,) = manifests(rig)
    objects = association(rig.receiver.manifests, opening["id"])["objects"]
    assert [o["verdict"] for o in objects] == ["accepted with findings", "quarantined"]
    assert "SpecificCharacterSet" in objects[0]["reason"]
    assert "PixelData is missing" in objects[1]["reason"]
    assert len(rig.files()) == 1


def item_bomb() -> bytes:
    """A sequence of 300,000 empty items."""
    return b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\0\0\0\0" * 300_000


def deep_sequences() -> bytes:
    """Ten thousand sequences, one in the other."""
    return (b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * 10_000


@pytest.mark.parametrize("bomb", [item_bomb, deep_sequences])
def test_objects_made_to_exhaust_a_reader_are_quarantined_while_others_are_served(
    rig: Rig, bomb: Callable[[], bytes]
) -> None:
    connection = established(rig)
    connection.sendall(store_command() + data_pdus(3, bomb(), False, 16384))
    assert echo_works(rig)
    assert (0xC000).to_bytes(2, "little") in connection.recv(4096)
    connection.close()
    wait_until(lambda: [m for m in manifests(rig) if m.get("quarantined") == 1])
    assert rig.files() == []


def test_a_deflate_bomb_is_quarantined(rig: Rig) -> None:
    connection = socket.create_connection(("127.0.0.1", rig.port), timeout=20)
    connection.sendall(request_bytes([(CT, "1.2.840.10008.1.2.1.99")]))
    assert connection.recv(4096)[0] == 2
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = deflater.compress(bytes(200_000_000)) + deflater.flush()
    command = {0x0002: CT, 0x0100: 1, 0x0110: 1, 0x0700: 0, 0x0800: 1, 0x1000: "1.2.3"}
    connection.sendall(data_pdus(1, command_set(command), True, 16384) + data_pdus(1, bomb, False, 16384))
    assert (0xC000).to_bytes(2, "little") in connection.recv(4096)
    connection.close()
