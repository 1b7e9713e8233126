"""What an archive had before is read behind everything that changes now: the newest first, at a bounded rate."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from bridge.backfill_command import mark, steps
from bridge.cli import app
from bridge.errors import ConfigError, SourceUnavailable
from bridge.model import IndexedFile
from bridge.ports import BACKFILL_QUEUE, ChangePage, StudyHeaders
from bridge.sources.days import study_date
from bridge.state import State
from bridge.sync import FED_AT_ONCE
from tests.archive_fake import FakeArchive
from tests.builders import STUDY, headers
from tests.unit.test_sync import Rig

NEWEST = date(2026, 3, 1)


class DatedArchive(FakeArchive):
    """Lists by date, and remembers in which order studies were read; `breaks_after` so many it does not answer."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.order: list[str] = []
        self.days: dict[str, date | None] = {}
        self.breaks_after = 10**9

    def old(self, number: int, day: date | None) -> str:
        uid = f"{STUDY}.{number}"
        self.put(headers(study=uid), quietly=True)
        self.days[uid] = day
        return uid

    def listed(self, first: date | None, last: date | None) -> Iterator[tuple[str, date | None]]:
        for number, (uid, day) in enumerate(self.days.items()):
            if number >= self.breaks_after:
                raise SourceUnavailable("source a: down")
            if (first is None and last is None) or (day and (first or day) <= day <= (last or day)):
                yield uid, day

    def read(self, study_instance_uid: str) -> StudyHeaders:
        self.order.append(study_instance_uid)
        return super().read(study_instance_uid)


class Old(Rig):
    """An archive with a past that no sweep looks at."""

    def __init__(self, state: State) -> None:
        super().__init__(state)
        self.dated = DatedArchive("a")
        self.dated.sweep_s = 10.0**9
        self.pipeline.sources = {"a": self.dated}
        self.pipeline.prepare()
        self.run(3)

    def mark(self, first: date | None = None, last: date | None = None, *, again: bool = False) -> tuple[int, int]:
        return mark(self.state, self.dated, first, last, again=again, now=self.now)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Old]:
    state = State(f"sqlite:///{tmp_path / 's.sqlite'}")
    yield Old(state)
    state.close()


def test_the_newest_come_first_and_those_without_a_date_last(rig: Old) -> None:
    days = [NEWEST - timedelta(days=n * 37 % 400) for n in range(20)]
    dated = {rig.dated.old(n, day): day for n, day in enumerate(days)}
    undated = rig.dated.old(99, None)
    assert rig.mark() == (21, 21)
    rig.run(5)
    assert rig.dated.order == [*sorted(dated, key=lambda uid: dated[uid], reverse=True), undated]


def test_only_the_days_asked_for_are_read(rig: Old) -> None:
    uids = [rig.dated.old(n, NEWEST - timedelta(days=n)) for n in range(10)]
    assert rig.mark(NEWEST - timedelta(days=4), NEWEST - timedelta(days=2)) == (3, 3)
    rig.run(5)
    assert rig.dated.order == uids[2:5]


def test_what_changes_now_does_not_wait_for_the_backfill(rig: Old) -> None:
    for n in range(500):
        rig.dated.old(n, NEWEST)
    rig.mark()
    rig.pipeline.backfill("w")
    live = f"{STUDY}.9999"
    rig.state.mark_studies("a", [live], rig.now)
    for _ in range(FED_AT_ONCE // 4 + 2):
        rig.now += 0.1
        rig.pipeline.backfill("w")
        rig.pipeline.translate("w")
    assert live in rig.dated.order
    assert len(rig.dated.order) <= FED_AT_ONCE + 8
    assert rig.state.backfill_left("a") > 400


def test_while_many_others_are_due_nothing_of_it_is_begun(rig: Old) -> None:
    rig.dated.old(1, NEWEST)
    rig.mark()
    rig.state.mark_studies("a", [f"{STUDY}.{n}" for n in range(100, 100 + FED_AT_ONCE)], rig.now)
    assert rig.pipeline.backfill("w") == 0
    rig.run(5)
    assert rig.dated.order[-1] == f"{STUDY}.1"


def test_it_keeps_to_its_rate(rig: Old) -> None:
    for n in range(300):
        rig.dated.old(n, NEWEST)
    rig.pipeline.timing = replace(rig.pipeline.timing, backfill_per_minute=60)
    rig.mark()
    rig.run(60)
    assert 55 <= len(rig.dated.order) <= 62


def test_repeated_it_leaves_out_what_is_known_but_when_told_otherwise(rig: Old) -> None:
    for n in range(5):
        rig.dated.old(n, NEWEST)
    assert rig.mark() == (5, 5)
    assert rig.mark() == (5, 5)
    assert rig.state.backfill_left("a") == 5
    rig.run(5)
    assert rig.mark() == (5, 0)
    assert rig.mark(again=True) == (5, 5)
    rig.run(5)
    assert len(rig.dated.order) == 10


def test_interrupted_while_it_lists_it_goes_on_when_it_is_repeated(rig: Old) -> None:
    for n in range(1200):
        rig.dated.days[f"{STUDY}.{n}"] = NEWEST
    rig.dated.breaks_after = 700
    with pytest.raises(SourceUnavailable):
        rig.mark()
    assert rig.state.backfill_left("a") == 500
    rig.dated.breaks_after = 10**9
    rig.mark()
    assert rig.state.backfill_left("a") == 1200


def test_a_killed_bridge_loses_nothing_of_it(rig: Old) -> None:
    uids = {rig.dated.old(n, NEWEST) for n in range(40)}
    rig.mark()
    claimed = rig.state.claim(BACKFILL_QUEUE, rig.now, 30, 10, "dead/w")
    assert len(claimed) == 10
    rig.run(5)
    assert set(rig.dated.order) < uids
    rig.state.release_leases()
    rig.run(5)
    assert set(rig.dated.order) == uids


def test_a_sweep_leaves_what_nobody_knows_to_it(rig: Old) -> None:
    uid = rig.dated.old(1, NEWEST)
    rig.state.mark("sweep", ["a"], rig.now)
    rig.pipeline.sweep("w")
    assert [i.key for i in rig.state.items(queue=BACKFILL_QUEUE)] == [f"a/{uid}"]
    assert rig.state.items(queue="study") == []
    rig.run(5)
    assert rig.dated.order == [uid]
    assert rig.ehr.newest().keys() == {uid}


def test_its_progress_is_told_until_nothing_waits(rig: Old) -> None:
    for n in range(100):
        rig.dated.old(n, NEWEST)
    rig.mark()
    found = list(steps(rig.state, "a", 100, lambda: rig.now, lambda: rig.run(1)))
    assert [done for done, _, _ in found][-1] == 100
    assert found[-1][1] > 0
    assert found[-1][2] == 0


def test_a_source_that_cannot_list_by_date_is_listed_whole_or_not_at_all(rig: Old) -> None:
    rig.b.put(headers(study=f"{STUDY}.7"), quietly=True)
    with pytest.raises(ConfigError, match="by date"):
        mark(rig.state, rig.b, NEWEST, None, again=False, now=rig.now)
    assert mark(rig.state, rig.b, None, None, again=False, now=rig.now) == (1, 1)


def test_by_command_a_folder_is_marked_whole_and_a_mistake_is_told(tmp_path: Path) -> None:
    state = State(f"sqlite:///{tmp_path / 'state.sqlite'}")
    files = tuple(IndexedFile(f"{n}.dcm", 1, 1, f"{STUDY}.{n}", f"{STUDY}.{n}.1") for n in range(3))
    state.commit_page("inbox", ChangePage(frozenset(), "1", True, files=files), 0.0, 0, 0)

    def command(*words: str) -> Result:
        return CliRunner().invoke(app, ["backfill", *words, "--data-dir", str(tmp_path)])

    told = json.loads(command("inbox", "--json").stdout)
    assert told == {"source": "inbox", "listed": 3, "marked": 3, "waiting": 3, "parked": 0}
    assert "3 marked; 3 wait, 0 parked: bridge run works on them" in command("inbox").stdout
    assert state.backfill_left("inbox") == 3
    assert "no source of that name" in str(command("pacs").exception)
    assert "by date" in str(command("inbox", "--from", "2024-01-01").exception)
    state.close()


@pytest.mark.parametrize(
    ("text", "day"),
    [("20240301", date(2024, 3, 1)), ("2024.03.01", date(2024, 3, 1)), ("20240230", None), ("", None), ("2024", None)],
)
def test_a_study_date_is_read_leniently(text: str, day: date | None) -> None:
    assert study_date(text) == day
