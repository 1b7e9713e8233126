from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from bridge.errors import ConfigError
from bridge.ports import ChangePage, StudyHeaders
from bridge.state import State
from bridge.state.migrations import STEPS
from bridge.state.schema import SCHEMA_VERSION
from tests.builders import STUDY, headers
from tests.unit.test_procedure_step import a_step


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A database as the program wrote it when its tables had version 1: one study of one instance."""
    path = tmp_path / "s.sqlite"
    with sqlite3.connect(path) as connection:
        connection.executescript(Path(__file__).with_name("state_version_1.sql").read_text("utf-8"))
    connection.close()
    return path


def shape(path: Path) -> set[tuple[str, ...]]:
    """Every table with its columns, every index with its columns."""
    with sqlite3.connect(path) as connection:
        names = connection.execute("select type, name from sqlite_master where name not like 'sqlite_%'").fetchall()
        found = {
            (kind, name, *(str(row[1:4]) for row in connection.execute(f"pragma {kind}_info({name})")))
            for kind, name in names
        }
    connection.close()
    return found


def test_an_old_database_becomes_what_a_new_one_is_and_keeps_what_it_holds(old: Path, tmp_path: Path) -> None:
    State(f"sqlite:///{tmp_path / 'new.sqlite'}").close()
    state = State(f"sqlite:///{old}")
    assert shape(old) == shape(tmp_path / "new.sqlite")
    assert state.snapshots(STUDY) == {"a": (headers(),)}
    assert (state.position("a"), list(state.held("a"))) == ("7", [(STUDY, 1)])
    assert state.procedure_steps(STUDY) == {}
    state.commit_snapshot("a", STUDY, 2, StudyHeaders((headers(),), 1, procedure_steps=(a_step(),)), 3.0)
    assert state.procedure_steps(STUDY) == {"a": (a_step(),)}
    state.close()


def test_revisions_that_were_given_twice_become_one_order(old: Path) -> None:
    uid = f"urn:oid:{STUDY}"
    rows = [("Patient", "a", 1, 1), ("ImagingStudy", "b", 1, 1), ("Patient", "a", 2, 2), ("Patient", "c", 1, 2)]
    with sqlite3.connect(old) as connection:
        for kind, id_, version, revision in rows:
            row = (kind, id_, version, 5.0, revision)
            connection.execute("insert into resource_version values (?, ?, ?, ?, ?, '{}')", row)
            connection.execute("insert or replace into resource values (?, ?, ?, ?, ?, 0, '')", row)
        connection.execute(
            "insert into resource_index values ('ImagingStudy', 'b', 'identifier', 'urn:dicom:uid', ?, null, null)",
            [uid],
        )
    connection.close()
    state = State(f"sqlite:///{old}")
    found = [(c.revision, c.id, c.version, c.study_instance_uid) for c in state.changes(0, 9)]
    assert found == [(1, "b", 1, STUDY), (2, "a", 1, ""), (3, "a", 2, ""), (4, "c", 1, "")]
    newest = state.read_resource("Patient", "a")
    assert newest is not None
    assert (newest.version, newest.revision) == (2, 3)
    state.close()


def test_opening_twice_upgrades_once(old: Path) -> None:
    for _ in range(2):
        State(f"sqlite:///{old}").close()
    with sqlite3.connect(old) as connection:
        (version,) = connection.execute("select value from setting where name = 'schema_version'").fetchone()
    connection.close()
    assert version == str(SCHEMA_VERSION)


def test_a_step_that_fails_leaves_the_old_database_as_it_was(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = shape(old)
    broken = {1: (STEPS[1][0], "CREATE INDEX file_study ON file (source)")}
    with monkeypatch.context() as patched, pytest.raises(ConfigError):
        patched.setattr("bridge.state.migrations.STEPS", broken)
        State(f"sqlite:///{old}")
    assert shape(old) == before
    State(f"sqlite:///{old}").close()
    assert shape(old) != before


def test_there_is_a_step_from_every_version() -> None:
    assert sorted(STEPS) == list(range(1, SCHEMA_VERSION))


def test_a_newer_programs_database_is_left_alone(old: Path) -> None:
    with sqlite3.connect(old) as connection:
        connection.execute("update setting set value = '99' where name = 'schema_version'")
    connection.close()
    with pytest.raises(ConfigError, match="newer program"):
        State(f"sqlite:///{old}")


def test_a_source_that_forgets_its_steps_has_none(tmp_path: Path) -> None:
    state = State(f"sqlite:///{tmp_path / 's.sqlite'}")
    state.commit_page("a", ChangePage(frozenset({STUDY}), "", True), 1.0, 0, 0)
    state.commit_snapshot("a", STUDY, 1, StudyHeaders((), procedure_steps=(a_step(),)), 2.0)
    assert state.procedure_steps(STUDY) == {"a": (a_step(),)}
    assert state.snapshots(STUDY) == {}
    assert list(state.held("a")) == []
    state.commit_snapshot("a", STUDY, 2, StudyHeaders(()), 3.0)
    assert state.procedure_steps(STUDY) == {}
    state.close()
