"""What a DICOMweb archive names, reads and counts, each step on an archive that does as the standard says."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import date, timedelta

import pytest

from bridge.errors import ConfigError, InvalidDicomValue, SourceUnavailable
from bridge.sources import dicomweb
from bridge.sources.dicomweb import DicomWeb
from tests.dicom_files import study_bytes
from tests.dicomweb_fake import TODAY, FakeDicomWeb, Quirks, connect
from tests.feed import follow

STUDY, OTHER = "1.2.3.1", "1.2.3.2"


@pytest.fixture
def fake() -> FakeDicomWeb:
    return FakeDicomWeb()


@pytest.fixture
def source(fake: FakeDicomWeb) -> Iterator[DicomWeb]:
    source = connect(fake)
    yield source
    source.close()


class Clock:
    """Days after TODAY."""

    def __init__(self) -> None:
        self.days = 0.0

    def __call__(self) -> float:
        return TODAY.timestamp() + self.days * 86_400


def test_studies_since_lookback_are_named_oldest_first_then_the_newest(fake: FakeDicomWeb) -> None:
    source = connect(fake, lookback_days=300)
    fake.add("1.2.1", "20230401")
    fake.add("1.2.2", "20230508")
    fake.add("1.2.3", "20240229")
    fake.add("1.2.4", "20240302")
    fake.add("1.2.5", "20380101")
    named, _, pages = follow(source)
    assert named == {"1.2.2", "1.2.3", "1.2.4", "1.2.5"}
    assert [sorted(p.studies) for p in pages if p.studies] == [["1.2.2"], ["1.2.3"], ["1.2.4", "1.2.5"]]
    source.close()


def test_each_day_is_asked_for_once_on_the_way_to_today(fake: FakeDicomWeb) -> None:
    source = connect(fake, lookback_days=40)
    follow(source)
    asked = [r.partition("StudyDate=")[2].partition("&")[0] for r in fake.requests]
    assert asked == ["20240122-20240129", "20240130-20240214", "20240215-20240229", "20240301-"]
    source.close()


def test_steps_grow_where_there_is_little_and_shrink_where_there_is_much(fake: FakeDicomWeb) -> None:
    source = connect(fake, lookback_days=60, page_size=40)
    for day in range(20):
        for n in range(15):
            fake.add(f"1.2.{day}.{n}", f"{date(2024, 1, 2) + timedelta(days=day):%Y%m%d}")
    position: str | None = None
    widths = []
    for _ in range(8):
        position = source.changes(position).position or position
        widths.append(json.loads(position or "")["width_days"])
    assert widths == [4, 2, 2, 2, 2, 2, 4, 8]
    source.close()


@pytest.mark.parametrize(
    "change",
    [
        {"00100020": {"vr": "LO", "Value": ["P2"]}},
        {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "Other^Name"}]}},
        {"00080050": {"vr": "SH", "Value": ["A2"]}},
        {"00081030": {"vr": "LO", "Value": ["MR of a phantom"]}},
        {"00080060": {"vr": "CS", "Value": ["MR"]}},
        {"00080020": {"vr": "DA", "Value": ["20240302"]}},
    ],
)
def test_a_study_is_named_again_when_it_looks_different(
    fake: FakeDicomWeb, source: DicomWeb, change: dict[str, dict[str, object]]
) -> None:
    fake.add(STUDY)
    fake.add(OTHER)
    _, position, _ = follow(source)
    fake.held[STUDY][f"{STUDY}.1"][f"{STUDY}.1.1"].update(change)
    assert follow(source, position)[0] == {STUDY}


def test_a_new_study_a_late_instance_and_a_deletion_are_named(fake: FakeDicomWeb, source: DicomWeb) -> None:
    for study in (STUDY, OTHER, "1.2.3.3"):
        fake.add(study)
    _, position, _ = follow(source)
    fake.add(STUDY, first=2)
    fake.delete(OTHER)
    fake.add("1.2.3.4", "20240302")
    named, position, _ = follow(source, position)
    assert named == {STUDY, OTHER, "1.2.3.4"}
    assert follow(source, position)[0] == set()


def test_an_idle_poll_leaves_the_position_and_asks_little(fake: FakeDicomWeb, source: DicomWeb) -> None:
    for n in range(30):
        fake.add(f"1.2.3.{n}")
    _, position, _ = follow(source)
    fake.requests.clear()
    page = source.changes(position)
    assert (page.studies, page.position, page.caught_up) == (frozenset(), "", True)
    assert len(fake.requests) == 2


def test_days_move_on_and_nothing_of_them_is_lost_or_named_twice(fake: FakeDicomWeb) -> None:
    clock = Clock()
    source = connect(fake, clock=clock)
    fake.add("1.2.1", "20240301")
    _, position, _ = follow(source)
    for day, study_date in enumerate(("20240302", "20240303", "20240304", "20240310"), start=1):
        clock.days = day
        fake.add(f"1.2.9.{day}", study_date)
        fake.add(f"1.2.8.{day}", f"{date(2024, 3, 1) + timedelta(days=day):%Y%m%d}")
        named, position, _ = follow(source, position)
        assert named == {f"1.2.9.{day}", f"1.2.8.{day}"}
        assert follow(source, position)[0] == set()
    source.close()


def test_after_a_long_rest_the_days_between_are_looked_at(fake: FakeDicomWeb) -> None:
    clock = Clock()
    source = connect(fake, clock=clock)
    _, position, _ = follow(source)
    clock.days = 30
    fake.add("1.2.1", "20240305")
    fake.add("1.2.2", "20240330")
    assert follow(source, position)[0] == {"1.2.1", "1.2.2"}
    source.close()


def test_a_clock_that_was_wrong_by_years_hides_nothing(fake: FakeDicomWeb) -> None:
    clock = Clock()
    source = connect(fake, clock=clock)
    clock.days = 3000
    _, position, _ = follow(source)
    clock.days = 0
    fake.add("1.2.1", "20240302")
    assert follow(source, position)[0] == {"1.2.1"}
    source.close()


def test_a_position_that_is_not_ours_is_the_start(fake: FakeDicomWeb, source: DicomWeb) -> None:
    fake.add(STUDY)
    for position in (
        "nonsense",
        "[]",
        '{"day": 3}',
        '{"day": "2024-03-01", "seen": "!"}',
        '{"day": "2024-03-01", "seen": 4}',
    ):
        assert follow(source, position)[0] == {STUDY}


def test_a_position_holds_nothing_of_a_patient_and_is_small(fake: FakeDicomWeb, source: DicomWeb) -> None:
    for n in range(500):
        fake.add(f"1.2.826.0.1.3680043.10.1561.{n}.{n * n}.20240301")
    _, position, _ = follow(source)
    assert position is not None
    assert len(position) < 500 * 40
    for seen in dicomweb.Position.parse(position).seen.values():  # type: ignore[union-attr]
        assert len(seen.fingerprint) == 12
    assert "Test" not in position


def test_too_many_studies_to_remember_are_told(
    fake: FakeDicomWeb, source: DicomWeb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicomweb, "REMEMBERED", 3)
    for n in range(4):
        fake.add(f"1.2.3.{n}")
    with pytest.raises(SourceUnavailable, match="lower overlap_days"):
        follow(source)


def test_studies_before_since_are_left_alone(fake: FakeDicomWeb) -> None:
    source = connect(fake, since=date(2024, 2, 1))
    fake.add("1.2.1", "20240131")
    fake.add("1.2.2", "20240201")
    fake.add("1.2.3", "20240301")
    assert follow(source)[0] == {"1.2.2", "1.2.3"}
    assert dict(source.inventory()) == {"1.2.2": 1, "1.2.3": 1}
    source.close()


def test_since_may_be_today_or_later(fake: FakeDicomWeb) -> None:
    source = connect(fake, since=date(2024, 3, 2))
    fake.add("1.2.1", "20240301")
    fake.add("1.2.2", "20240302")
    named, position, _ = follow(source)
    assert named == {"1.2.2"}
    assert follow(source, position)[0] == set()
    source.close()


def test_a_search_result_without_a_uid_is_rejected_and_the_others_stand(fake: FakeDicomWeb, source: DicomWeb) -> None:
    fake.add(STUDY)
    fake.add("../../etc")
    fake.add("1.2.3 OR 1=1")
    named, _, pages = follow(source)
    assert named == {STUDY}
    assert len(pages[-1].rejected) == 2
    assert {r.error for r in pages[-1].rejected} == {
        "StudyInstanceUID is missing or not a UID in the archive's list of studies"
    }
    assert dict(source.inventory()) == {STUDY: 1}


def test_what_is_no_uid_is_not_asked_for(fake: FakeDicomWeb, source: DicomWeb) -> None:
    for step in (source.read, lambda uid: source.count([uid])):
        with pytest.raises(InvalidDicomValue, match="StudyInstanceUID"):
            step("1.2.3,4?x=y/../..")
    assert fake.requests == []


def test_studies_without_a_date_are_in_the_inventory(fake: FakeDicomWeb, source: DicomWeb) -> None:
    fake.add(STUDY, None, instances=2)
    fake.add(OTHER, "1811.05.04", instances=3)
    assert dict(source.inventory()) == {STUDY: 2, OTHER: 3}


def test_no_address_of_an_answer_is_followed(fake: FakeDicomWeb, source: DicomWeb) -> None:
    for content in study_bytes(STUDY, instances=2):
        fake.store(content)
    follow(source)
    source.read(STUDY)
    list(source.inventory())
    assert all(r.startswith("/studies") for r in fake.requests)


def test_prefixes_stand_before_searches_and_reading(fake: FakeDicomWeb) -> None:
    source = connect(fake, qido_prefix="/qido-rs/", wado_prefix="wado-rs")
    for step in (lambda: source.changes(None), lambda: source.read(STUDY)):
        with pytest.raises(SourceUnavailable, match="qido_prefix"):
            step()
    assert fake.requests[0].startswith("/qido-rs/studies?")
    assert any(r.startswith("/wado-rs/studies/") for r in fake.requests)
    source.close()


@pytest.mark.parametrize(
    "wrong", [{"overlap_days": 0}, {"page_size": 0}, {"lookback_days": -1}, {"lookback_days": 10**9}]
)
def test_settings_that_cannot_work_stop_at_once(fake: FakeDicomWeb, wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        connect(fake, **wrong)


def test_many_counts_take_few_requests(fake: FakeDicomWeb, source: DicomWeb) -> None:
    uids = [f"1.2.3.{n}" for n in range(120)]
    for n, uid in enumerate(uids):
        fake.add(uid, instances=n % 3 + 1)
    counts = source.count(uids)
    assert dict(counts) == fake.truth()
    assert len(fake.requests) == 3


HISTORIES = [
    Quirks(),
    Quirks(cap=7, newest_first=True),
    Quirks(ignores_offset=True, ignores_limit=True, ignores_dates=True),
    Quirks(ignores_offset=True, too_broad=60, none_is=204),
    Quirks(omits_counts=True, none_is=200),
    Quirks(omits_counts=True, omits_series_counts=True, takes_no_lists=True, duplicates=True),
    Quirks(omits_dates=True, warns=True, metadata_levels=("series",)),
]


@pytest.mark.parametrize("quirks", HISTORIES, ids=repr)
@pytest.mark.parametrize("seed", range(2))
def test_any_history_ends_true(quirks: Quirks, seed: int) -> None:
    """Others store, add to, correct and delete recent studies while the bridge polls; what was named is read again.
    In the end what was read is what the archive holds."""
    chance = random.Random(f"{seed}")
    fake, clock = FakeDicomWeb(quirks), Clock()
    source = connect(fake, clock=clock, page_size=15, lookback_days=20)
    fake.add("1.2.0", "20240220")
    known: dict[str, int] = {}
    position: str | None = None
    for _ in range(40):
        clock.days += chance.choice((0, 0, 0, 0.4))
        today = TODAY.date() + timedelta(days=int(clock.days))
        for _ in range(chance.randrange(4)):
            uid = f"1.2.3.{chance.randrange(60)}"
            if uid in fake.held and chance.random() < 0.3:
                fake.delete(uid)
            elif uid in fake.held:
                fake.add(uid, _study_date(fake, uid), first=chance.randrange(1, 9))
            else:
                fake.add(uid, f"{today - timedelta(days=chance.randrange(2)):%Y%m%d}")
        page = source.changes(position)
        position = page.position or position
        known |= {uid: source.read(uid).held for uid in page.studies}
    named, position, _ = follow(source, position)
    known |= {uid: source.read(uid).held for uid in named}
    counted = source.count(sorted(known | fake.held))
    known |= {uid: source.read(uid).held for uid, n in counted.items() if known.get(uid, 0) != n}
    assert {uid: held for uid, held in known.items() if held} == fake.truth() == dict(source.inventory())
    source.close()


def _study_date(fake: FakeDicomWeb, uid: str) -> str:
    first = next(i for series in fake.held[uid].values() for i in series.values())
    return str(first["00080020"]["Value"][0])
