from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from bridge.errors import InvalidDicomValue, SourceUnavailable
from bridge.ports import StudyHeaders
from bridge.sources import orthanc_inventory, orthanc_reading
from bridge.sources.orthanc import Orthanc
from bridge.translate.headers import Headers
from tests.dicom_files import dicom_bytes
from tests.feed import follow
from tests.orthanc_fake import FakeOrthanc, connect

STUDY, OTHER = "1.2.3.1", "1.2.3.2"


@pytest.fixture
def fake() -> FakeOrthanc:
    return FakeOrthanc()


@pytest.fixture
def source(fake: FakeOrthanc) -> Iterator[Orthanc]:
    source = connect(fake)
    yield source
    source.close()


def by_uid(found: StudyHeaders) -> dict[str, Headers]:
    return {h.text("SOPInstanceUID"): h for h in found.instances}


# Reading a study


def test_a_study_is_read_whole(fake: FakeOrthanc, source: Orthanc) -> None:
    fake.put(STUDY, series=2, instances=3, PatientName="Müller^Jürgen", SpecificCharacterSet="ISO_IR 192")
    found = source.read(STUDY)
    assert (found.held, len(found.instances), found.rejected) == (6, 6, ())
    assert {h.text("SOPInstanceUID") for h in found.instances} == {
        f"{STUDY}.{s}.{i}" for s in (1, 2) for i in (1, 2, 3)
    }
    assert found.instances[0].name("PatientName").alphabetic == "Müller^Jürgen"
    assert [p for p in fake.requests if "dicom-web" in p] == [f"/dicom-web/studies/{STUDY}/metadata"]
    assert len(fake.requests) == 4


def test_a_study_that_is_gone_has_nothing(fake: FakeOrthanc, source: Orthanc) -> None:
    fake.put(STUDY)
    fake.delete("Study", STUDY)
    assert (source.read(STUDY).held, source.read(STUDY).instances) == (0, ())


def test_a_study_deleted_while_it_is_read_has_nothing(fake: FakeOrthanc, source: Orthanc) -> None:
    fake.put(STUDY)

    def deleted(_request: httpx.Request) -> httpx.Response:
        fake.delete("Study", STUDY)
        return httpx.Response(404)

    fake.faults["/dicom-web"] = deleted
    assert source.read(STUDY).held == 0


@pytest.mark.parametrize("answer", [httpx.Response(404), httpx.Response(200, content=b"[]")])
def test_a_missing_dicomweb_plugin_is_not_a_missing_study(
    fake: FakeOrthanc, source: Orthanc, answer: httpx.Response
) -> None:
    fake.put(STUDY)
    fake.faults["/dicom-web"] = lambda _: answer
    with pytest.raises(SourceUnavailable, match="is the DICOMweb plugin enabled"):
        source.read(STUDY)


def test_an_instance_that_is_not_an_object_is_rejected_and_counted(fake: FakeOrthanc, source: Orthanc) -> None:
    fake.put(STUDY)
    fake.edits["dicom-web"] = lambda found: [found[0], "damaged", found[1]]
    found = source.read(STUDY)
    assert (found.held, len(found.instances)) == (3, 2)
    assert [(r.key, r.evidence) for r in found.rejected] == [("pacs/metadata/2", {"position": 2})]


@pytest.mark.parametrize("uid", ["", "1.2.3/../../system", "1.2.3?x=y", "1.2.3 4", "٣.٤", "9" * 65])
def test_only_a_uid_goes_into_an_address(fake: FakeOrthanc, source: Orthanc, uid: str) -> None:
    with pytest.raises(InvalidDicomValue):
        source.read(uid)
    assert fake.requests == []


def test_a_study_under_two_patient_ids_is_one_study_with_all_instances(fake: FakeOrthanc, source: Orthanc) -> None:
    fake.store(dicom_bytes(STUDY, f"{STUDY}.1", f"{STUDY}.1.1", PatientID="A"))
    fake.store(dicom_bytes(STUDY, f"{STUDY}.1", f"{STUDY}.1.2", PatientID="B"))
    found = source.read(STUDY)
    assert follow(source)[0] == {STUDY}
    assert (found.held, found.rejected) == (2, ())
    assert {h.text("SOPInstanceUID") for h in found.instances} == {f"{STUDY}.1.1", f"{STUDY}.1.2"}
    assert {h.text("PatientID") for h in found.instances} == {"A", "B"}
    assert list(source.inventory()) == [(STUDY, 2)]


def test_of_an_instance_under_two_patient_ids_one_is_kept_and_one_rejected(fake: FakeOrthanc, source: Orthanc) -> None:
    for patient in ("A", "B"):
        fake.store(dicom_bytes(STUDY, f"{STUDY}.1", f"{STUDY}.1.1", PatientID=patient))
    found = source.read(STUDY)
    assert (found.held, len(found.instances), len(found.rejected)) == (2, 1, 1)
    assert found.rejected[0].error.startswith("SOPInstanceUID")
    assert found == source.read(STUDY)


def test_of_a_whole_study_under_two_patient_ids_one_copy_is_kept_whole(fake: FakeOrthanc, source: Orthanc) -> None:
    for patient in ("A", "B"):
        fake.put(STUDY, series=4, instances=2, PatientID=patient)
    found = source.read(STUDY)
    assert (found.held, len(found.instances), len(found.rejected)) == (16, 8, 8)
    assert len({h.text("PatientID") for h in found.instances}) == 1


def test_both_ways_of_reading_give_the_same_headers(fake: FakeOrthanc, source: Orthanc) -> None:
    code = dicom_bytes(STUDY, f"{STUDY}.1", f"{STUDY}.1.1", OperatorsName=["One^Operator", "Two^Operator"])
    fake.store(code)
    by_metadata = source.read(STUDY).instances[0]
    fake.store(dicom_bytes(STUDY, f"{STUDY}.2", f"{STUDY}.2.1", PatientID="OTHER"))
    by_tags = [h for h in source.read(STUDY).instances if h.text("SOPInstanceUID") == f"{STUDY}.1.1"]
    assert by_tags == [by_metadata]


# What the plugin does not give


def instance(fake: FakeOrthanc, number: int) -> str:
    (found,) = fake.found("Instance", f"{STUDY}.1.{number}")
    return found.id


def test_metadata_without_some_instances_are_not_the_study(fake: FakeOrthanc, source: Orthanc) -> None:
    fake.put(STUDY, instances=3)
    whole = source.read(STUDY)
    fake.edits["dicom-web"] = lambda found: found[1:]
    again = source.read(STUDY)
    assert (again.held, again.rejected) == (3, ())
    assert by_uid(again) == by_uid(whole)


def test_metadata_without_some_attributes_are_not_the_study(
    fake: FakeOrthanc, source: Orthanc, caplog: pytest.LogCaptureFixture
) -> None:
    fake.put(STUDY, series=2, instances=2)
    whole = source.read(STUDY)
    assert caplog.text == ""
    fake.reduced = {"SOPClassUID", "Rows", "SliceThickness"}
    for _ in range(2):
        again = source.read(STUDY)
        assert (again.held, again.rejected) == (4, ())
        assert by_uid(again) == by_uid(whole)
    assert caplog.text.count("is StudiesMetadata set to Full?") == 1


def test_an_instance_that_cannot_be_read_is_rejected_and_the_others_are_given(
    fake: FakeOrthanc, source: Orthanc
) -> None:
    fake.put(STUDY, series=2, instances=3)
    fake.damaged = {instance(fake, 2)}
    found = source.read(STUDY)
    assert (found.held, len(found.instances)) == (6, 5)
    assert [(r.key, dict(r.evidence)) for r in found.rejected] == [
        (f"pacs/{instance(fake, 2)}", {"orthanc_id": instance(fake, 2)})
    ]
    assert "storage" in found.rejected[0].error
    assert dict(source.count([STUDY])) == {STUDY: 6}


@pytest.mark.parametrize("code", [400, 500, 502, 504])
def test_metadata_that_orthanc_or_a_proxy_does_not_give_are_not_needed(
    fake: FakeOrthanc, source: Orthanc, code: int
) -> None:
    fake.put(STUDY, series=2, instances=3)
    whole = source.read(STUDY)
    fake.faults["/dicom-web"] = lambda _: httpx.Response(code)
    assert by_uid(source.read(STUDY)) == by_uid(whole)


def test_an_instance_that_is_refused_once_is_read_at_the_second_try(fake: FakeOrthanc, source: Orthanc) -> None:
    fake.put(STUDY, instances=3)
    refused = instance(fake, 2)
    fake.damaged = {refused}
    asked = fake.handle_request

    def recovering(request: httpx.Request) -> httpx.Response:
        answer = asked(request)
        if request.url.path == f"/instances/{refused}/tags" and fake.requests[-2].startswith("/instances/"):
            fake.damaged = set()
        return answer

    fake.handle_request = recovering  # type: ignore[method-assign]
    found = source.read(STUDY)
    assert (found.held, len(found.instances), found.rejected) == (3, 3, ())


def test_a_study_of_which_nothing_can_be_read_is_tried_again_later(fake: FakeOrthanc, source: Orthanc) -> None:
    fake.put(STUDY, instances=3)
    fake.damaged = {instance(fake, n) for n in (1, 2, 3)}
    with pytest.raises(SourceUnavailable, match="can read none of a study's instances"):
        source.read(STUDY)


def test_a_storage_that_is_away_is_not_asked_for_every_instance(
    fake: FakeOrthanc, source: Orthanc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orthanc_reading, "REFUSED_MOST", 5)
    fake.put(STUDY, instances=50)
    fake.damaged = {instance(fake, n) for n in range(1, 51)}
    with pytest.raises(SourceUnavailable, match="can read none"):
        source.read(STUDY)
    assert len(fake.requests) < 15


def test_a_long_series_is_read_by_tags_one_by_one(
    fake: FakeOrthanc, source: Orthanc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orthanc_reading, "TAGS_AT_ONCE", 3)
    fake.put(STUDY, instances=4)
    fake.reduced = {"SOPClassUID"}
    found = source.read(STUDY)
    assert (found.held, len(found.instances)) == (4, 4)
    assert not any("instances-tags" in p for p in fake.requests)


def test_an_instance_deleted_while_it_is_read_by_tags_is_not_held(fake: FakeOrthanc, source: Orthanc) -> None:
    fake.put(STUDY, instances=3)
    fake.reduced = {"SOPClassUID"}
    gone = instance(fake, 2)
    fake.faults["/series"] = lambda _: httpx.Response(500)
    fake.faults[f"/instances/{gone}"] = lambda _: httpx.Response(404)
    found = source.read(STUDY)
    assert (found.held, len(found.instances), found.rejected) == (2, 2, ())


# The inventory


def test_the_inventory_is_every_study_with_its_number_of_instances(fake: FakeOrthanc, source: Orthanc) -> None:
    fake.put(STUDY, series=2, instances=3)
    fake.put(OTHER, instances=1)
    assert list(source.inventory()) == [(STUDY, 6), (OTHER, 1)]


def test_an_empty_archive_has_an_empty_inventory(source: Orthanc) -> None:
    assert list(source.inventory()) == []


@pytest.fixture
def short_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orthanc_inventory, "LISTED", {"studies": 5, "series": 4})
    monkeypatch.setattr(orthanc_inventory, "OVERLAP", 2)


@pytest.mark.usefixtures("short_lists")
@pytest.mark.parametrize("studies", [1, 2, 3, 4, 5, 6, 7, 8, 9, 30])
def test_a_long_inventory_counts_every_study_once(fake: FakeOrthanc, source: Orthanc, studies: int) -> None:
    wanted = {f"1.2.5.{n}": 2 * (n % 3 + 1) for n in range(1, studies + 1)}
    for study, instances in wanted.items():
        fake.put(study, series=2, instances=instances // 2)
    assert dict(source.inventory()) == wanted


@pytest.mark.usefixtures("short_lists")
@pytest.mark.parametrize("gone", [1, 2, 3, 5, 8, 12])
@pytest.mark.parametrize("when", [3, 5, 8, 11, 13, 15])
def test_studies_deleted_while_everything_is_listed_hide_no_other(
    fake: FakeOrthanc, source: Orthanc, gone: int, when: int
) -> None:
    studies = [f"1.2.5.{n}" for n in range(1, 25)]
    for study in studies:
        fake.put(study)
    asked = fake.handle_request

    def deleting(request: httpx.Request) -> httpx.Response:
        if len(fake.requests) == when:
            for study in studies[:gone]:
                fake.delete("Study", study)
        return asked(request)

    fake.handle_request = deleting  # type: ignore[method-assign]
    found = dict(source.inventory())
    assert {s: found.get(s) for s in studies[gone:]} == dict.fromkeys(studies[gone:], 2)


@pytest.mark.usefixtures("short_lists")
def test_a_study_stored_while_everything_is_listed_is_counted(fake: FakeOrthanc, source: Orthanc) -> None:
    for n in range(1, 8):
        fake.put(f"1.2.5.{n}")
    asked = fake.handle_request

    def storing(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/series" and not fake.found("Study", OTHER):
            fake.put(OTHER)
        return asked(request)

    fake.handle_request = storing  # type: ignore[method-assign]
    assert dict(source.inventory())[OTHER] == 2
