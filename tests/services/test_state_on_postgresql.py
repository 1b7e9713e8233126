"""The state's own tests, and the loops', run again on PostgreSQL."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from bridge.ports import ChangePage, Claim, StudyHeaders
from bridge.state import State
from bridge.state.schema import metadata
from tests.builders import STUDY
from tests.services.postgresql import a_postgresql, fresh_database, running_postgresql
from tests.unit.test_ai_results_attached import *  # noqa: F403
from tests.unit.test_changefeed import *  # noqa: F403  (the same tests, with the fixtures below)
from tests.unit.test_export import *  # noqa: F403
from tests.unit.test_metrics import *  # noqa: F403
from tests.unit.test_notifier import *  # noqa: F403
from tests.unit.test_notifier import Rig as NotifierRig
from tests.unit.test_procedure_step import a_step
from tests.unit.test_reader_reports_sent import *  # noqa: F403
from tests.unit.test_sync import *  # noqa: F403
from tests.unit.test_sync import Rig as SyncRig
from tests.unit.test_work import *  # noqa: F403

del test_memory_does_not_grow_with_the_number_of_resources  # noqa: F821  (of Python, not of the database)
NUMBERS = count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_postgresql() as url:
        yield url


@pytest.fixture
def state(server: str) -> Iterator[State]:
    made = State(fresh_database(server, f"t{next(NUMBERS)}"))
    yield made
    made.close()


@pytest.fixture
def rig(state: State, request: pytest.FixtureRequest) -> SyncRig | NotifierRig:
    """The rig of the module that a test came from."""
    return (NotifierRig if request.function.__module__ == NotifierRig.__module__ else SyncRig)(state)


def test_a_lease_that_ended_stays_ended_when_the_server_crashes() -> None:
    """Else its process would renew it for ever, and nobody get the key."""
    with a_postgresql() as database:
        state = State(fresh_database(database.url, "crash"))
        engine = create_engine(database.url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:  # what is not durable is written when this is over, or with what is
            connection.execute(text("ALTER SYSTEM SET wal_writer_delay = '10s'"))
            connection.execute(text("SELECT pg_reload_conf()"))
        engine.dispose()
        ends: dict[str, Callable[[Claim], None]] = {
            "done": lambda claim: state.done(claim, 2.0),
            "retry": lambda claim: state.retry(claim, 2.0, 0.0, "away"),
            "reschedule": lambda claim: state.reschedule(claim, 2.0),
            "park": lambda claim: state.park(claim, 2.0, "bad", {}),
            "give back": lambda claim: state.give_back(claim.worker),
            "delivered": lambda claim: state.commit_delivered("lake", [(claim, None)], 2.0),
        }
        for name, end in ends.items():
            state.mark("q", [name], 0.0)
            (claim,) = state.claim("q", 1.0, 30.0, 1, "w")
            state.mark("q", [name], 1.5)
            end(claim)
            database.stop()
            database.start()
            (again,) = state.claim("q", 3.0, 30.0, 1, "w2")
            assert again.key == name
            state.done(again, 4.0)
        state.close()


def test_a_database_of_version_1_is_upgraded(server: str) -> None:
    url = fresh_database(server, f"t{next(NUMBERS)}")
    State(url).close()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE holding DROP COLUMN procedure_steps"))
        connection.execute(text("DROP INDEX file_instance"))
        connection.execute(text("DROP INDEX work_next"))
        connection.execute(text("CREATE INDEX work_due ON work (queue, parked, due_at)"))
        connection.execute(text("ALTER TABLE resource DROP COLUMN study_instance_uid"))
        connection.execute(text("DROP INDEX resource_version_revision"))
        connection.execute(text("DROP INDEX resource_version_type"))
        for id_ in ("a", "b", "c"):  # two of them were given one number by writers at the same time
            values = {"id": id_, "revision": 2 if id_ == "c" else 1}
            owner = "'Patient', :id, 1, 0, :revision"
            connection.execute(text(f"INSERT INTO resource VALUES ({owner}, false, '')"), values)
            connection.execute(text(f"INSERT INTO resource_version VALUES ({owner}, '{{}}')"), values)
        connection.execute(text("UPDATE setting SET value = '1' WHERE name = 'schema_version'"))
        connection.execute(text("DROP TABLE alembic_version, stored_document, model_call, document, reader_report"))
    engine.dispose()
    state = State(url)
    state.commit_page("a", ChangePage(frozenset({STUDY}), "", True), 1.0, 0, 0)
    (claim,) = state.claim("study", 2.0, 30.0, 1, "w")
    state.commit_snapshot(claim, "a", 1, StudyHeaders((), procedure_steps=(a_step(),)), 2.0)
    assert state.procedure_steps(STUDY) == {"a": (a_step(),)}
    assert state.instance_files("a", ["1.2.3"]) == {}
    assert [(c.revision, c.id) for c in state.changes(0, 10)] == [(1, "a"), (2, "b"), (3, "c")]
    assert state.latest_revision() == 3
    state.close()
    engine = create_engine(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_processes_that_start_together_make_the_tables_once(server: str) -> None:
    url = fresh_database(server, f"t{next(NUMBERS)}")
    opened = "from bridge.state import State; import sys; State(sys.argv[1]).close()"
    started = [subprocess.Popen([sys.executable, "-c", opened, url]) for _ in range(3)]
    assert [process.wait(60) for process in started] == [0, 0, 0]


def test_a_backlog_that_grew_in_seconds_is_claimed_by_the_index(state: State, server: str) -> None:
    """Nothing was gathered of the table yet: PostgreSQL takes it for small, and would read and sort all of it."""
    state.mark("study", [f"1.2.{number:06}" for number in range(20_000)], 1.0)
    assert len(state.claim("study", 2.0, 30.0, 100, "p/a")) == 100
    with state._db.read() as connection:
        looked = text("EXPLAIN SELECT key FROM work WHERE queue = 'study' AND parked IS FALSE AND due_at <= 2 "
                      "ORDER BY due_at, key LIMIT 100")  # fmt: skip
        plan = "\n".join(connection.execute(looked).scalars())
    assert "work_next" in plan and "Sort" not in plan
