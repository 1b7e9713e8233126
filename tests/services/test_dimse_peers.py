"""Orthanc and DCMTK's dcmqrscp as archives that speak DIMSE, as Debian installs them: with Nagle's algorithm on."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import SourceUnavailable
from bridge.sources.dimse import Dimse
from bridge.sources.dimse_retrieve import Retrieve, RetrievePolicy
from bridge.sources.identifier import encoded
from bridge.sources.peer import Peer
from bridge.sources.scu import STUDY_ROOT_FIND, VERIFICATION, Association, Sender
from bridge.web.owner import Owner
from bridge.web.tls import client_context
from tests.certificates import Authority
from tests.dicom_files import dicom_bytes, study_bytes
from tests.receiving import receiving
from tests.services.dcmqrscp import running_dcmqrscp
from tests.services.dcmtk import Dcmtk
from tests.services.orthanc_server import running_orthanc
from tests.services.peers import free_port, loopback_shim

STUDY = "1.2.826.0.1.3680043.10.1561.1"
NOON = 1_709_380_800.0
REPORT = "1.2.840.10008.5.1.4.1.1.88.11"


@dataclass
class Archive:
    peer: Peer
    put: Callable[[list[bytes]], None]
    receiver_port: int


@contextmanager
def an_orthanc(folder: Path) -> Iterator[Archive]:
    port = free_port()
    settings = {"DicomModalities": {"bridge": ["BRIDGE", "127.0.0.1", port]}, "DicomScuTimeout": 5}
    with running_orthanc(folder, settings) as server:
        yield Archive(Peer("127.0.0.1", server.dicom_port, server.ae_title), server.upload, port)


@contextmanager
def a_dcmqrscp(folder: Path) -> Iterator[Archive]:
    port = free_port()
    with running_dcmqrscp(folder, port) as server:
        yield Archive(Peer("127.0.0.1", server.port, server.ae_title), server.send, port)


@pytest.fixture(params=[an_orthanc, a_dcmqrscp], ids=["Orthanc", "dcmqrscp"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Archive]:
    folder = tmp_path / "archive"
    folder.mkdir()
    with request.param(folder) as archive:
        yield archive


@contextmanager
def following(archive: Archive, folder: Path, **settings: Any) -> Iterator[Dimse]:
    source = Dimse("pacs", archive.peer, lambda: NOON, spool=folder / "retrieved", **settings)
    try:
        yield source
    finally:
        source.close()


def files(instances: int = 3, series: int = 2) -> list[bytes]:
    return study_bytes(STUDY, series, instances, ReconstructionDiameter=350.0)


def diameters(source: Dimse) -> list[float | None]:
    return [h.number("ReconstructionDiameter") for h in source.read(STUDY).instances]


def test_it_is_asked_what_it_offers(archive: Archive, tmp_path: Path) -> None:
    with following(archive, tmp_path) as source:
        assert {"1.2.840.10008.1.1", "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.2"} <= source.check()


def test_no_answer_of_20000_is_lost(archive: Archive) -> None:
    archive.put(study_bytes(STUDY, instances=1))
    one = encoded({"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": STUDY})
    with Association(archive.peer, [VERIFICATION, STUDY_ROOT_FIND]) as association:
        lost = sum(len(association.find(one).matches) != 1 for _ in range(20_000))
    assert lost == 0


@pytest.mark.parametrize("retrieve", [Retrieve.MOVE, Retrieve.GET])
def test_objects_are_fetched_once_and_only_the_new(archive: Archive, tmp_path: Path, retrieve: Retrieve) -> None:
    archive.put(files())
    with (
        following(archive, tmp_path, retrieve=retrieve, retrieve_policy=RetrievePolicy.ALL) as source,
        receiving(tmp_path / "receiver", source.takes, archive.receiver_port) as receiver,
    ):
        assert diameters(source) == [350.0] * 6
        before = {p: p.stat().st_mtime_ns for p in (tmp_path / "retrieved" / "studies").rglob("*.dcm")}
        archive.put(study_bytes(STUDY, 1, 1, 9, ReconstructionDiameter=350.0))
        found = source.read(STUDY)
        after = {p: p.stat().st_mtime_ns for p in (tmp_path / "retrieved" / "studies").rglob("*.dcm")}
        assert (found.held, found.rejected, len(after)) == (7, (), 7)
        assert before.items() <= after.items()
        assert receiver.held() == {}


@pytest.mark.parametrize("retrieve", [Retrieve.MOVE, Retrieve.GET])
def test_the_policies_fetch_what_they_say(archive: Archive, tmp_path: Path, retrieve: Retrieve) -> None:
    archive.put(files())
    archive.put([dicom_bytes(STUDY, f"{STUDY}.9", f"{STUDY}.9.1", SOPClassUID=REPORT, Modality="SR")])
    for policy, objects in ((RetrievePolicy.STRUCTURED_REPORTS_ONLY, 1), (RetrievePolicy.ONE_PER_SERIES, 3)):
        folder = tmp_path / policy
        with (
            following(archive, folder, retrieve=retrieve, retrieve_policy=policy) as source,
            receiving(folder / "receiver", source.takes, archive.receiver_port),
        ):
            found = source.read(STUDY)
        assert (len(found.instances), found.rejected) == (7, ())
        assert len(list((folder / "retrieved" / "studies").rglob("*.dcm"))) == objects


def test_a_receiver_that_is_down_is_not_taken_for_missing_instances(archive: Archive, tmp_path: Path) -> None:
    archive.put(files())
    settings = {"retrieve": Retrieve.MOVE, "retrieve_policy": RetrievePolicy.ALL}
    with following(archive, tmp_path, **settings) as source, pytest.raises(SourceUnavailable, match="receiver runs"):
        source.read(STUDY)


def test_an_unknown_destination_says_what_to_enter(archive: Archive, tmp_path: Path) -> None:
    archive.put(files())
    settings = {"retrieve": Retrieve.MOVE, "retrieve_policy": RetrievePolicy.ALL, "destination_ae_title": "NOBODY"}
    with following(archive, tmp_path, **settings) as source, pytest.raises(SourceUnavailable, match="NOBODY"):
        source.read(STUDY)


def test_files_are_forwarded_to_it(archive: Archive, tmp_path: Path) -> None:
    paths = []
    for number, content in enumerate(files()):
        paths.append(tmp_path / f"{number}.dcm")
        paths[-1].write_bytes(content)
    assert [sent.stored for sent in Sender(archive.peer).send(paths)] == [True] * 6
    with following(archive, tmp_path) as source:
        assert source.read(STUDY).held == 6


def test_tls_with_dcmtk_both_certificates_checked(dcmtk: Dcmtk, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    (certificate, key), (ours, our_key) = authority.issue("localhost"), authority.issue("bridge")
    port, received = free_port(), tmp_path / "received"
    received.mkdir()
    command = [str(dcmtk.storescp), "-od", str(received), "+tls", str(key), str(certificate)]
    command += ["+cf", str(authority.certificate), str(port)]
    shim = loopback_shim(tmp_path)
    sent = tmp_path / "sent.dcm"
    sent.write_bytes(dicom_bytes(STUDY, f"{STUDY}.1", f"{STUDY}.1.1"))
    trusted = client_context(Owner.source("pacs"), ca=authority.certificate, certificate=ours, key=our_key)
    anonymous = client_context(Owner.source("pacs"), ca=authority.certificate)
    with subprocess.Popen(command, env={"LD_PRELOAD": str(shim)}, stderr=subprocess.DEVNULL) as server:
        try:
            peer = Peer("127.0.0.1", port, "STORESCP", tls=trusted, tls_name="localhost")
            (outcome,) = _once_listening(lambda: Sender(peer).send([sent]))
            assert outcome.stored
            with pytest.raises(SourceUnavailable):
                Sender(Peer("127.0.0.1", port, "STORESCP", tls=anonymous, tls_name="localhost")).send([sent])
        finally:
            server.kill()
    assert len(list(received.iterdir())) == 1


def _once_listening(act: Callable[[], Any]) -> Any:
    """The result of what cannot be done until the peer listens."""
    for _ in range(200):
        try:
            return act()
        except SourceUnavailable as error:
            if "refused" not in str(error):
                raise
            subprocess.run(["sleep", "0.05"], check=True)
    raise AssertionError("the peer never listens")
