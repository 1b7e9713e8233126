"""What every ImagingSource must do, run on every implementation."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from io import BytesIO
from pathlib import Path
from typing import Literal, Protocol

import pytest
from pydicom import dcmread
from pydicom.uid import CTImageStorage

from bridge.errors import InvalidFile, SourceUnavailable
from bridge.model import InstanceName
from bridge.ports import ChangePage, GivesObjects, ImagingSource, ListsByDate
from bridge.sources.dicom_server import DicomServer
from bridge.sources.dicomweb import DicomWeb
from bridge.sources.dimse import Dimse
from bridge.sources.dimse_retrieve import Retrieve, RetrievePolicy
from bridge.sources.folder import Folder
from bridge.sources.orthanc import Orthanc
from bridge.sources.peer import Peer
from bridge.state import State
from bridge.web.auth import sign_in
from tests import dicomweb_fake
from tests.dicom_files import study_bytes
from tests.dicom_server.archive import Fault, SimulatedArchive
from tests.dicom_server.connecting import URL as DICOM_SERVER_URL
from tests.dicom_server.serving import InProcess
from tests.dicomweb_fake import FakeDicomWeb, Quirks
from tests.dimse_fake import AE_TITLE, FakeDimse, running_fake
from tests.folder_rig import zip_bytes
from tests.orthanc_fake import PASSWORD, URL, USERNAME, FakeOrthanc
from tests.services.dcmqrscp import Dcmqrscp, running_dcmqrscp
from tests.services.orthanc_server import OrthancServer, running_orthanc

STUDY, OTHER = "1.2.826.0.1.3680043.10.1561.1", "1.2.826.0.1.3680043.10.1561.2"
PAGES = 100


class Archive(Protocol):
    """Drives one kind of archive: what people and devices do to it, and the source that follows it."""

    def source(self, state: State) -> ImagingSource: ...

    def put(self, files: list[bytes]) -> None: ...

    def delete_study(self, study_instance_uid: str) -> None: ...

    def go_away(self) -> None: ...

    def come_back(self) -> None: ...


@dataclass
class FolderArchive:
    root: Path
    written: dict[str, list[Path]] = field(default_factory=dict)
    number: int = 0

    def source(self, state: State) -> ImagingSource:
        return Folder("archive", self.root, state, time.time, settle_s=0)

    def put(self, files: list[bytes]) -> None:
        for content in files:
            self.number += 1
            path = self.root / f"{self.number}.dcm"
            path.write_bytes(content)
            for study in (STUDY, OTHER):
                if f"{study}.1.".encode() in content:
                    self.written.setdefault(study, []).append(path)

    def delete_study(self, study_instance_uid: str) -> None:
        for path in self.written.pop(study_instance_uid):
            path.unlink()

    def go_away(self) -> None:
        shutil.move(self.root, self.root.with_suffix(".away"))

    def come_back(self) -> None:
        shutil.move(self.root.with_suffix(".away"), self.root)


class ZippedArchive(FolderArchive):
    """A folder in which everything comes as zip files."""

    def put(self, files: list[bytes]) -> None:
        self.number += 1
        path = self.root / f"{self.number}.zip"
        path.write_bytes(zip_bytes({f"{n}.dcm": content for n, content in enumerate(files)}))
        study = next(s for s in (STUDY, OTHER) if f"{s}.1.".encode() in files[0])
        self.written.setdefault(study, []).append(path)


@dataclass
class FakeArchive:
    fake: FakeOrthanc = field(default_factory=FakeOrthanc)

    def source(self, state: State) -> ImagingSource:
        return Orthanc("archive", URL, username=USERNAME, password=PASSWORD, transport=self.fake)

    def put(self, files: list[bytes]) -> None:
        for content in files:
            self.fake.store(content)

    def delete_study(self, study_instance_uid: str) -> None:
        self.fake.delete("Study", study_instance_uid)

    def go_away(self) -> None:
        self.fake.go_away()

    def come_back(self) -> None:
        self.fake.faults.clear()


@dataclass
class OrthancArchive:
    server: OrthancServer

    def source(self, state: State) -> ImagingSource:
        return Orthanc("archive", self.server.url, username=self.server.username, password=self.server.password)

    def put(self, files: list[bytes]) -> None:
        self.server.upload(files)

    def delete_study(self, study_instance_uid: str) -> None:
        self.server.delete_study(study_instance_uid)

    def go_away(self) -> None:
        self.server.stop()

    def come_back(self) -> None:
        self.server.start()


@dataclass
class DicomServerArchive:
    api_version: Literal["v1", "v2"]
    simulated: SimulatedArchive = field(default_factory=SimulatedArchive)

    def source(self, state: State) -> ImagingSource:
        transport = InProcess(self.simulated)
        return DicomServer("archive", DICOM_SERVER_URL, api_version=self.api_version, transport=transport)

    def put(self, files: list[bytes]) -> None:
        for content in files:
            self.simulated.store(content)

    def delete_study(self, study_instance_uid: str) -> None:
        self.simulated.delete(study_instance_uid)

    def go_away(self) -> None:
        self.simulated.faults.append(Fault("/", 503))

    def come_back(self) -> None:
        self.simulated.faults.clear()


@dataclass
class FakeDicomWebArchive:
    fake: FakeDicomWeb = field(default_factory=FakeDicomWeb)

    def source(self, state: State) -> ImagingSource:
        auth = sign_in(dicomweb_fake.URL, username=dicomweb_fake.USERNAME, password=dicomweb_fake.PASSWORD)
        clock = dicomweb_fake.TODAY.timestamp
        return DicomWeb("archive", dicomweb_fake.URL, clock=clock, auth=auth, transport=self.fake)

    def put(self, files: list[bytes]) -> None:
        for content in files:
            self.fake.store(content)

    def delete_study(self, study_instance_uid: str) -> None:
        self.fake.delete(study_instance_uid)

    def go_away(self) -> None:
        self.fake.go_away()

    def come_back(self) -> None:
        self.fake.faults.clear()


@dataclass
class OrthancDicomWebArchive(OrthancArchive):
    """A real Orthanc, seen through its DICOMweb plugin alone, on the day after the studies."""

    def source(self, state: State) -> ImagingSource:
        url = f"{self.server.url}/dicom-web"
        auth = sign_in(url, username=self.server.username, password=self.server.password)
        return DicomWeb("archive", url, clock=dicomweb_fake.TODAY.timestamp, auth=auth)


def day_after_the_studies() -> float:
    """Archives without a log are followed by date: 2 March 2024, noon."""
    return 1_709_380_800.0


@dataclass
class FakeDimseArchive:
    fake: FakeDimse

    def source(self, state: State) -> ImagingSource:
        return Dimse("archive", Peer("127.0.0.1", self.fake.port, AE_TITLE), day_after_the_studies)

    def put(self, files: list[bytes]) -> None:
        self.fake.put(*files)

    def delete_study(self, study_instance_uid: str) -> None:
        self.fake.delete_study(study_instance_uid)

    def go_away(self) -> None:
        self.fake.stop()

    def come_back(self) -> None:
        self.fake.start()


@dataclass
class OrthancByDimse(OrthancArchive):
    def source(self, state: State) -> ImagingSource:
        peer = Peer("127.0.0.1", self.server.dicom_port, self.server.ae_title)
        return Dimse("archive", peer, day_after_the_studies)


@dataclass
class DcmqrscpArchive:
    """It answers few keys: what they do not tell is read from the objects."""

    server: Dcmqrscp
    spool: Path

    def source(self, state: State) -> ImagingSource:
        peer = Peer("127.0.0.1", self.server.port, self.server.ae_title)
        return Dimse(
            "archive",
            peer,
            day_after_the_studies,
            spool=self.spool,
            retrieve=Retrieve.GET,
            retrieve_policy=RetrievePolicy.ALL,
        )

    def put(self, files: list[bytes]) -> None:
        self.server.send(files)

    def delete_study(self, study_instance_uid: str) -> None:
        self.server.delete_study(study_instance_uid)

    def go_away(self) -> None:
        self.server.stop()

    def come_back(self) -> None:
        self.server.start()


@contextmanager
def folder_archive(folder: Path) -> Iterator[Archive]:
    yield FolderArchive(folder)


@contextmanager
def zipped_archive(folder: Path) -> Iterator[Archive]:
    yield ZippedArchive(folder)


@contextmanager
def fake_archive(_folder: Path) -> Iterator[Archive]:
    yield FakeArchive()


@contextmanager
def dicom_server_v1(_folder: Path) -> Iterator[Archive]:
    yield DicomServerArchive("v1")


@contextmanager
def dicom_server_v2(_folder: Path) -> Iterator[Archive]:
    yield DicomServerArchive("v2")


@contextmanager
def orthanc_archive(folder: Path) -> Iterator[Archive]:
    with running_orthanc(folder) as server:
        yield OrthancArchive(server)


@contextmanager
def dicomweb_archive(_folder: Path) -> Iterator[Archive]:
    yield FakeDicomWebArchive()


@contextmanager
def odd_dicomweb_archive(_folder: Path) -> Iterator[Archive]:
    """Everything that an archive may do wrong and still be followed."""
    yield FakeDicomWebArchive(FakeDicomWeb(ODD))


@contextmanager
def orthanc_dicomweb_archive(folder: Path) -> Iterator[Archive]:
    with running_orthanc(folder) as server:
        yield OrthancDicomWebArchive(server)


@contextmanager
def fake_dimse_archive(_folder: Path) -> Iterator[Archive]:
    with running_fake() as fake:
        yield FakeDimseArchive(fake)


@contextmanager
def orthanc_by_dimse(folder: Path) -> Iterator[Archive]:
    with running_orthanc(folder) as server:
        yield OrthancByDimse(server)


@contextmanager
def dcmqrscp_archive(folder: Path) -> Iterator[Archive]:
    with running_dcmqrscp(folder) as server:
        yield DcmqrscpArchive(server, folder / "retrieved")


ODD = Quirks(
    ignores_limit=True,
    ignores_offset=True,
    ignores_dates=True,
    ignores_study_uid=True,
    none_is=200,
    omits_counts=True,
    omits_series_counts=True,
    accepts="application/json",
    refuses_fields=True,
    metadata_levels=("instance",),
    duplicates=True,
)
KINDS = {
    "folder": folder_archive,
    "folder of archives": zipped_archive,
    "orthanc in memory": fake_archive,
    "DICOM server v1": dicom_server_v1,
    "DICOM server v2": dicom_server_v2,
    "dicomweb in memory": dicomweb_archive,
    "odd dicomweb in memory": odd_dicomweb_archive,
    "real Orthanc": orthanc_archive,
    "DICOMweb of a real Orthanc": orthanc_dicomweb_archive,
    "DIMSE in memory": fake_dimse_archive,
    "real Orthanc by C-FIND": orthanc_by_dimse,
    "real dcmqrscp by C-FIND and C-GET": dcmqrscp_archive,
}
REAL = (
    "real Orthanc",
    "DICOMweb of a real Orthanc",
    "real Orthanc by C-FIND",
    "real dcmqrscp by C-FIND and C-GET",
)


@pytest.fixture(params=[pytest.param(kind, marks=pytest.mark.service if kind in REAL else ()) for kind in KINDS])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Archive]:
    folder = tmp_path / "archive"
    folder.mkdir()
    with KINDS[request.param](folder) as archive:
        yield archive


class Follower:
    """Follows an archive as the poll loop does: every page's marks and its position are committed."""

    def __init__(self, archive: Archive, state: State) -> None:
        self._archive, self._state = archive, state
        self.source = archive.source(state)

    def follow(self) -> set[str]:
        """The studies named until the source is caught up."""
        named: set[str] = set()
        for _ in range(PAGES):
            page: ChangePage = self.source.changes(self._state.position("archive"))
            self._state.commit_page("archive", page, time.time(), 0, 0)
            named |= page.studies
            assert not page.rejected
            if page.caught_up:
                return named
        raise AssertionError("the source is never caught up")

    def restart(self) -> None:
        """As after the end of the process: nothing is left but the state."""
        self.close()
        self.source = self._archive.source(self._state)

    def close(self) -> None:
        if isinstance(self.source, Orthanc | DicomServer | DicomWeb | Dimse):
            self.source.close()

    def held(self, study: str) -> set[str]:
        return {h.text("SOPInstanceUID") for h in self.source.read(study).instances}


@pytest.fixture
def follower(archive: Archive, tmp_path: Path) -> Iterator[Follower]:
    state = State(f"sqlite:///{tmp_path / 'state.sqlite'}")
    follower = Follower(archive, state)
    yield follower
    follower.close()
    state.close()


def uids(study: str, first: int, last: int) -> set[str]:
    return {f"{study}.1.{n}" for n in range(first, last + 1)}


def test_an_empty_archive_names_nothing_and_is_caught_up(archive: Archive, follower: Follower) -> None:
    assert follower.follow() == set()
    assert list(follower.source.inventory()) == []


def test_a_new_study_is_named_and_read_whole(archive: Archive, follower: Follower) -> None:
    archive.put(study_bytes(STUDY, instances=3))
    archive.put(study_bytes(OTHER, instances=1))
    assert follower.follow() == {STUDY, OTHER}
    assert follower.held(STUDY) == uids(STUDY, 1, 3)
    assert follower.held(OTHER) == uids(OTHER, 1, 1)


def test_headers_carry_what_the_files_say(archive: Archive, follower: Follower) -> None:
    archive.put(study_bytes(STUDY, instances=1, SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jürgen"))
    follower.follow()
    (headers,) = follower.source.read(STUDY).instances
    assert headers.name("PatientName").alphabetic == "Müller^Jürgen"
    assert headers.text("StudyInstanceUID") == STUDY
    assert headers.text("SOPClassUID") == "1.2.840.10008.5.1.4.1.1.2"
    assert headers["ImageType"] == ("ORIGINAL", "PRIMARY", "AXIAL")
    assert headers["PixelSpacing"] == (0.5, 0.5)
    assert headers.integer("Rows") == 8


def test_nothing_is_named_twice_without_a_change(archive: Archive, follower: Follower) -> None:
    archive.put(study_bytes(STUDY))
    follower.follow()
    assert follower.follow() == set()


def test_late_instances_name_their_study_again(archive: Archive, follower: Follower) -> None:
    archive.put(study_bytes(STUDY, instances=2))
    follower.follow()
    archive.put(study_bytes(STUDY, instances=2, first=3))
    assert follower.follow() == {STUDY}
    assert follower.held(STUDY) == uids(STUDY, 1, 4)


def test_instances_sent_again_change_nothing(archive: Archive, follower: Follower) -> None:
    archive.put(study_bytes(STUDY))
    follower.follow()
    before = follower.source.read(STUDY)
    archive.put(study_bytes(STUDY))
    assert follower.follow() <= {STUDY}
    after = follower.source.read(STUDY)
    assert {h.text("SOPInstanceUID"): h for h in after.instances} == {
        h.text("SOPInstanceUID"): h for h in before.instances
    }
    assert after.rejected == ()


def test_an_object_is_given_whole_or_as_much_of_it_as_is_asked_for(archive: Archive, follower: Follower) -> None:
    archive.put(study_bytes(STUDY, instances=2))
    follower.follow()
    source, name = follower.source, InstanceName(STUDY, f"{STUDY}.1", f"{STUDY}.1.2", CTImageStorage)
    assert isinstance(source, GivesObjects)
    if not source.gives_objects:
        assert source.instance(name, 1_000_000) is None
        return
    follower.held(STUDY)
    whole = source.instance(name, 1_000_000)
    assert whole is not None
    found = dcmread(BytesIO(whole))
    assert (found.SOPInstanceUID, found.StudyInstanceUID) == (f"{STUDY}.1.2", STUDY)
    assert len(found.PixelData) > 0
    head = source.instance(name, 300)
    assert head is not None
    assert len(head) == 300
    assert head[128:132] == b"DICM"


def test_an_object_the_archive_has_not_is_none_or_rejected(archive: Archive, follower: Follower) -> None:
    archive.put(study_bytes(STUDY, instances=1))
    follower.follow()
    name = InstanceName(STUDY, f"{STUDY}.1", f"{STUDY}.1.9", CTImageStorage)
    assert isinstance(follower.source, GivesObjects)
    with suppress(InvalidFile):
        assert follower.source.instance(name, 1000) is None


def test_a_deleted_study_has_nothing_and_is_not_in_the_inventory(archive: Archive, follower: Follower) -> None:
    archive.put(study_bytes(STUDY))
    archive.put(study_bytes(OTHER))
    follower.follow()
    archive.delete_study(STUDY)
    follower.follow()
    found = follower.source.read(STUDY)
    assert (found.instances, found.held, found.rejected) == ((), 0, ())
    assert dict(follower.source.inventory()) == {OTHER: 2}


def test_a_study_never_seen_has_nothing(archive: Archive, follower: Follower) -> None:
    assert follower.source.read("1.2.3.4.5").held == 0


def test_a_study_deleted_and_sent_again_is_named_again(archive: Archive, follower: Follower) -> None:
    archive.put(study_bytes(STUDY))
    archive.put(study_bytes(OTHER))
    follower.follow()
    archive.delete_study(STUDY)
    follower.follow()
    archive.put(study_bytes(STUDY, instances=1))
    assert follower.follow() == {STUDY}
    assert follower.held(STUDY) == uids(STUDY, 1, 1)


def test_the_position_outlives_the_object(archive: Archive, follower: Follower) -> None:
    archive.put(study_bytes(STUDY))
    follower.follow()
    follower.restart()
    assert follower.follow() == set()
    archive.put(study_bytes(OTHER))
    follower.restart()
    assert follower.follow() == {OTHER}


def test_the_inventory_counts_what_a_read_holds(archive: Archive, follower: Follower) -> None:
    archive.put(study_bytes(STUDY, series=2, instances=3))
    archive.put(study_bytes(OTHER, instances=1))
    follower.follow()
    inventory = dict(follower.source.inventory())
    assert inventory == {STUDY: 6, OTHER: 1}
    assert inventory == {study: follower.source.read(study).held for study in inventory}
    assert dict(follower.source.count([STUDY, OTHER])) == inventory


def test_studies_are_listed_by_date_where_the_archive_can(archive: Archive, follower: Follower) -> None:
    archive.put(study_bytes(STUDY, StudyDate="20240301"))
    archive.put(study_bytes(OTHER, StudyDate="20240415"))
    follower.follow()
    source = follower.source
    if not isinstance(source, ListsByDate):
        assert isinstance(source, Folder | DicomServer)
        return
    first, second = date(2024, 3, 1), date(2024, 4, 15)
    assert dict(source.listed(None, None)) == {STUDY: first, OTHER: second}
    assert dict(source.listed(first, date(2024, 4, 14))) == {STUDY: first}
    assert dict(source.listed(date(2024, 3, 2), None)) == {OTHER: second}
    assert dict(source.listed(date(2024, 5, 1), date(2024, 5, 31))) == {}


def test_a_count_tells_what_is_gone_in_whole_or_in_part(archive: Archive, follower: Follower) -> None:
    archive.put(study_bytes(STUDY, instances=3))
    archive.put(study_bytes(OTHER, instances=1))
    follower.follow()
    archive.delete_study(OTHER)
    follower.follow()
    count = follower.source.count([STUDY, OTHER, "1.2.3.4.5"])
    assert [count.get(uid, 0) for uid in (STUDY, OTHER, "1.2.3.4.5")] == [3, 0, 0]


def test_an_archive_that_is_away_is_unavailable_and_comes_back(archive: Archive, follower: Follower) -> None:
    archive.put(study_bytes(STUDY))
    follower.follow()
    archive.go_away()
    with pytest.raises(SourceUnavailable):
        follower.follow()
    with pytest.raises(SourceUnavailable):
        follower.source.read(STUDY)
    archive.come_back()
    follower.follow()
    assert follower.held(STUDY) == uids(STUDY, 1, 2)
    archive.put(study_bytes(OTHER))
    assert OTHER in follower.follow()
