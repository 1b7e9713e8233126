"""Opens the state's database: SQLite by default, PostgreSQL by URL; the same code for both."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, func, make_url, select
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError, OperationalError

from bridge.errors import ConfigError, ProjectError, StateUnavailable
from bridge.state.migrations import migrate
from bridge.state.seal import knows_checksums, seal

BUSY_TIMEOUT_MS = 30_000
_ONE_AFTER_ANOTHER = 7_296_354_180_115
"""Our own advisory lock among all those of a PostgreSQL database."""

_NO_ADDRESS = "state_url: not a database address; allowed: sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE"


class Database:
    """One database. `write()` is one transaction that no other writer interleaves; `read()` is one snapshot or less.

    Raises  ConfigError  the URL cannot be opened, or the schema is a newer program's
    """

    def __init__(self, url: str) -> None:
        self._engine = engine_of(url)
        self.sqlite = self._engine.dialect.name == "sqlite"
        # SQLite waits for its lock by sleeping, longer each time: the unlucky wait 5 s (measured), with turns 0.7 s
        self._turn: AbstractContextManager[object] = threading.Lock() if self.sqlite else nullcontext()
        try:
            with self.write() as connection:
                self.one_after_another(connection)
                migrate(connection)
                if self.sqlite:
                    seal(connection)
        except (ProjectError, DatabaseError) as error:
            self.close()
            raise _explained(error, self.sqlite) from None

    @contextmanager
    def write(self, durable: bool = True) -> Iterator[Connection]:
        """One write transaction: committed at the end, rolled back on any error.

        What is not `durable` does not wait for the disk of a PostgreSQL server: should that crash, it may be lost as
        a whole, and never without what came after it. For leases that begin or go on: the work would be begun again.
        Their ends are durable: a lease whose end was lost would be renewed by a process that knows nothing of it.
        """
        with self._turn, translated(), self._engine.begin() as connection:
            if not (durable or self.sqlite):
                connection.exec_driver_sql("SET LOCAL synchronous_commit TO off")
            yield connection

    def one_after_another(self, connection: Connection) -> None:
        """Nobody else gets past this call until the transaction ends: what the others see of it is all or nothing.

        SQLite's transactions exclude each other anyway.
        """
        if not self.sqlite:
            connection.execute(select(func.pg_advisory_xact_lock(_ONE_AFTER_ANOTHER)))

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for reading; on SQLite it never waits for a writer."""
        with translated(), self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            yield connection

    def close(self) -> None:
        self._engine.dispose()


def _explained(error: ProjectError | DatabaseError, sqlite: bool) -> ProjectError:
    """Why a database cannot be opened, where that can be said."""
    if isinstance(error, StateUnavailable):
        return ConfigError("state_url: the database cannot be opened: check the path or the server")
    if isinstance(error, ProjectError):
        return error
    if sqlite:
        return ConfigError("state_url: the database is damaged: see bridge verify; restore a backup")
    kind = type(error.orig).__name__
    return ConfigError(f"state_url: the tables there are not those of any version of this program ({kind})")


@contextmanager
def translated() -> Iterator[None]:
    """What a database does not answer now is StateUnavailable."""
    try:
        yield
    except OperationalError as error:
        raise StateUnavailable(f"state: the database cannot answer now ({type(error.orig).__name__})") from None


def sqlite_file(url: str) -> Path | None:
    """Where a SQLite database is; None for another database. Raises ConfigError for what is no address of one."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigError(_NO_ADDRESS) from None
    return Path(parsed.database) if parsed.get_backend_name() == "sqlite" and parsed.database else None


def engine_of(url: str) -> Engine:
    """Connections to a database. Raises ConfigError for what is no address of one."""
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            return _sqlite(url, parsed.database)
        return create_engine(url, isolation_level="READ COMMITTED", pool_pre_ping=True)
    except (ArgumentError, NoSuchModuleError):
        raise ConfigError(_NO_ADDRESS) from None


def _sqlite(url: str, path: str | None) -> Engine:
    if path:
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"state_url: the folder of the database cannot be made: {error.strerror}") from None
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000}, pool_size=16, max_overflow=32)

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        knows_checksums(connection)
        connection.isolation_level = None  # transactions are begun by the listener below, never by the driver
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", f"busy_timeout={BUSY_TIMEOUT_MS}"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
