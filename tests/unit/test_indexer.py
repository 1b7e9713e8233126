from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.errors import SourceUnavailable, StateUnavailable
from bridge.model import IndexedFile, Rejection
from bridge.ports import ChangePage
from bridge.sources.indexer import Indexer
from tests.builders import STUDY, a_dataset
from tests.unit.test_receiver import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def stumble(*_: object) -> None:
    raise ValueError("Test^Eva")


def look(rig: Rig) -> None:
    """A look at all of the spool, as the poll of this source does it."""
    while not (page := rig.receiver.changes(rig.state.position("rx"))).caught_up:
        rig.state.commit_page("rx", page, 1.0, 0, 0)


def test_objects_that_meet_a_bug_of_the_index_wait_for_the_next_look_and_later_ones_are_indexed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    look(rig)
    first, second = a_dataset(instance=1), a_dataset(instance=2)
    with monkeypatch.context() as patched:
        patched.setattr(rig.state, "commit_page", stumble)
        assert rig.send(first) == [0]
    assert rig.send(second) == [0]
    assert len(rig.receiver.read(STUDY).instances) == 1
    with pytest.raises(SourceUnavailable, match="not indexed yet"):
        rig.receiver.instance_files([first.SOPInstanceUID])
    look(rig)
    assert len(rig.receiver.read(STUDY).instances) == 2
    assert set(rig.receiver.instance_files([first.SOPInstanceUID])) == {first.SOPInstanceUID}
    assert "unexpected ValueError at test_indexer.py:" in caplog.text
    assert "Test^Eva" not in caplog.text


def test_what_was_quarantined_while_the_index_met_a_bug_is_parked_at_the_next_look(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(rig.state, "commit_page", stumble)
        assert rig.send(a_dataset(StudyInstanceUID=None)) == [0xC000]
    assert rig.parked() == []
    look(rig)
    (error,) = rig.parked()
    assert error.startswith("StudyInstanceUID")


class Database:
    """Takes entries once it answers, but for one that always meets a bug."""

    def __init__(self) -> None:
        self.answers, self.taken = True, list[str]()

    def store(self, page: ChangePage) -> None:
        if not self.answers:
            raise StateUnavailable("state: the database cannot answer now")
        keys = [r.key for r in page.rejected] + [f.path for f in page.files]
        if "broken" in keys:
            raise ValueError
        self.taken += keys


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def indexer(database: Database) -> Iterator[Indexer]:
    made = Indexer("rx", database.store, lambda _stage: None)
    yield made
    made.stop()


def test_a_rejection_that_meets_a_bug_again_and_again_holds_up_no_other(database: Database, indexer: Indexer) -> None:
    for key in ("broken", "one", "two"):
        indexer.add(Rejection(key, "no use"))
    indexer.start()
    assert indexer.settled(10)
    assert database.taken == []
    database.answers = False
    with pytest.raises(StateUnavailable):
        indexer.commit_left()
    database.answers = True
    for _ in range(2):
        indexer.commit_left()
    assert sorted(database.taken) == ["one", "two"]


def test_what_the_database_would_not_take_before_the_end_counts_as_left(database: Database, indexer: Indexer) -> None:
    database.answers = False
    indexer.add(IndexedFile("a.dcm", 1, 1, STUDY, "1.2.3"))
    indexer.add(Rejection("one", "no use"))
    indexer.start()
    indexer.stop()
    assert indexer.left == 1
    database.answers = True
    indexer.commit_left()
    assert database.taken == ["one"]
