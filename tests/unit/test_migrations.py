from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from bridge.errors import ConfigError
from bridge.ports import ChangePage, StudyHeaders
from bridge.state import State, migrations
from bridge.state.migrations import NEWEST
from bridge.state.schema import metadata
from bridge.state.seal import knows_checksums
from tests.builders import STUDY, headers
from tests.unit.test_procedure_step import a_step
from tests.unit.test_sync import Rig as SyncRig


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
    state.mark("study", [STUDY], 2.0)
    (claim,) = state.claim("study", 3.0, 30.0, 1, "w")
    state.commit_snapshot(claim, "a", 2, StudyHeaders((headers(),), 1, procedure_steps=(a_step(),)), 3.0)
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
        found = connection.execute("select version_num from alembic_version").fetchall()
        counted = connection.execute("select value from setting where name = 'schema_version'").fetchall()
    connection.close()
    assert (found, counted) == ([(NEWEST,)], [("4",)])


def test_a_revision_that_fails_leaves_the_old_database_as_it_was(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = shape(old)
    with monkeypatch.context() as patched, pytest.raises(ZeroDivisionError):
        patched.setattr("pathlib.Path.read_text", lambda *_: 1 / 0)  # after the steps of version 1 to 3
        State(f"sqlite:///{old}")
    assert shape(old) == before
    State(f"sqlite:///{old}").close()
    assert shape(old) != before


def test_the_revisions_make_what_the_program_says_its_tables_are(tmp_path: Path) -> None:
    State(f"sqlite:///{tmp_path / 'new.sqlite'}").close()
    engine = create_engine(f"sqlite:///{tmp_path / 'new.sqlite'}")
    with engine.connect() as connection:
        seals = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE name LIKE 'sealed_%'").scalars().all()
        assert len(seals) == len(metadata.tables)
        for name in seals:  # SQLAlchemy cannot compare indexes on expressions
            connection.exec_driver_sql(f"DROP INDEX {name}")
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_revisions_follow_one_another_by_number() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    found = [one.revision for one in ScriptDirectory.from_config(config).walk_revisions()]
    assert found == [f"{n:04}" for n in range(int(NEWEST), 3, -1)]


def as_a_newer_program_leaves_it(path: Path, oldest_program: int) -> None:
    """One revision more: a column, a table and an index, as revisions may add them."""
    with sqlite3.connect(path) as connection:
        knows_checksums(connection)
        connection.execute("alter table work add column priority integer")
        connection.execute("alter table resource add column source varchar not null default ''")
        connection.execute("create table later (id varchar primary key)")
        connection.execute("create index work_priority on work (priority)")
        connection.execute("update alembic_version set version_num = '0099'")
        connection.execute("update setting set value = ? where name = 'oldest_program'", [str(oldest_program)])
    connection.close()


def test_a_program_goes_on_while_and_after_a_newer_one_added_to_the_tables(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    running = SyncRig(State(f"sqlite:///{path}"))
    running.a.put(headers(study=f"{STUDY}.1"))
    running.run()
    as_a_newer_program_leaves_it(path, 4)
    running.a.put(headers(study=f"{STUDY}.2"))
    running.run()
    running.state.close()
    before = shape(path)
    again = SyncRig(State(f"sqlite:///{path}"))
    again.now, again.a = running.now, running.a
    again.pipeline.sources = {"a": again.a}
    again.a.put(headers(study=f"{STUDY}.3"))
    again.run()
    assert [again.state.held_of("a", [f"{STUDY}.{n}"]) for n in (1, 2, 3)] == [{f"{STUDY}.{n}": 1} for n in (1, 2, 3)]
    assert len(again.ehr.newest()) == 1
    again.state.close()
    assert shape(path) == before


def test_a_program_that_knows_no_checksums_is_told_not_to_write(tmp_path: Path) -> None:
    State(f"sqlite:///{tmp_path / 's.sqlite'}").close()
    with sqlite3.connect(tmp_path / "s.sqlite") as connection:
        (oldest,) = connection.execute("select value from setting where name = 'oldest_program'").fetchone()
        with pytest.raises(sqlite3.OperationalError, match="row_checksum"):
            connection.execute("update setting set value = value")
    connection.close()
    assert oldest == "7"


def test_a_newer_programs_database_that_this_one_cannot_work_with_is_left_alone(old: Path) -> None:
    State(f"sqlite:///{old}").close()
    as_a_newer_program_leaves_it(old, 99)
    before = shape(old)
    with pytest.raises(ConfigError, match="newer program"):
        State(f"sqlite:///{old}")
    assert shape(old) == before


def test_a_source_that_forgets_its_steps_has_none(tmp_path: Path) -> None:
    state = State(f"sqlite:///{tmp_path / 's.sqlite'}")
    state.commit_page("a", ChangePage(frozenset({STUDY}), "", True), 1.0, 0, 0)
    (claim,) = state.claim("study", 2.0, 30.0, 1, "w")
    state.commit_snapshot(claim, "a", 1, StudyHeaders((), procedure_steps=(a_step(),)), 2.0)
    assert state.procedure_steps(STUDY) == {"a": (a_step(),)}
    assert state.snapshots(STUDY) == {}
    assert list(state.held("a")) == []
    state.commit_snapshot(claim, "a", 2, StudyHeaders(()), 3.0)
    assert state.procedure_steps(STUDY) == {}
    state.close()
