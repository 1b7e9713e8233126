"""The Orthanc source against a real Orthanc, fed in every way that people feed one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from bridge.errors import SourceUnavailable
from bridge.ports import ChangePage
from bridge.sources.orthanc import Orthanc
from tests.dicom_files import dicom_bytes, study_bytes
from tests.services.dcmtk import Dcmtk
from tests.services.orthanc_server import OrthancServer, running_orthanc

STUDY, OTHER = "1.2.826.0.1.3680043.10.1561.1", "1.2.826.0.1.3680043.10.1561.2"

Feed = Callable[[Sequence[bytes]], None]


@pytest.fixture
def source(orthanc: OrthancServer) -> Iterator[Orthanc]:
    source = connect(orthanc)
    yield source
    source.close()


def connect(orthanc: OrthancServer, password: str | None = None) -> Orthanc:
    return Orthanc("pacs", orthanc.url, username=orthanc.username, password=password or orthanc.password, timeout_s=30)


@pytest.fixture(params=["storescu", "REST", "STOW-RS"])
def feed(request: pytest.FixtureRequest, orthanc: OrthancServer, tmp_path: Path) -> Feed:
    if request.param != "storescu":
        return {"REST": orthanc.upload, "STOW-RS": orthanc.stow}[request.param]
    dcmtk: Dcmtk = request.getfixturevalue("dcmtk")
    return lambda files: dcmtk.send(orthanc.ae_title, orthanc.dicom_port, files, tmp_path / "files")


class Reader:
    """Reads the log to its end from where it stopped."""

    def __init__(self, source: Orthanc) -> None:
        self.source = source
        self.position: str | None = None
        self.resweeps = 0

    def follow(self) -> set[str]:
        named: set[str] = set()
        for _ in range(1000):
            page: ChangePage = self.source.changes(self.position)
            self.position = page.position or self.position
            self.resweeps += page.resweep
            named |= page.studies
            assert page.rejected == ()
            if page.caught_up:
                return named
        raise AssertionError("the log never ends")


def held(source: Orthanc, study: str) -> set[str]:
    return {h.text("SOPInstanceUID") for h in source.read(study).instances}


def test_what_is_fed_in_any_way_is_named_read_and_counted(source: Orthanc, feed: Feed) -> None:
    feed(study_bytes(STUDY, series=2, instances=3))
    feed(study_bytes(OTHER, instances=1))
    assert Reader(source).follow() == {STUDY, OTHER}
    assert held(source, STUDY) == {f"{STUDY}.{s}.{n}" for s in (1, 2) for n in (1, 2, 3)}
    assert dict(source.inventory()) == {STUDY: 6, OTHER: 1}


def test_late_instances_and_instances_sent_again(source: Orthanc, feed: Feed) -> None:
    feed(study_bytes(STUDY))
    reader = Reader(source)
    reader.follow()
    feed(study_bytes(STUDY))
    reader.follow()
    assert source.read(STUDY).held == 2
    feed(study_bytes(STUDY, instances=2, first=3))
    assert reader.follow() == {STUDY}
    assert source.read(STUDY).held == 4


def test_a_deleted_study_is_gone_and_no_reset(orthanc: OrthancServer, source: Orthanc) -> None:
    orthanc.upload(study_bytes(STUDY))
    orthanc.upload(study_bytes(OTHER))
    reader = Reader(source)
    reader.follow()
    orthanc.delete_study(OTHER)
    reader.follow()
    assert source.read(OTHER).held == 0
    assert dict(source.inventory()) == {STUDY: 2}
    orthanc.delete_study(STUDY)
    reader.follow()
    assert list(source.inventory()) == []
    assert reader.resweeps == 0


def test_a_deleted_instance_shows_in_the_count(orthanc: OrthancServer, source: Orthanc) -> None:
    orthanc.upload(study_bytes(STUDY, instances=3))
    with orthanc.client() as client:
        found = client.post("/tools/lookup", content=f"{STUDY}.1.2").json()
        client.delete(found[0]["Path"]).raise_for_status()
    assert dict(source.inventory()) == {STUDY: 2}
    assert held(source, STUDY) == {f"{STUDY}.1.1", f"{STUDY}.1.3"}


def test_a_restart_loses_nothing_and_is_no_reset(orthanc: OrthancServer, source: Orthanc) -> None:
    orthanc.upload(study_bytes(STUDY))
    reader = Reader(source)
    reader.follow()
    orthanc.stop()
    with pytest.raises(SourceUnavailable, match="connection refused"):
        reader.follow()
    orthanc.start()
    reader.follow()
    orthanc.upload(study_bytes(OTHER))
    assert OTHER in reader.follow()
    assert reader.resweeps == 0


def test_a_deletion_before_a_restart_is_no_reset(orthanc: OrthancServer, source: Orthanc) -> None:
    orthanc.upload(study_bytes(STUDY))
    orthanc.upload(study_bytes(OTHER))
    reader = Reader(source)
    reader.follow()
    orthanc.delete_study(OTHER)
    orthanc.restart()
    reader.follow()
    assert reader.resweeps == 0


@pytest.mark.parametrize("studies", [0, 1, 2, 5])
def test_a_database_wiped_and_refilled_is_seen_whatever_it_holds_now(
    orthanc: OrthancServer, source: Orthanc, studies: int
) -> None:
    orthanc.upload(study_bytes(STUDY))
    orthanc.upload(study_bytes(OTHER))
    reader = Reader(source)
    reader.follow()
    orthanc.reset_database()
    refilled = {f"1.2.826.0.1.3680043.10.1561.9.{n}" for n in range(1, studies + 1)}
    for study in sorted(refilled):
        orthanc.upload(study_bytes(study))
    assert reader.follow() == refilled
    assert reader.resweeps == 1
    assert source.read(STUDY).held == 0


def test_a_log_cleared_by_the_operator_is_no_reset(orthanc: OrthancServer, source: Orthanc) -> None:
    orthanc.upload(study_bytes(STUDY))
    reader = Reader(source)
    reader.follow()
    with orthanc.client() as client:
        client.delete("/changes").raise_for_status()
    orthanc.upload(study_bytes(OTHER))
    assert OTHER in reader.follow()
    assert reader.resweeps == 0


def test_a_study_under_two_patient_ids_is_read_and_counted_whole(orthanc: OrthancServer, source: Orthanc) -> None:
    orthanc.upload([dicom_bytes(STUDY, f"{STUDY}.1", f"{STUDY}.1.1", PatientID="A", PatientName="Müller^J")])
    by_metadata = source.read(STUDY).instances
    orthanc.upload([dicom_bytes(STUDY, f"{STUDY}.1", f"{STUDY}.1.2", PatientID="B")])
    found = source.read(STUDY)
    assert held(source, STUDY) == {f"{STUDY}.1.1", f"{STUDY}.1.2"}
    assert (found.held, found.rejected) == (2, ())
    assert [h for h in found.instances if h.text("PatientID") == "A"] == list(by_metadata)
    assert dict(source.inventory()) == {STUDY: 2}


def test_metadata_added_in_orthanc_names_the_study(orthanc: OrthancServer, source: Orthanc) -> None:
    orthanc.upload(study_bytes(STUDY))
    reader = Reader(source)
    reader.follow()
    with orthanc.client() as client:
        (found,) = client.post("/tools/lookup", content=STUDY).json()
        client.put(f"{found['Path']}/metadata/1024", content="checked").raise_for_status()
    assert reader.follow() == {STUDY}


def test_an_anonymized_copy_is_a_study_of_its_own(orthanc: OrthancServer, source: Orthanc) -> None:
    orthanc.upload(study_bytes(STUDY))
    reader = Reader(source)
    reader.follow()
    with orthanc.client() as client:
        (found,) = client.post("/tools/lookup", content=STUDY).json()
        client.post(f"{found['Path']}/anonymize", content="{}").raise_for_status()
    new = reader.follow() - {STUDY}
    assert len(new) == 1
    assert dict(source.inventory()) == {STUDY: 2, new.pop(): 2}


def test_a_patient_id_corrected_in_orthanc_is_read_anew(tmp_path: Path) -> None:
    with running_orthanc(tmp_path, {"OverwriteInstances": True}) as orthanc:
        source = connect(orthanc)
        reader = Reader(source)
        orthanc.upload(study_bytes(STUDY, PatientID="WRONG"))
        reader.follow()
        orthanc.delete_study(STUDY)
        orthanc.upload(study_bytes(STUDY, PatientID="RIGHT"))
        assert reader.follow() == {STUDY}
        assert {h.text("PatientID") for h in source.read(STUDY).instances} == {"RIGHT"}
        orthanc.upload(study_bytes(STUDY, PatientID="RIGHT", StudyDescription="corrected"))
        assert reader.follow() == {STUDY}
        assert {h.text("StudyDescription") for h in source.read(STUDY).instances} == {"corrected"}
        source.close()


def test_text_arrives_decoded_whatever_its_character_set(orthanc: OrthancServer, source: Orthanc) -> None:
    japanese = {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう"}
    latin = {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Müller^Jürgen"}
    orthanc.upload([dicom_bytes(STUDY, f"{STUDY}.1", f"{STUDY}.1.1", **latin)])
    orthanc.upload([dicom_bytes(OTHER, f"{OTHER}.1", f"{OTHER}.1.1", **japanese)])
    assert source.read(STUDY).instances[0].name("PatientName").alphabetic == "Müller^Jürgen"
    name = source.read(OTHER).instances[0].name("PatientName")
    assert (name.alphabetic, name.ideographic, name.phonetic) == ("Yamada^Tarou", "山田^太郎", "やまだ^たろう")


def test_without_the_dicomweb_plugin_no_study_is_taken_for_gone(tmp_path: Path) -> None:
    with running_orthanc(tmp_path, {"Plugins": []}) as orthanc:
        source = connect(orthanc)
        orthanc.upload(study_bytes(STUDY))
        with pytest.raises(SourceUnavailable, match="is the DICOMweb plugin enabled"):
            source.read(STUDY)
        source.close()


def test_a_wrong_password_is_told(orthanc: OrthancServer) -> None:
    source = connect(orthanc, password="wrong")
    with pytest.raises(SourceUnavailable, match="HTTP 401: username or password not accepted"):
        source.changes(None)
    source.close()


def test_another_kind_of_server_is_told(orthanc: OrthancServer) -> None:
    source = Orthanc("pacs", f"http://127.0.0.1:{orthanc.dicom_port}", timeout_s=5)
    with pytest.raises(SourceUnavailable, match=r"connection was cut|no answer within"):
        source.changes(None)
    source.close()


def test_six_hundred_studies_are_followed_and_counted_through_several_pages(
    orthanc: OrthancServer, source: Orthanc
) -> None:
    wanted = {f"1.2.826.0.1.3680043.10.1561.7.{n}" for n in range(1, 601)}
    with orthanc.client() as client:
        for study in sorted(wanted):
            client.post("/instances", content=study_bytes(study, instances=1)[0]).raise_for_status()
    reader = Reader(source)
    assert reader.follow() == wanted
    assert dict(source.inventory()) == dict.fromkeys(wanted, 1)
