"""What we ask of other DICOM applications, over real TCP; pynetdicom's acceptor is the other side."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEGBaseline8Bit
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification  # type: ignore[attr-defined]

from bridge.errors import ConfigError, SourceUnavailable
from bridge.sources.identifier import Match, encoded
from bridge.sources.object_files import Arrived
from bridge.sources.peer import Peer
from bridge.sources.requestor import Proposed
from bridge.sources.scu import (
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    VERIFICATION,
    Association,
    Retrieved,
    Sender,
    report,
)
from tests.certificates import Authority
from tests.dicom_files import dicom_bytes, study_bytes, write_dicom
from tests.dimse_fake import AE_TITLE, FakeDimse, running_fake

STUDY = "1.2.826.0.1.3680043.10.1561.1"
STUDIES = encoded({"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "", "StudyDate": ""})
CT = Proposed(CTImageStorage, ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2"), as_scp=True)


@pytest.fixture
def fake() -> Iterator[FakeDimse]:
    with running_fake() as fake:
        yield fake


def peer(port: int, **changes: Any) -> Peer:
    return Peer("127.0.0.1", port, **{"ae_title": AE_TITLE, "timeout_s": 5.0} | changes)


def everything(study: str) -> bytes:
    return encoded({"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": study})


@contextmanager
def answering(*answers: bytes) -> Iterator[int]:
    """A server that sends these bytes, one for each time something comes in, and stays silent."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        over = threading.Event()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                for answer in answers:
                    connection.recv(65_536)
                    connection.sendall(answer)
                over.wait(10)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            over.set()
            thread.join()


@contextmanager
def acceptor(handlers: list[Any], *contexts: Any) -> Iterator[int]:
    entity = AE(AE_TITLE)
    for context in contexts:
        entity.add_supported_context(*context)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


class Folder:
    """Keeps what a C-GET brings."""

    def __init__(self, folder: Path, status: int = 0) -> None:
        self.folder, self.status, self.number = folder, status, 0

    def part(self) -> Path:
        self.number += 1
        return self.folder / f"{self.number}.part"

    def keep(self, arrived: Arrived) -> int:
        arrived.part.rename(self.folder / f"{arrived.sop_instance_uid}.dcm")
        return self.status


def test_an_association_serves_many_exchanges(fake: FakeDimse) -> None:
    fake.put(*study_bytes(STUDY))
    with Association(peer(fake.port), [VERIFICATION, STUDY_ROOT_FIND]) as association:
        association.echo()
        for _ in range(3):
            (match,) = association.find(STUDIES).matches
            assert Match(match).text("StudyInstanceUID") == STUDY
        assert association.reusable
    assert fake.associations == 1


def test_no_answer_is_lost_when_answers_come_fast(fake: FakeDimse) -> None:
    fake.put(*study_bytes(STUDY, instances=1))
    with Association(peer(fake.port), [STUDY_ROOT_FIND]) as association:
        counts = [len(association.find(everything(STUDY)).matches) for _ in range(500)]
    assert counts == [1] * 500


def test_what_the_archive_says_at_the_end_of_a_query_is_given_back(fake: FakeDimse) -> None:
    for number in range(4):
        fake.put(*study_bytes(f"{STUDY}.{number}", instances=1))
    fake.limit, fake.limit_status, fake.pending = 3, 0xB001, 0xFF01
    with Association(peer(fake.port), [STUDY_ROOT_FIND]) as association:
        found = association.find(STUDIES)
    assert (len(found.matches), found.status, found.without_optional_keys) == (3, 0xB001, 3)


def test_a_query_with_too_many_matches_is_cancelled_and_counts_as_limited(fake: FakeDimse) -> None:
    for number in range(30):
        fake.put(*study_bytes(f"{STUDY}.{number}", instances=1))
    with Association(peer(fake.port), [STUDY_ROOT_FIND]) as association:
        assert association.find(STUDIES, maximum=5).status == 0xB001
        assert association.find(STUDIES, maximum=30).status == 0x0000


def test_an_association_lost_in_the_middle_of_a_query_is_unavailable(fake: FakeDimse) -> None:
    for number in range(4):
        fake.put(*study_bytes(f"{STUDY}.{number}", instances=1))
    fake.drops_after = 2
    with pytest.raises(SourceUnavailable, match="aborted"), Association(peer(fake.port), [STUDY_ROOT_FIND]) as lost:
        lost.find(STUDIES)


def test_an_unknown_called_title_says_what_to_check(fake: FakeDimse) -> None:
    with pytest.raises(SourceUnavailable, match="called AE title WRONG is not known"):
        Association(peer(fake.port, ae_title="WRONG"), [VERIFICATION])


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        ((1, 1, 3), "calling AE title BRIDGE is not known"),
        ((1, 1, 1), "no reason was given"),
        ((2, 3, 1), "for now: it is congested"),
        ((2, 3, 2), "no more associations now"),
    ],
)
def test_a_refused_association_says_why(reason: tuple[int, int, int], says: str) -> None:
    with answering(struct.pack(">BxIxBBB", 3, 4, *reason)) as port, pytest.raises(SourceUnavailable, match=says):
        Association(peer(port), [VERIFICATION])


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is it a DICOM server"),
        (b"\x05\0\0\0\0\4\0\0\0\0", "does not speak DICOM"),
        (b"\x02\0\0\0\0\4\0\0\0\0", "offers nothing of what was asked for"),
        (b"\x02\0\0\0\0\x4a" + bytes(68) + b"\x21\0\0\2\1\0", "cannot be decoded"),
        (b"\x02\0\xff\xff\xff\xff", "longer than it may"),
        (b"\x07\0\0\0\0\4\0\0\2\6", "aborted the association at once .its upper layer: invalid PDU parameter"),
    ],
)
def test_a_peer_that_answers_nonsense_is_unavailable(answer: bytes, says: str) -> None:
    with answering(answer) as port, pytest.raises(SourceUnavailable, match=says):
        Association(peer(port), [VERIFICATION])


def test_a_silent_peer_is_given_up() -> None:
    with answering() as port, pytest.raises(SourceUnavailable, match="did not answer in time"):
        Association(peer(port, timeout_s=0.2), [VERIFICATION])


def test_nobody_listening_says_what_to_check() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(SourceUnavailable, match="check host and port"):
        Association(peer(port), [VERIFICATION])


def test_a_service_that_is_not_offered_is_named() -> None:
    with (
        acceptor([], [Verification]) as port,
        Association(peer(port), [VERIFICATION, STUDY_ROOT_FIND]) as association,
        pytest.raises(SourceUnavailable, match="does not offer Study Root Query"),
    ):
        association.find(STUDIES)


@pytest.mark.parametrize("title", ["", "A TITLE MUCH TOO LONG", "A\\B", "Ä"])
def test_an_impossible_ae_title_stops_at_once(title: str) -> None:
    with pytest.raises(ConfigError, match="AE title"):
        Peer("127.0.0.1", 104, title)


def test_a_get_brings_whole_files(fake: FakeDimse, tmp_path: Path) -> None:
    sent = study_bytes(STUDY, instances=3)
    fake.put(*sent)
    with Association(peer(fake.port), [STUDY_ROOT_GET, CT]) as association:
        done = association.get(everything(STUDY), Folder(tmp_path), 5)
    assert (done.status, done.completed, done.failed) == (0, 3, 0)
    for content in sent:
        original = dcmread(BytesIO(content))
        assert dcmread(tmp_path / f"{original.SOPInstanceUID}.dcm") == original
    assert not list(tmp_path.glob("*.part"))


def test_a_get_of_which_something_failed_names_it(fake: FakeDimse, tmp_path: Path) -> None:
    fake.put(*study_bytes(STUDY, instances=3))
    fake.withheld = {f"{STUDY}.1.2"}
    with Association(peer(fake.port), [STUDY_ROOT_GET, CT]) as association:
        done = association.get(everything(STUDY), Folder(tmp_path), 5)
    assert (done.status, done.failed_sop_instance_uids) == (0xB000, (f"{STUDY}.1.2",))
    assert len(list(tmp_path.glob("*.dcm"))) == 2


def test_what_cannot_be_kept_is_refused_and_leaves_nothing(fake: FakeDimse, tmp_path: Path) -> None:
    fake.put(*study_bytes(STUDY, instances=2))
    with Association(peer(fake.port), [STUDY_ROOT_GET, CT]) as association:
        done = association.get(everything(STUDY), Folder(tmp_path / "missing"), 5)
    assert (done.status, done.completed, done.failed) == (0xA702, 0, 2)


def test_a_move_to_an_unknown_destination_is_told(fake: FakeDimse) -> None:
    fake.put(*study_bytes(STUDY))
    with Association(peer(fake.port), [STUDY_ROOT_MOVE]) as association:
        assert association.move(everything(STUDY), "BRIDGE", 5) == Retrieved(0xA801)


def test_a_move_counts_what_arrived(fake: FakeDimse) -> None:
    fake.put(*study_bytes(STUDY, instances=2))
    arrived: list[str] = []

    def store(event: Any) -> int:
        arrived.append(event.request.AffectedSOPInstanceUID)
        return 0

    contexts = [(CTImageStorage, ExplicitVRLittleEndian)]
    with acceptor([(evt.EVT_C_STORE, store)], *contexts) as port:
        fake.destinations["BRIDGE"] = ("127.0.0.1", port)
        with Association(peer(fake.port), [STUDY_ROOT_MOVE]) as association:
            done = association.move(everything(STUDY), "BRIDGE", 5)
    assert (done.status, done.completed) == (0, 2)
    assert arrived == [f"{STUDY}.1.1", f"{STUDY}.1.2"]


def test_files_are_sent_as_they_are_and_each_has_its_outcome(tmp_path: Path) -> None:
    received: dict[str, bytes] = {}

    def store(event: Any) -> int:
        received[event.request.AffectedSOPInstanceUID] = event.request.DataSet.getvalue()
        return 0xA700 if event.request.AffectedSOPInstanceUID.endswith(".2") else 0

    good, refused = (write_dicom(tmp_path / f"{n}.dcm", STUDY, f"{STUDY}.1", f"{STUDY}.1.{n}") for n in (1, 2))
    no_dicom = tmp_path / "3.dcm"
    no_dicom.write_bytes(b"not DICOM")
    other_class = write_dicom(tmp_path / "4.dcm", STUDY, f"{STUDY}.1", "1.4", SOPClassUID="1.2.840.10008.5.1.4.1.1.4")
    paths = [good, refused, no_dicom, other_class, tmp_path / "5.dcm"]
    with acceptor([(evt.EVT_C_STORE, store)], (CTImageStorage, [ExplicitVRLittleEndian, JPEGBaseline8Bit])) as port:
        sent = Sender(peer(port)).send(paths)
    assert [s.path for s in sent] == paths
    assert [s.stored for s in sent] == [True, False, False, False, False]
    assert [s.status for s in sent] == [0, 0xA700, None, None, None]
    assert all(s.problem for s in sent[2:])
    assert received[f"{STUDY}.1.1"] and good.read_bytes().endswith(received[f"{STUDY}.1.1"])


def test_an_object_larger_than_a_pdu_arrives_whole(tmp_path: Path) -> None:
    received: list[bytes] = []

    def store(event: Any) -> int:
        received.append(event.request.DataSet.getvalue())
        return 0

    large = tmp_path / "large.dcm"
    large.write_bytes(dicom_bytes(STUDY, f"{STUDY}.1", f"{STUDY}.1.1", PixelData=bytes(range(256)) * 2000))
    with acceptor([(evt.EVT_C_STORE, store)], (CTImageStorage, ExplicitVRLittleEndian)) as port:
        (sent,) = Sender(peer(port)).send([large])
    assert sent.stored
    assert large.read_bytes().endswith(received[0]) and len(received[0]) > 512_000


def test_a_storage_commitment_report_reaches_its_requestor() -> None:
    seen: list[tuple[int, str]] = []

    def event_report(event: Any) -> tuple[int, Dataset | None]:
        seen.append((event.event_type, event.event_information.TransactionUID))
        return 0x0000, None

    data_set = Dataset()
    data_set.TransactionUID = "1.2.3.4"
    contexts = [StorageCommitmentPushModel, None, True, True]
    with acceptor([(evt.EVT_N_EVENT_REPORT, event_report)], contexts) as port:
        status = report(peer(port), StorageCommitmentPushModel, "1.2.840.10008.1.20.1.1", 1, data_set)
    assert (status, seen) == (0, [(1, "1.2.3.4")])


def test_tls_with_its_own_authority_both_ways(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    ours = authority.issue("bridge")
    theirs = authority.issue("localhost")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.certificate))
    server.load_cert_chain(*theirs)
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context(cafile=str(authority.certificate))
    client.minimum_version = ssl.TLSVersion.TLSv1_2
    client.load_cert_chain(*ours)
    stranger = ssl.create_default_context()
    with running_fake(server) as fake:
        fake.put(*study_bytes(STUDY, instances=1))
        secure = peer(fake.port, tls=client, tls_name="localhost")
        with Association(secure, [VERIFICATION, STUDY_ROOT_FIND]) as association:
            association.echo()
            assert len(association.find(STUDIES).matches) == 1
        with pytest.raises(SourceUnavailable, match="certificate is not trusted"):
            Association(peer(fake.port, tls=stranger, tls_name="localhost"), [VERIFICATION])
        with pytest.raises(SourceUnavailable, match="certificate is not trusted"):
            Association(peer(fake.port, tls=client, tls_name="elsewhere"), [VERIFICATION])
        with pytest.raises(SourceUnavailable):
            Association(peer(fake.port, timeout_s=1.0), [VERIFICATION])


def test_tls_to_a_port_without_it_is_told(fake: FakeDimse) -> None:
    with pytest.raises(SourceUnavailable, match="TLS"):
        Association(peer(fake.port, tls=ssl.create_default_context(), connect_timeout_s=1.0), [VERIFICATION])
