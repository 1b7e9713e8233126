"""An archive followed by C-FIND, with the ways in which archives deviate. Over real TCP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from typing import Any

import pytest

from bridge.errors import InvalidDicomValue, SourceUnavailable
from bridge.sources.dimse import Dimse
from bridge.sources.peer import Peer
from tests.dicom_files import study_bytes
from tests.dimse_fake import AE_TITLE, FakeDimse, running_fake

ROOT = "1.2.826.0.1.3680043.10.1561"
STUDY = f"{ROOT}.1"
NOON = datetime(2024, 3, 2, 12, tzinfo=UTC).timestamp()
DAY_S = 86_400


@pytest.fixture
def fake() -> Iterator[FakeDimse]:
    with running_fake() as fake:
        yield fake


class Clock:
    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def source(fake: FakeDimse, clock: Clock) -> Iterator[Callable[..., Dimse]]:
    made: list[Dimse] = []

    def make(**settings: Any) -> Dimse:
        peer = Peer("127.0.0.1", fake.port, AE_TITLE, timeout_s=10)
        made.append(Dimse("pacs", peer, clock, **({"zone": UTC} | settings)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def follow(source: Dimse, position: str | None = None) -> tuple[set[str], str]:
    named: set[str] = set()
    for _ in range(200):
        page = source.changes(position)
        named |= page.studies
        position = page.position or position
        if page.caught_up:
            return named, position or ""
    raise AssertionError("never caught up")


def put_studies(fake: FakeDimse, number: int, **attributes: Any) -> set[str]:
    uids = {f"{STUDY}.{n}" for n in range(1, number + 1)}
    for uid in uids:
        fake.put(*study_bytes(uid, instances=1, **attributes))
    return uids


def by_hour(number: int) -> str:
    return f"{number % 24:02}{number % 60:02}30"


def test_the_past_is_read_by_windows_and_then_the_last_days_are_looked_at(fake: FakeDimse, source: Any) -> None:
    for day in ("20240101", "20240115", "20240214", "20240229", "20240302"):
        fake.put(*study_bytes(f"{ROOT}.{day}", instances=1, StudyDate=day))
    pacs = source(since=date(2024, 1, 10), window_days=10)
    named, position = follow(pacs)
    assert named == {f"{ROOT}.{day}" for day in ("20240115", "20240214", "20240229", "20240302")}
    asked = [str(q.StudyDate) for q in fake.asked("STUDY")]
    assert asked[0] == "20240110-20240119"
    assert asked[-1] == "20240228-"
    fake.queries.clear()
    assert follow(pacs, position) == (set(), position)
    assert [str(q.StudyDate) for q in fake.asked("STUDY")] == ["20240228-"]


def test_studies_of_the_days_while_it_was_away_are_found(fake: FakeDimse, source: Any, clock: Clock) -> None:
    pacs = source()
    _, position = follow(pacs)
    clock.now += 20 * DAY_S
    fake.put(*study_bytes(STUDY, StudyDate="20240305"))
    fake.put(*study_bytes(f"{STUDY}.9", StudyDate="20240330"))
    assert follow(pacs, position)[0] == {STUDY, f"{STUDY}.9"}


def test_a_corrected_patient_names_the_study_again(fake: FakeDimse, source: Any) -> None:
    fake.put(*study_bytes(STUDY))
    pacs = source()
    _, position = follow(pacs)
    fake.put(*study_bytes(STUDY, PatientID="TEST-2"))
    named, position = follow(pacs, position)
    assert named == {STUDY}
    assert "TEST-2" not in position


def test_late_instances_are_seen_where_the_archive_does_not_count(fake: FakeDimse, source: Any) -> None:
    fake.omits_counts = True
    fake.put(*study_bytes(STUDY))
    pacs = source()
    _, position = follow(pacs)
    assert follow(pacs, position)[0] == set()
    fake.put(*study_bytes(STUDY, instances=1, first=3))
    assert follow(pacs, position)[0] == {STUDY}


def test_a_position_nobody_can_read_starts_again(fake: FakeDimse, source: Any) -> None:
    fake.put(*study_bytes(STUDY))
    for position in ("", "at", "at 2024-13-01 ", "seven 2024-03-01 ", "at 2024-03-01 \x00"):
        assert follow(source(), position)[0] == {STUDY}


@pytest.mark.parametrize(("status", "limit", "known"), [(0xB001, 7, 0), (0xA700, 7, 0), (0, 50, 0), (0, 7, 7)])
def test_an_answer_that_is_cut_short_is_asked_for_in_parts(
    fake: FakeDimse, source: Any, status: int, limit: int, known: int
) -> None:
    for number in range(60):
        day = f"202402{number % 5 + 10}"
        fake.put(*study_bytes(f"{STUDY}.{number}", instances=1, StudyDate=day, StudyTime=by_hour(number)))
    fake.limit, fake.limit_status = limit, status
    pacs = source(response_limit=known)
    everything = {f"{STUDY}.{number}" for number in range(60)}
    assert follow(pacs)[0] == everything
    assert {uid for uid, _ in pacs.inventory()} == everything


def test_studies_of_one_moment_are_divided_by_modality(fake: FakeDimse, source: Any) -> None:
    uids = put_studies(fake, 6)
    for number, uid in enumerate(sorted(uids)):
        fake.instances[f"{uid}.1.1"].Modality = ("CT", "MR", "US")[number % 3]
    fake.limit, fake.limit_status = 3, 0xB001
    assert {uid for uid, _ in source().inventory()} == uids


def test_studies_without_a_time_are_divided_by_modality(fake: FakeDimse, source: Any) -> None:
    uids = put_studies(fake, 6, StudyTime="")
    for number, uid in enumerate(sorted(uids)):
        fake.instances[f"{uid}.1.1"].Modality = ("CT", "MR", "US")[number % 3]
    fake.limit, fake.limit_status = 3, 0xB001
    assert {uid for uid, _ in source().inventory()} == uids


def test_an_answer_that_cannot_be_divided_is_never_taken_for_whole(fake: FakeDimse, source: Any) -> None:
    put_studies(fake, 10)
    fake.limit, fake.limit_status = 7, 0xB001
    with pytest.raises(SourceUnavailable, match="response_limit"):
        list(source().inventory())
    fake.limit_status = 0
    with pytest.raises(SourceUnavailable, match="response_limit"):
        follow(source(response_limit=7))


def test_a_round_number_of_studies_that_is_no_limit_is_taken(fake: FakeDimse, source: Any) -> None:
    uids = put_studies(fake, 50)
    pacs = source()
    with pytest.raises(SourceUnavailable, match="response_limit"):
        list(pacs.inventory())
    uids |= {f"{STUDY}.51"}
    fake.put(*study_bytes(f"{STUDY}.51", instances=1, StudyDate="20240201"))
    assert {uid for uid, _ in pacs.inventory()} == uids
    assert follow(pacs)[0] == uids


def test_an_archive_that_ignores_keys_is_filtered_here(fake: FakeDimse, source: Any) -> None:
    fake.ignores_keys = True
    fake.put(*study_bytes(STUDY, instances=2, StudyDate="20240301"))
    fake.put(*study_bytes(f"{STUDY}.9", instances=1, StudyDate="20200101"))
    pacs = source()
    named, position = follow(pacs)
    assert STUDY in named
    assert follow(pacs, position)[0] == set()
    found = pacs.read(STUDY)
    assert {h.text("SOPInstanceUID") for h in found.instances} == {f"{STUDY}.1.1", f"{STUDY}.1.2"}
    assert pacs.read("1.2.3").held == 0
    assert dict(pacs.count([STUDY, "1.2.3"])) == {STUDY: 2, "1.2.3": 0}


def test_an_archive_that_ignores_keys_and_cuts_short_is_unavailable(fake: FakeDimse, source: Any) -> None:
    fake.ignores_keys = True
    put_studies(fake, 10, StudyDate="20230101")
    fake.limit, fake.limit_status = 5, 0xB001
    with pytest.raises(SourceUnavailable, match="does not divide"):
        follow(source())
    assert len(fake.queries) < 5


def test_a_study_without_a_date_is_in_the_inventory(fake: FakeDimse, source: Any) -> None:
    fake.put(*study_bytes(STUDY, StudyDate="", StudyTime=""))
    pacs = source()
    assert dict(pacs.inventory()) == {STUDY: 2}
    assert pacs.read(STUDY).held == 2


def test_pending_without_optional_keys_is_an_answer_like_any_other(fake: FakeDimse, source: Any) -> None:
    fake.pending = 0xFF01
    fake.put(*study_bytes(STUDY))
    pacs = source()
    assert follow(pacs)[0] == {STUDY}
    assert pacs.read(STUDY).held == 2


def test_instances_are_counted_where_the_archive_does_not(fake: FakeDimse, source: Any) -> None:
    fake.omits_counts = True
    fake.put(*study_bytes(STUDY, series=2, instances=3))
    pacs = source()
    assert dict(pacs.inventory()) == {STUDY: 6}
    assert dict(pacs.count([STUDY])) == {STUDY: 6}
    assert pacs.read(STUDY).held == 6


def test_headers_are_merged_from_the_three_levels(fake: FakeDimse, source: Any) -> None:
    fake.put(*study_bytes(STUDY, instances=1, SeriesDescription="Thorax", SpecificCharacterSet="ISO_IR 192"))
    fake.instances[f"{STUDY}.1.1"].PatientName = "Müller^Jürgen"
    (headers,) = source().read(STUDY).instances
    assert headers.name("PatientName").alphabetic == "Müller^Jürgen"
    assert headers.text("SeriesDescription") == "Thorax"
    assert headers.text("SOPClassUID") == "1.2.840.10008.5.1.4.1.1.2"
    assert headers.integer("Rows") == 8
    for level, parents in (("SERIES", ["StudyInstanceUID"]), ("IMAGE", ["StudyInstanceUID", "SeriesInstanceUID"])):
        (asked,) = fake.asked(level)
        assert all(asked.get(parent) for parent in parents)


def test_fewer_instances_than_said_are_told(fake: FakeDimse, source: Any) -> None:
    fake.put(*study_bytes(STUDY, instances=4))
    fake.unlisted = {f"{STUDY}.1.2"}
    found = source().read(STUDY)
    assert len(found.instances) == 3
    (rejection,) = found.rejected
    assert rejection.evidence == {"listed": 3, "said": 4}
    assert "NumberOfSeriesRelatedInstances" in rejection.error


@pytest.mark.parametrize(
    ("status", "says"), [(0xA900, "A900"), (0xC001, "C001"), (0xFE00, "FE00: cancelled"), (0x0124, "not authorized")]
)
def test_a_failed_query_is_unavailable_and_says_how(fake: FakeDimse, source: Any, status: int, says: str) -> None:
    fake.put(*study_bytes(STUDY))
    fake.find_status = status
    pacs = source()
    for question in (lambda: pacs.changes(None), lambda: pacs.read(STUDY), lambda: list(pacs.inventory())):
        with pytest.raises(SourceUnavailable, match=says):
            question()


def test_an_association_lost_in_a_query_gives_no_part_of_the_answer(fake: FakeDimse, source: Any) -> None:
    uids = put_studies(fake, 5)
    fake.drops_after = 2
    pacs = source()
    with pytest.raises(SourceUnavailable):
        list(pacs.inventory())
    fake.drops_after = -1
    assert {uid for uid, _ in pacs.inventory()} == uids


def test_one_association_serves_many_questions_and_a_dead_one_is_replaced(fake: FakeDimse, source: Any) -> None:
    fake.put(*study_bytes(STUDY))
    pacs = source()
    for _ in range(5):
        pacs.read(STUDY)
    assert fake.associations == 1
    fake.stop()
    fake.start()
    assert pacs.read(STUDY).held == 2


def test_a_match_without_a_uid_is_rejected_and_the_others_go_on(fake: FakeDimse, source: Any) -> None:
    fake.put(*study_bytes(STUDY))
    fake.put(*study_bytes(f"{STUDY}.9"))
    fake.nameless = {f"{STUDY}.9"}
    page = source(lookback_days=1).changes(None)
    assert page.studies == {STUDY}
    (rejection,) = page.rejected
    assert "StudyInstanceUID" in rejection.error and "Test" not in rejection.error
    assert source(lookback_days=1).changes(None).rejected == page.rejected


@pytest.mark.parametrize("broken", [f"{STUDY}.1.2", f"{STUDY}.2"])
def test_an_instance_or_series_without_a_uid_does_not_stop_the_others(
    fake: FakeDimse, source: Any, broken: str
) -> None:
    fake.put(*study_bytes(STUDY, series=2, instances=2))
    fake.nameless = {broken}
    found = source().read(STUDY)
    assert {h.text("SOPInstanceUID") for h in found.instances} >= {f"{STUDY}.1.1"}
    assert len(found.instances) in (2, 3)
    assert [r.error for r in found.rejected if "InstanceUID is missing" in r.error]


def test_what_cannot_be_read_of_an_instance_does_not_stop_the_others(
    fake: FakeDimse, source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.sources.elements.MAXIMUM_VALUE_BYTES", 64)
    monkeypatch.setattr("bridge.sources.window.FIRST_BYTES", 32)  # so that a value of so few bytes lies behind it
    fake.put(*study_bytes(STUDY, instances=2))
    fake.put(*study_bytes(STUDY, instances=1, first=3, ImageType=["X" * 16] * 5))
    found = source().read(STUDY)
    assert len(found.instances) == 3
    (rejection,) = found.rejected
    assert rejection.key == f"pacs/{STUDY}.1.3"
    assert "ImageType" in rejection.error


def test_several_threads_share_a_few_associations(fake: FakeDimse, source: Any) -> None:
    uids = put_studies(fake, 12)
    pacs = source(associations=3)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(pacs.read, sorted(uids)))
    assert [f.held for f in found] == [1] * 12
    assert fake.associations <= 3


def test_what_is_not_a_uid_is_never_asked_for(fake: FakeDimse, source: Any) -> None:
    with pytest.raises(InvalidDicomValue):
        source().read("1.2.3\\1.2.4")
    assert fake.queries == []


def test_outside_its_hours_the_archive_is_left_alone(fake: FakeDimse, source: Any, clock: Clock) -> None:
    fake.put(*study_bytes(STUDY))
    pacs = source(allowed_hours="19:00-06:00")
    for question in (lambda: pacs.changes(None), lambda: pacs.read(STUDY), lambda: list(pacs.inventory())):
        with pytest.raises(SourceUnavailable, match="allowed_hours") as closed:
            question()
        assert closed.value.retry_after_s == 7 * 3600
    assert fake.associations == 0
    clock.now += 7 * 3600
    assert follow(pacs)[0] == {STUDY}


def test_an_archive_is_asked_no_faster_than_it_allows(fake: FakeDimse, source: Any) -> None:
    waited: list[float] = []
    pacs = source(maximum_queries_per_s=0.01, sleep=waited.append)
    for _ in range(3):
        pacs.read(STUDY)
    assert [round(wait_s / 100) for wait_s in waited] == [0, 1, 2]


def test_a_check_says_what_the_archive_offers(fake: FakeDimse, source: Any) -> None:
    offered = source().check()
    assert {"1.2.840.10008.1.1", "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.2"} <= offered
