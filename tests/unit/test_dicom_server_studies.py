from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from bridge.errors import InvalidDicomValue, SourceUnavailable
from bridge.sources import dicom_server_studies
from bridge.sources.dicom_server import DicomServer
from bridge.sources.paging import OVERLAP, STEPS_BACK, ListMoves, listed
from tests.dicom_server.archive import Fault, SimulatedArchive
from tests.dicom_server.connecting import connect
from tests.feed import follow

STUDY, OTHER, THIRD = "1.2.3.1", "1.2.3.2", "1.2.3.3"


@pytest.fixture
def archive() -> SimulatedArchive:
    return SimulatedArchive()


@pytest.fixture
def source(archive: SimulatedArchive) -> Iterator[DicomServer]:
    source = connect(archive)
    yield source
    source.close()


@pytest.fixture
def divided() -> SimulatedArchive:
    return SimulatedArchive(partitions=True)


@pytest.fixture
def whole(divided: SimulatedArchive) -> Iterator[DicomServer]:
    source = connect(divided)
    yield source
    source.close()


# Reading


def test_a_study_is_read_in_one_request(archive: SimulatedArchive, source: DicomServer) -> None:
    archive.put(STUDY, series=2, instances=3)
    source.read(STUDY)
    archive.requests.clear()
    assert source.read(STUDY).held == 6
    assert archive.requests == [f"/v2/studies/{STUDY}/metadata"]


def test_a_study_that_is_gone_has_nothing(archive: SimulatedArchive, source: DicomServer) -> None:
    archive.put(STUDY)
    archive.delete(STUDY)
    assert source.read(STUDY).held == 0


@pytest.mark.parametrize("status", [204, 404, 410])
def test_every_way_to_say_that_nothing_is_there_is_understood(
    archive: SimulatedArchive, source: DicomServer, status: int
) -> None:
    archive.put(STUDY)
    archive.faults.append(Fault("/metadata", status))
    assert source.read(STUDY).held == 0


@pytest.mark.parametrize("body", [b"", b"Not found"])
def test_a_wrong_address_is_not_taken_for_studies_that_are_gone(
    archive: SimulatedArchive, source: DicomServer, body: bytes
) -> None:
    archive.put(STUDY)
    archive.faults.append(Fault("/", 404, body))
    with pytest.raises(SourceUnavailable, match="HTTP 404: there is no such path; check that url"):
        source.read(STUDY)
    with pytest.raises(SourceUnavailable, match="HTTP 404"):
        source.changes(None)
    with pytest.raises(SourceUnavailable, match="HTTP 404"):
        list(source.inventory())
    with pytest.raises(SourceUnavailable, match="HTTP 404"):
        source.count([STUDY])


@pytest.mark.parametrize("uid", ["", "not a uid", "1/../2", "1" * 65])
def test_only_a_uid_goes_into_an_address(archive: SimulatedArchive, source: DicomServer, uid: str) -> None:
    with pytest.raises(InvalidDicomValue, match="StudyInstanceUID"):
        source.read(uid)
    with pytest.raises(InvalidDicomValue, match="StudyInstanceUID"):
        source.count([uid])
    assert archive.requests == []


Edit = Any

EDITS: dict[str, tuple[Edit, str, object]] = {
    "a number as text": (lambda m: m | {"00280010": {"vr": "US", "Value": ["512"]}}, "Rows", 512),
    "text as a number": (lambda m: m | {"00201206": {"vr": "IS", "Value": [3]}}, "Rows", 8),
    "NaN": (lambda m: m | {"00180050": {"vr": "DS", "Value": [math.nan]}}, "Rows", 8),
    "Infinity": (lambda m: m | {"00180050": {"vr": "DS", "Value": [math.inf]}}, "Rows", 8),
    "a member that is null": (lambda m: m | {"00180050": None}, "Rows", 8),
    "a value that is null": (lambda m: m | {"00180050": {"vr": "DS", "Value": [None]}}, "Rows", 8),
    "a bare value": (lambda m: m | {"00280010": {"vr": "US", "Value": 512}}, "Rows", 512),
    "a sequence that is text": (lambda m: m | {"00321064": {"vr": "SQ", "Value": ["x", 1, None]}}, "Rows", 8),
    "a name that is a list": (lambda m: m | {"00100010": {"vr": "PN", "Value": [["x"]]}}, "Rows", 8),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_one_deviating_attribute_takes_nothing_else_with_it(
    archive: SimulatedArchive, source: DicomServer, edit: tuple[Edit, str, object]
) -> None:
    """Upstream issue: numbers sent as text and the reverse made whole entries unreadable."""
    archive.put(STUDY, instances=3)
    archive.metadata_edits[f"{STUDY}.1.2"] = edit[0]
    found = source.read(STUDY)
    assert (found.held, len(found.instances), found.rejected) == (3, 3, ())
    (odd,) = (h for h in found.instances if h.text("SOPInstanceUID") == f"{STUDY}.1.2")
    assert odd.integer(edit[1]) == edit[2]


@pytest.mark.parametrize("metadata", [None, "text", [], 7])
def test_an_instance_that_is_no_object_is_rejected_and_the_others_stand(
    archive: SimulatedArchive, source: DicomServer, metadata: object
) -> None:
    archive.put(STUDY, instances=3)
    archive.metadata_edits[f"{STUDY}.1.2"] = lambda _plain: metadata
    found = source.read(STUDY)
    assert found.held == 3
    assert {h.text("SOPInstanceUID") for h in found.instances} == {f"{STUDY}.1.1", f"{STUDY}.1.3"}
    assert [dict(r.evidence) for r in found.rejected] == [{"position": 2}]


@pytest.mark.parametrize("garbage", [b'{"00280010": 012}', b"{", b"<error/>", b'{"a": "\x01"}', b"}"])
def test_an_instance_that_is_no_json_is_rejected_and_the_others_are_read_one_by_one(
    archive: SimulatedArchive, source: DicomServer, garbage: bytes
) -> None:
    archive.put(STUDY, series=2, instances=3)
    archive.garbage[f"{STUDY}.2.2"] = garbage
    found = source.read(STUDY)
    assert (found.held, len(found.instances)) == (6, 5)
    assert [r.key for r in found.rejected] == [f"cloud/Microsoft.Default/{STUDY}.2.2"]
    assert "not JSON" in found.rejected[0].error


def test_a_failure_while_reading_one_by_one_is_no_rejection(archive: SimulatedArchive, source: DicomServer) -> None:
    archive.put(STUDY, instances=3)
    archive.garbage[f"{STUDY}.1.2"] = b"{"
    archive.faults.append(Fault(f"instances/{STUDY}.1.3", 500))
    with pytest.raises(SourceUnavailable, match="HTTP 500"):
        source.read(STUDY)


# Counting and listing


@pytest.mark.parametrize("counts", [True, False])
def test_the_inventory_has_every_study_with_its_instances(
    archive: SimulatedArchive, source: DicomServer, counts: bool
) -> None:
    """Older servers leave NumberOfStudyRelatedInstances out: then instances are counted."""
    archive.counts_studies = counts
    archive.put(STUDY, series=2, instances=150)
    archive.put(OTHER, instances=1)
    assert list(source.inventory()) == [(STUDY, 300), (OTHER, 1)]
    assert source.count([STUDY, OTHER, THIRD]) == {STUDY: 300, OTHER: 1, THIRD: 0}


def test_an_archive_without_studies_has_an_empty_inventory(source: DicomServer) -> None:
    assert list(source.inventory()) == []


def test_a_long_inventory_is_read_in_pages_none_missing(
    archive: SimulatedArchive, source: DicomServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicom_server_studies, "PAGE", 30)
    for number in range(1, 101):
        archive.put(f"1.2.5.{number}", instances=1)
    assert dict(source.inventory()) == archive.truth()


@pytest.mark.parametrize("vanish", [5, 25, 90])
def test_studies_that_come_and_go_meanwhile_hide_no_other(
    archive: SimulatedArchive, source: DicomServer, monkeypatch: pytest.MonkeyPatch, vanish: int
) -> None:
    monkeypatch.setattr(dicom_server_studies, "PAGE", 30)
    for number in range(1, 151):
        archive.put(f"1.2.5.{number}", instances=1)
    newest = [f"1.2.5.{number}" for number in range(150, 150 - vanish, -1)]
    search = source._studies._search
    searches: list[int] = []

    def disturbed(path: str, parameters: Any) -> Any:
        found = search(path, parameters)
        searches.append(1)
        if len(searches) == 2:
            for study in newest:
                archive.delete(study)
        if len(searches) == 4:
            archive.put("1.2.6.1", instances=1)
        return found

    monkeypatch.setattr(source._studies, "_search", disturbed)
    found = dict(source.inventory())
    assert {uid for uid in archive.truth() if uid != "1.2.6.1"} <= found.keys()


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500, 503])
def test_an_inventory_is_whole_or_none(
    archive: SimulatedArchive, source: DicomServer, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(dicom_server_studies, "PAGE", 30)
    for number in range(1, 101):
        archive.put(f"1.2.5.{number}", instances=1)
    archive.faults.append(Fault("offset=20", status))
    with pytest.raises(SourceUnavailable, match=f"HTTP {status}"):
        list(source.inventory())


@pytest.mark.parametrize("answer", [b"{}", b'["x"]', b"7", b"<html>", b"[", b""])
def test_a_search_that_answers_otherwise_is_unavailable(
    archive: SimulatedArchive, source: DicomServer, answer: bytes
) -> None:
    archive.put(STUDY)
    archive.faults.append(Fault("/studies?", 200, answer))
    with pytest.raises(SourceUnavailable):
        list(source.inventory())
    with pytest.raises(SourceUnavailable):
        source.count([STUDY])


def test_a_list_that_keeps_vanishing_is_given_up() -> None:
    numbers = iter(range(10**9))

    def page(_offset: int, limit: int) -> list[str]:
        return [str(next(numbers)) for _ in range(limit)]

    with pytest.raises(ListMoves):
        for count, _ in enumerate(listed(page, str, OVERLAP + 5)):
            assert count < 10 * STEPS_BACK * OVERLAP


# Data partitions


def test_a_study_in_several_partitions_is_one_study(divided: SimulatedArchive, whole: DicomServer) -> None:
    divided.put(STUDY, "north", instances=2)
    divided.put(STUDY, "south", instances=2, first=3)
    divided.put(OTHER, "south", instances=1)
    assert follow(whole)[0] == {STUDY, OTHER}
    assert len(whole.read(STUDY).instances) == 4
    assert dict(whole.inventory()) == {STUDY: 4, OTHER: 1}
    assert whole.count([STUDY, OTHER]) == {STUDY: 4, OTHER: 1}


def test_the_same_instance_twice_is_one_and_all_are_counted(divided: SimulatedArchive, whole: DicomServer) -> None:
    divided.put(STUDY, "north")
    divided.put(STUDY, "south")
    found = whole.read(STUDY)
    assert (len(found.instances), found.held, found.rejected) == (2, 4, ())
    assert dict(whole.inventory()) == {STUDY: 4}


@pytest.mark.parametrize("wanted", [("north", "south"), ("south", "north"), ()])
def test_of_different_content_the_first_partition_is_believed_and_the_other_rejected(
    divided: SimulatedArchive, wanted: tuple[str, ...]
) -> None:
    divided.put(STUDY, "south", instances=1, PatientID="IN-SOUTH")
    divided.put(STUDY, "north", instances=1, PatientID="IN-NORTH")
    source = connect(divided, partitions=wanted)
    found = source.read(STUDY)
    source.close()
    first, second = wanted or ("north", "south")
    assert [h.text("PatientID") for h in found.instances] == [f"IN-{first.upper()}"]
    assert [r.key for r in found.rejected] == [f"cloud/{second}/{STUDY}.1.1"]
    assert "IN-" not in str(found.rejected)


def test_deleting_a_study_in_one_partition_leaves_the_other(divided: SimulatedArchive, whole: DicomServer) -> None:
    divided.put(STUDY, "north", instances=1)
    divided.put(STUDY, "south", instances=2)
    _, position, _ = follow(whole)
    divided.delete(STUDY, "north")
    assert follow(whole, position)[0] == {STUDY}
    assert whole.read(STUDY).held == 2


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_partitions_that_are_not_wanted_are_passed_over(divided: SimulatedArchive, version: str) -> None:
    divided.put(STUDY, "north")
    divided.put(OTHER, "south")
    source = connect(divided, version, partitions=("north",))
    named, position, _ = follow(source)
    assert named == {STUDY}
    assert follow(source, position)[0] == set()
    assert source.read(OTHER).held == 0
    assert dict(source.inventory()) == {STUDY: 2}
    assert source.count([OTHER]) == {OTHER: 0}
    source.close()


def test_a_partition_that_is_new_in_the_feed_is_read_at_once(divided: SimulatedArchive, whole: DicomServer) -> None:
    divided.put(STUDY, "north", instances=1)
    _, position, _ = follow(whole)
    assert whole.read(STUDY).held == 1
    divided.put(STUDY, "south", instances=1, first=2)
    follow(whole, position)
    assert whole.read(STUDY).held == 2


def test_partitions_switched_on_later_are_found_with_the_next_try(archive: SimulatedArchive) -> None:
    source = connect(archive)
    archive.put(STUDY, instances=1)
    assert source.read(STUDY).held == 1
    archive.partitions_enabled = True
    with pytest.raises(SourceUnavailable, match="HTTP 400"):
        source.read(STUDY)
    assert source.read(STUDY).held == 1
    source.close()


def test_a_wanted_partition_that_does_not_exist_yet_has_nothing(divided: SimulatedArchive) -> None:
    divided.put(STUDY, "north")
    source = connect(divided, partitions=("south",))
    assert source.read(STUDY).held == 0
    assert list(source.inventory()) == []
    source.close()


def test_partitions_are_asked_for_once_for_many_studies(divided: SimulatedArchive, whole: DicomServer) -> None:
    for number in range(1, 10):
        divided.put(f"1.2.5.{number}", "north", instances=1)
    follow(whole)
    for number in range(1, 10):
        whole.read(f"1.2.5.{number}")
    assert sum(path.endswith("/partitions") for path in divided.requests) == 1


@pytest.mark.parametrize("name", ["..", ".", "a/b", "", "x" * 65, "a?b"])
def test_only_a_partition_name_goes_into_an_address(divided: SimulatedArchive, whole: DicomServer, name: str) -> None:
    divided.put(STUDY)
    divided.partitions[name] = None
    with pytest.raises(SourceUnavailable, match="a name that is none"):
        whole.read(STUDY)
    assert divided.requests == ["/v2/partitions"]


@pytest.mark.parametrize("answer", [b"{}", b'["north"]', b'[{"name": "north"}]'])
def test_partitions_answered_otherwise_are_unavailable(
    divided: SimulatedArchive, whole: DicomServer, answer: bytes
) -> None:
    divided.faults.append(Fault("/partitions", 200, answer, times=1))
    with pytest.raises(SourceUnavailable, match="/partitions"):
        whole.read(STUDY)


def test_partitions_named_in_another_case_are_understood(divided: SimulatedArchive, whole: DicomServer) -> None:
    divided.put(STUDY)
    divided.faults.append(Fault("/v2/partitions", 200, b'[{"PartitionName": "Microsoft.Default"}]', times=1))
    assert whole.read(STUDY).held == 2
