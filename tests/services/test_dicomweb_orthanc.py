"""The DICOMweb plugin of a real Orthanc, followed as an archive without a change feed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bridge.errors import SourceUnavailable
from bridge.sources.dicomweb import DicomWeb
from bridge.web.auth import sign_in
from tests.dicom_files import study_bytes
from tests.dicomweb_fake import TODAY
from tests.feed import follow
from tests.services.orthanc_server import OrthancServer

STUDY = "1.2.3.1"


def connect(server: OrthancServer, path: str = "/dicom-web", **options: Any) -> DicomWeb:
    url = server.url + path
    auth = sign_in(url, username=server.username, password=server.password)
    return DicomWeb("pacs", url, clock=TODAY.timestamp, auth=auth, **options)


@pytest.fixture
def source(orthanc: OrthancServer) -> Iterator[DicomWeb]:
    source = connect(orthanc, page_size=7, lookback_days=60)
    yield source
    source.close()


def fill(server: OrthancServer, studies: int) -> dict[str, int]:
    """Studies of all days of February and the first of March; every tenth has no date."""
    held = {}
    for n in range(studies):
        held[f"1.2.3.{n}"] = n % 3 + 1
        study_date = None if n % 10 == 9 else f"202402{n % 29 + 1:02d}" if n % 4 else "20240301"
        server.upload(study_bytes(f"1.2.3.{n}", instances=n % 3 + 1, StudyDate=study_date, PatientID=f"P{n}"))
    return held


def test_every_study_is_named_counted_and_listed_in_pages(orthanc: OrthancServer, source: DicomWeb) -> None:
    held = fill(orthanc, 60)
    named, position, _ = follow(source)
    assert named == {uid for uid in held if int(uid.rpartition(".")[2]) % 10 != 9}
    assert dict(source.inventory()) == dict(source.count(list(held))) == held
    assert {uid: source.read(uid).held for uid in held} == held
    assert follow(source, position)[0] == set()


def test_changes_of_the_newest_days_are_named(orthanc: OrthancServer, source: DicomWeb) -> None:
    for n in range(4):
        orthanc.upload(study_bytes(f"1.2.3.{n}", PatientID=f"P{n}"))
    _, position, _ = follow(source)
    orthanc.upload(study_bytes("1.2.3.1", instances=1, first=3, PatientID="P1"))
    orthanc.delete_study("1.2.3.2")
    orthanc.upload(study_bytes("1.2.3.4", StudyDate="20240302", PatientID="P4"))
    named, position, _ = follow(source, position)
    assert named == {"1.2.3.1", "1.2.3.2", "1.2.3.4"}
    assert source.count(["1.2.3.1", "1.2.3.2", "1.2.3.4"]) == {"1.2.3.1": 3, "1.2.3.2": 0, "1.2.3.4": 2}
    assert follow(source, position)[0] == set()


def test_a_study_held_under_two_patients_is_read_whole(orthanc: OrthancServer, source: DicomWeb) -> None:
    orthanc.upload(study_bytes(STUDY, PatientID="P1"))
    orthanc.upload(study_bytes(STUDY, instances=1, first=3, PatientID="P2"))
    found = source.read(STUDY)
    assert (len(found.instances), found.held, found.rejected) == (3, 3, ())
    assert dict(source.inventory()) == source.count([STUDY]) == {STUDY: 3}


@pytest.mark.parametrize("path", ["", "/nonsense"])
def test_an_address_that_is_no_dicomweb_service_is_told(orthanc: OrthancServer, path: str) -> None:
    orthanc.upload(study_bytes(STUDY))
    source = connect(orthanc, path)
    for step in (lambda: source.changes(None), lambda: source.read(STUDY), lambda: list(source.inventory())):
        with pytest.raises(SourceUnavailable, match="check that url"):
            step()
    source.close()
