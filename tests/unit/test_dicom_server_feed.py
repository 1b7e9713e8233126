from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.model import WadoEndpoint
from bridge.ports import ImagingSource
from bridge.sources import dicom_server
from bridge.sources.dicom_server import DicomServer
from bridge.sources.dicom_server_log import UNKNOWN_ACTION, ticks, time_text
from bridge.sources.dicom_server_times import RUNS, Seen
from bridge.state import State
from tests.dicom_server.archive import Fault, SimulatedArchive
from tests.dicom_server.connecting import URL, connect
from tests.feed import follow

STUDY, OTHER, THIRD = "1.2.3.1", "1.2.3.2", "1.2.3.3"


@pytest.fixture
def archive() -> SimulatedArchive:
    return SimulatedArchive()


@pytest.fixture(params=["v1", "v2"])
def source(request: pytest.FixtureRequest, archive: SimulatedArchive) -> Iterator[DicomServer]:
    source = connect(archive, request.param)
    yield source
    source.close()


@pytest.fixture
def by_sequence(archive: SimulatedArchive) -> Iterator[DicomServer]:
    source = connect(archive, "v1")
    yield source
    source.close()


@pytest.fixture
def by_time(archive: SimulatedArchive) -> Iterator[DicomServer]:
    source = connect(archive, "v2")
    yield source
    source.close()


def asked(archive: SimulatedArchive, what: str = "changefeed?") -> int:
    return sum(what in path for path in archive.requests)


def test_it_is_an_imaging_source_with_its_endpoint() -> None:
    endpoint = WadoEndpoint("cloud", f"{URL}/v2")
    source: ImagingSource = DicomServer("cloud", URL, endpoint=endpoint, poll_s=5, sweep_s=60, verify_s=7)
    assert (source.name, source.endpoint, source.poll_s, source.sweep_s) == ("cloud", endpoint, 5, 60)
    assert source.verify_s == 7


# Both ways of following


def test_an_empty_feed_is_caught_up_and_moves_nothing(source: DicomServer) -> None:
    page = source.changes(None)
    assert (page.studies, page.position, page.caught_up, page.resweep) == (frozenset(), "", True, False)


def test_the_many_entries_of_a_study_name_it_once(archive: SimulatedArchive, source: DicomServer) -> None:
    archive.put(STUDY, series=3, instances=100)
    archive.put(OTHER, instances=1)
    named, position, pages = follow(source)
    assert named == {STUDY, OTHER}
    assert len(pages) == 1
    assert follow(source, position)[0] == set()


def test_metadata_is_never_asked_of_the_feed(archive: SimulatedArchive, source: DicomServer) -> None:
    archive.put(STUDY)
    follow(source)
    assert archive.requests
    assert all("includeMetadata=false" in path for path in archive.requests)


@pytest.mark.parametrize("instances", [99, 100, 101, 199, 200, 201, 400, 401])
def test_no_length_of_the_feed_hides_its_last_entries(
    archive: SimulatedArchive, source: DicomServer, instances: int
) -> None:
    archive.put(STUDY, instances=instances)
    archive.put(OTHER, instances=1)
    assert follow(source)[0] == {STUDY, OTHER}


def test_reading_stops_and_resumes_between_any_two_answers(
    archive: SimulatedArchive, source: DicomServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicom_server, "STEPS", 1)
    for number in range(1, 8):
        archive.put(f"1.2.5.{number}", instances=90)
    named, position, pages = follow(source)
    assert named == {f"1.2.5.{number}" for number in range(1, 8)}
    assert len(pages) > 3
    assert follow(source, position)[0] == set()


def test_a_position_works_in_a_new_object(archive: SimulatedArchive, source: DicomServer) -> None:
    archive.put(STUDY)
    _, position, _ = follow(source)
    archive.put(OTHER)
    version = "v1" if '"v1"' in str(position) else "v2"
    restarted = connect(archive, version)
    assert follow(restarted, position)[0] == {OTHER}
    restarted.close()


@pytest.mark.parametrize(
    "position",
    ["", "nonsense", "[]", '{"api":"v1"}', '{"api":"v2","start":-1,"skip":"x"}', '{"api":"v1","sequence":true}', "7"],
)
def test_a_position_that_is_not_ours_starts_from_the_beginning(
    archive: SimulatedArchive, source: DicomServer, position: str
) -> None:
    archive.put(STUDY)
    assert follow(source, position)[0] == {STUDY}


def test_a_position_of_the_other_api_starts_from_the_beginning(archive: SimulatedArchive) -> None:
    archive.put(STUDY)
    old, new = connect(archive, "v1"), connect(archive, "v2")
    _, position, _ = follow(old)
    named, _, pages = follow(new, position)
    assert named == {STUDY}
    assert not any(p.resweep for p in pages)
    old.close()
    new.close()


def test_a_feed_that_fails_after_some_answers_keeps_those(archive: SimulatedArchive, source: DicomServer) -> None:
    archive.put(STUDY, instances=300)
    archive.put(OTHER, instances=1)
    where = "offset=200" if source.changes(None).position.startswith('{"api":"v1"') else "startTime=2024-03-01T09%3A03"
    archive.faults.append(Fault(where, 500))
    page = source.changes(None)
    assert page.studies == {STUDY}
    assert page.position
    assert not page.caught_up
    archive.faults.clear()
    assert follow(source, page.position)[0] >= {OTHER}


# What happened to a study is a hint only


def test_a_bulk_update_names_the_study_and_reads_its_new_patient(
    archive: SimulatedArchive, source: DicomServer
) -> None:
    """Cast's defects 1 and 7: an Update stopped it for good, and a new patient never reached the study."""
    archive.put(STUDY, instances=3)
    _, position, _ = follow(source)
    archive.update(STUDY, PatientID="NEW-ID")
    named, _, pages = follow(source, position)
    assert named == {STUDY}
    assert not any(p.rejected for p in pages)
    assert {h.text("PatientID") for h in source.read(STUDY).instances} == {"NEW-ID"}


def test_deleting_one_instance_leaves_the_others(archive: SimulatedArchive, source: DicomServer) -> None:
    """Cast's defect 4: with one instance everything known of the study went."""
    archive.put(STUDY, instances=3)
    _, position, _ = follow(source)
    archive.delete(STUDY, instance=f"{STUDY}.1.2")
    assert follow(source, position)[0] == {STUDY}
    assert {h.text("SOPInstanceUID") for h in source.read(STUDY).instances} == {f"{STUDY}.1.1", f"{STUDY}.1.3"}


def test_a_study_deleted_and_created_again_is_what_it_is_now(archive: SimulatedArchive, source: DicomServer) -> None:
    """Create, Delete, Create read back as Replaced, Replaced, Current: an old Delete must not remove the new study."""
    archive.put(STUDY, instances=2)
    archive.delete(STUDY)
    archive.put(STUDY, instances=1)
    assert [archive.state(c) for c in archive.log] == ["Replaced", "Deleted", "Replaced", "Deleted", "Current"]
    assert follow(source)[0] == {STUDY}
    assert source.read(STUDY).held == 1


def test_a_create_whose_instance_is_gone_ends_as_a_study_that_is_gone(
    archive: SimulatedArchive, source: DicomServer
) -> None:
    archive.put(STUDY)
    archive.delete(STUDY)
    assert follow(source)[0] == {STUDY}
    assert source.read(STUDY).held == 0


def test_a_study_without_a_patient_id_is_named_like_any_other(archive: SimulatedArchive, source: DicomServer) -> None:
    """Cast's defect 15: such entries were dropped."""
    archive.put(STUDY, PatientID=None)
    assert follow(source)[0] == {STUDY}
    assert source.read(STUDY).held == 2


# The form of entries


def test_names_and_choices_may_be_written_in_any_case(archive: SimulatedArchive, source: DicomServer) -> None:
    archive.pascal_case = True
    archive.put(STUDY)
    archive.update(STUDY, PatientID="NEW-ID")
    archive.delete(STUDY)
    named, position, pages = follow(source)
    assert named == {STUDY}
    assert not any(p.rejected for p in pages)
    assert follow(source, position)[0] == set()


@pytest.mark.parametrize("action", ["Merge", "", None, 7])
def test_an_action_never_heard_of_is_reported_once_and_its_studies_are_read(
    archive: SimulatedArchive, source: DicomServer, action: object
) -> None:
    archive.put(STUDY, instances=3)
    archive.put(OTHER, instances=1)
    for number in (1, 2):
        archive.entry_edits[number] = lambda entry: entry | {"action": action}
    named, position, (page,) = follow(source)
    assert named == {STUDY, OTHER}
    assert [(r.key, dict(r.evidence)) for r in page.rejected] == [(UNKNOWN_ACTION, {"sequence": 1, "entries": 2})]
    assert follow(source, position)[2][0].rejected == ()


@pytest.mark.parametrize("uid", [None, "", "not a uid", "../../v2/partitions", "1" * 65, 7, ["1.2.3"]])
def test_an_entry_without_a_usable_study_uid_is_rejected_and_the_page_goes_on(
    archive: SimulatedArchive, source: DicomServer, uid: object
) -> None:
    """One bad entry stopped Cast, or was passed over with the good ones behind it (defect 6)."""
    archive.put(STUDY, instances=1)
    archive.put(OTHER, instances=2)
    archive.entry_edits[2] = lambda entry: entry | {"studyInstanceUid": uid}
    named, position, (page,) = follow(source)
    assert named == {STUDY, OTHER}
    assert [(r.key, dict(r.evidence)) for r in page.rejected] == [("changefeed/2", {"sequence": 2})]
    assert "StudyInstanceUID" in page.rejected[0].error
    assert str(uid) == "" or str(uid) not in page.rejected[0].error
    assert follow(source, position)[2][0].rejected == ()


@pytest.mark.parametrize("entry", [None, "text", [], 7])
def test_an_entry_that_is_no_object_is_rejected_and_the_page_goes_on(
    archive: SimulatedArchive, source: DicomServer, entry: object
) -> None:
    archive.put(STUDY, instances=2)
    archive.put(OTHER, instances=1)
    archive.entry_edits[2] = lambda _entry: entry
    named, _, (page,) = follow(source)
    assert named == {STUDY, OTHER}
    assert len(page.rejected) == 1


@pytest.mark.parametrize("sequence", [None, "2", True, -2, 2**63, 1.5])
def test_an_entry_without_a_number_is_reported_and_its_study_read(
    archive: SimulatedArchive, source: DicomServer, sequence: object
) -> None:
    archive.put(STUDY, instances=1)
    archive.put(OTHER, instances=1)
    archive.put(THIRD, instances=1)
    archive.entry_edits[2] = lambda entry: entry | {"sequence": sequence}
    named, _, (page,) = follow(source)
    assert named == {STUDY, OTHER, THIRD}
    assert [r.key for r in page.rejected] == [f"changefeed/{OTHER}"]


def test_an_absurdly_high_number_does_not_carry_the_position_away(
    archive: SimulatedArchive, source: DicomServer
) -> None:
    archive.put(STUDY, instances=2)
    archive.entry_edits[1] = lambda entry: entry | {"sequence": 10**15}
    _, position, _ = follow(source)
    archive.put(OTHER)
    named, _, pages = follow(source, position)
    assert named == {OTHER}
    assert not any(p.resweep for p in pages)


def test_a_page_of_nothing_but_nonsense_does_not_hold_up_the_feed(
    archive: SimulatedArchive, source: DicomServer
) -> None:
    archive.put(STUDY, instances=250)
    archive.put(OTHER, instances=1)
    for number in range(1, 231):
        archive.entry_edits[number] = lambda _entry: {"x": 1}
    named, position, _ = follow(source)
    assert named == {STUDY, OTHER}
    archive.put(THIRD)
    assert follow(source, position)[0] == {THIRD}


# A database that was replaced


def test_a_feed_that_ends_before_the_position_means_compare_everything(
    archive: SimulatedArchive, source: DicomServer
) -> None:
    """Cast's defect 5: it never ended, and its cursor ran away."""
    archive.put(STUDY, instances=5)
    _, position, _ = follow(source)
    archive.reset()
    archive.now -= 10**12
    archive.put(OTHER, instances=1)
    page = source.changes(position)
    assert page.resweep
    assert not page.caught_up
    assert follow(source, page.position)[0] == {OTHER}


def test_a_feed_that_became_empty_means_compare_everything(archive: SimulatedArchive, source: DicomServer) -> None:
    archive.put(STUDY)
    _, position, _ = follow(source)
    archive.reset()
    page = source.changes(position)
    assert page.resweep
    named, position, pages = follow(source, page.position)
    assert (named, [p.resweep for p in pages]) == (set(), [False])


@pytest.mark.parametrize("instances", [1, 2, 3, 50])
def test_a_database_replaced_by_another_of_any_length_is_seen(
    archive: SimulatedArchive, source: DicomServer, instances: int
) -> None:
    archive.put(STUDY, instances=2)
    _, position, _ = follow(source)
    archive.reset()
    archive.put(OTHER, instances=instances)
    named, position, pages = follow(source, position)
    assert [p.resweep for p in pages].count(True) == 1
    assert named == {OTHER}
    assert follow(source, position)[2][0].resweep is False


def test_a_database_replaced_while_the_cursor_stood_in_a_gap_is_seen(
    archive: SimulatedArchive, by_sequence: DicomServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicom_server, "STEPS", 3)
    archive.put(STUDY, instances=2)
    archive.skip(1000)
    archive.put(STUDY, instances=1, first=3)
    position = by_sequence.changes(None).position
    archive.reset()
    archive.put(OTHER, instances=1100)
    page = by_sequence.changes(position)
    assert page.resweep


# By sequence number (v1)


def test_a_gap_in_the_numbers_is_crossed(archive: SimulatedArchive, by_sequence: DicomServer) -> None:
    """§1.3.1: an empty page is not the end of the feed."""
    archive.put(STUDY, instances=1)
    archive.skip(10_000)
    archive.put(OTHER, instances=1)
    named, position, pages = follow(by_sequence)
    assert named == {STUDY, OTHER}
    assert not any(p.resweep for p in pages)
    assert follow(by_sequence, position)[0] == set()


def test_the_position_never_passes_the_newest_entry(archive: SimulatedArchive, by_sequence: DicomServer) -> None:
    """Cast's defect 5: it went on beyond the end on empty pages, and missed what came there later."""
    archive.skip(250)
    archive.put(STUDY, instances=1)
    _, position, _ = follow(by_sequence)
    for number in range(1, 120):
        archive.put(f"1.2.6.{number}", instances=1)
        named, position, _ = follow(by_sequence, position)
        assert named == {f"1.2.6.{number}"}


def test_the_highest_numbers_are_asked_for_a_hundred_at_a_time(
    archive: SimulatedArchive, by_sequence: DicomServer
) -> None:
    archive.put(STUDY, instances=250)
    follow(by_sequence)
    assert [p for p in archive.requests if "changefeed?" in p] == [
        f"/v1/changefeed?offset={n}&limit=100&includeMetadata=false" for n in (0, 100, 200)
    ]


def test_an_idle_server_is_asked_one_thing_only(archive: SimulatedArchive, by_sequence: DicomServer) -> None:
    archive.put(STUDY)
    _, position, _ = follow(by_sequence)
    archive.requests.clear()
    page = by_sequence.changes(position)
    assert (page.caught_up, page.position) == (True, "")
    assert archive.requests == ["/v1/changefeed/latest?includeMetadata=false"]


# By time (v2)


def test_years_without_entries_cost_one_request(archive: SimulatedArchive, by_time: DicomServer) -> None:
    archive.put(STUDY, instances=1)
    archive.now += 10 * 365 * 86_400 * 10_000_000
    archive.put(OTHER, instances=1)
    assert follow(by_time)[0] == {STUDY, OTHER}
    assert asked(archive) == 1


def test_large_offsets_are_not_asked_for(archive: SimulatedArchive, by_time: DicomServer) -> None:
    """§1.3.5: the server skips every row of an offset; the time asked from moves on instead."""
    archive.put(STUDY, instances=1500)
    follow(by_time)
    offsets = [int(p.partition("offset=")[2].partition("&")[0]) for p in archive.requests if "changefeed?" in p]
    assert len(offsets) == 8
    assert max(offsets) <= 1


def test_hundreds_of_entries_of_one_moment_are_all_read(archive: SimulatedArchive, by_time: DicomServer) -> None:
    """A bulk update and a deletion give every instance's entry the same time."""
    archive.put(STUDY, instances=450)
    _, position, _ = follow(by_time)
    archive.update(STUDY, PatientID="NEW-ID")
    archive.put(OTHER, instances=1)
    assert follow(by_time, position)[0] == {STUDY, OTHER}


def test_the_window_never_ends_beyond_the_newest_entry(archive: SimulatedArchive, by_time: DicomServer) -> None:
    archive.put(STUDY, instances=3)
    follow(by_time)
    (path,) = (p for p in archive.requests if "changefeed?" in p)
    assert "endTime=2024-03-01T09%3A00%3A02.0000001Z" in path


@pytest.mark.parametrize("late_s", [0.5, 10, 59])
def test_an_entry_that_appears_late_among_older_ones_is_seen(
    archive: SimulatedArchive, by_time: DicomServer, late_s: float
) -> None:
    """The time of an entry is taken before it is committed: it may appear behind the position."""
    archive.put(STUDY, instances=120)
    _, position, _ = follow(by_time)
    archive.put(OTHER, instances=1, late_s=late_s)
    named, position, pages = follow(by_time, position)
    assert named == {OTHER}
    assert not any(p.resweep for p in pages)
    assert follow(by_time, position)[0] == set()


def test_an_entry_that_appears_late_is_seen_though_the_newest_stays_the_newest(
    archive: SimulatedArchive, by_time: DicomServer
) -> None:
    archive.put(STUDY, instances=1)
    archive.now += 30 * 10_000_000
    _, position, _ = follow(by_time)
    archive.put(OTHER, instances=1, late_s=35)
    assert follow(by_time, position)[0] == {OTHER}


def test_a_late_entry_is_seen_however_long_the_walk_at_the_edge_takes(
    archive: SimulatedArchive, by_time: DicomServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that is always just behind the newest entries must still go back for those committed late."""
    monkeypatch.setattr(dicom_server, "STEPS", 1)
    archive.step_s = 0.1
    archive.put(STUDY, instances=300)
    position = by_time.changes(None).position
    archive.put(OTHER, instances=1, late_s=30)
    for round_ in range(10):
        archive.put(STUDY, instances=200, first=1000 * (round_ + 1))
        position = by_time.changes(position).position
    named, position, _ = follow(by_time, position)
    assert OTHER in named | follow(by_time, position)[0]


def test_an_idle_server_is_left_alone_once_nothing_can_be_late(archive: SimulatedArchive) -> None:
    now = [archive.clock_s]
    source = connect(archive, "v2", clock=lambda: now[0])
    archive.put(STUDY, instances=5)
    _, position, _ = follow(source)
    now[0] += 30
    _, position, _ = follow(source, position)
    assert asked(archive) == 2
    now[0] += 40
    _, position, _ = follow(source, position)
    assert asked(archive) == 3
    for _ in range(3):
        page = source.changes(position)
        assert (page.caught_up, page.position) == (True, "")
    assert asked(archive) == 3
    archive.put(OTHER, instances=1)
    assert follow(source, position)[0] == {OTHER}
    source.close()


def test_one_entry_timed_in_the_far_future_hides_no_later_ones(archive: SimulatedArchive, by_time: DicomServer) -> None:
    archive.put(STUDY, instances=1, late_s=-3600 * 24 * 365)
    _, position, _ = follow(by_time)
    archive.put(OTHER, instances=1)
    named, position, _ = follow(by_time, position)
    assert named == {OTHER}
    archive.now += 3600 * 10_000_000
    archive.put(THIRD, instances=1)
    assert follow(by_time, position)[0] == {THIRD}


@pytest.mark.parametrize("off_s", [-7200.0, 7200.0])
def test_a_clock_of_ours_that_is_wrong_hides_nothing(archive: SimulatedArchive, off_s: float) -> None:
    source = connect(archive, "v2", clock=lambda: archive.clock_s + off_s)
    position: str | None = None
    for number in range(1, 20):
        archive.put(f"1.2.7.{number}", instances=1)
        archive.now += 20 * 10_000_000
        named, position, _ = follow(source, position)
        archive.put(f"1.2.8.{number}", instances=1, late_s=15)
        late, position, _ = follow(source, position)
        assert (named, late) == ({f"1.2.7.{number}"}, {f"1.2.8.{number}"})
    source.close()


def test_entries_without_a_usable_time_are_read_and_passed(archive: SimulatedArchive, by_time: DicomServer) -> None:
    archive.put(STUDY, instances=250)
    archive.put(OTHER, instances=1)
    for number in range(1, 252):
        archive.entry_edits[number] = lambda entry: entry | {"timestamp": "yesterday"}
    named, position, _ = follow(by_time)
    assert named == {STUDY, OTHER}
    archive.put(THIRD)
    named, _, pages = follow(by_time, position)
    assert named == {THIRD}
    assert not any(p.resweep for p in pages)


def test_what_was_seen_is_kept_in_few_words(archive: SimulatedArchive, by_time: DicomServer, tmp_path: Path) -> None:
    for number in range(1, 30):
        archive.put(f"1.2.9.{number}", instances=40)
    _, position, _ = follow(by_time)
    assert len(str(position)) < 400
    state = State(f"sqlite:///{tmp_path / 'state.sqlite'}")
    page = by_time.changes(None)
    state.commit_page("cloud", page, 0.0, 0.0, 0.0)
    assert follow(by_time, state.position("cloud"))[0] == set()
    state.close()


def test_numbers_seen_are_remembered_within_bounds() -> None:
    seen = Seen().with_all(range(0, 4 * RUNS, 2))
    assert len(seen.runs) == RUNS
    assert 4 * RUNS - 2 in seen
    assert 4 * RUNS - 3 not in seen
    assert 0 not in seen
    assert None not in seen


# Times


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("2020-03-04T01:03:08.4834+00:00", "2020-03-04T01:03:08.4834000Z"),
        ("2020-03-04T01:03:08.48341239Z", "2020-03-04T01:03:08.4834123Z"),
        ("2020-03-04T01:03:08-05:30", "2020-03-04T06:33:08.0000000Z"),
    ],
)
def test_times_keep_their_seven_digits(text: str, written: str) -> None:
    moment = ticks(text)
    assert moment is not None
    assert time_text(moment) == written


@pytest.mark.parametrize(
    "text", ["", "2020-03-04T01:03:08", "2020-13-04T01:03:08Z", "1969-12-31T23:59:59Z", "today", "0001-01-01T00:00:00Z"]
)
def test_what_is_no_time_with_a_zone_is_none(text: str) -> None:
    assert ticks(text) is None
