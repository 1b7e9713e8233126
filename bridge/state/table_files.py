"""The state of a PostgreSQL as files, all of it as it is at one moment, and back into an empty database.

    FOLDER/TABLE-DIGEST.copy.gz     what COPY writes of a table, its text format; a digest of the file is in its name

One transaction reads all tables (REPEATABLE READ), so whoever writes meanwhile goes on, and nothing of it is seen by
halves. COPY and not pg_dump: that is a program of its own, refuses a server newer than itself, and needs the password.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, func, inspect, select, text

from bridge.errors import ConfigError, StateUnavailable
from bridge.state.database import engine_of, translated
from bridge.state.migrations import NEWEST, found, upgrade
from bridge.state.schema import metadata

TABLES = "state"
"""The folder of them in a backup."""

_NAME = re.compile(r"[a-z_]+-([0-9a-f]{32})\.copy\.gz")
_BLOCK = 1_048_576
_NOT_WHOLE = "the backup's tables are not those of its schema: it is not whole"


@dataclass(frozen=True)
class TableFile:
    """One table: its columns in the order of the file, how many rows, the file's name."""

    table: str
    columns: tuple[str, ...]
    rows: int
    file: str


@dataclass(frozen=True)
class Dump:
    """All tables, of one revision of the schema."""

    revision: str
    tables: tuple[TableFile, ...]

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Dump:
        """As `dataclasses.asdict` has it. Raises ConfigError for anything else."""
        try:
            tables = tuple(TableFile(t["table"], tuple(t["columns"]), t["rows"], t["file"]) for t in plain["tables"])
            return cls(str(plain["revision"]), tables)
        except (KeyError, TypeError):
            raise ConfigError(_NOT_WHOLE) from None


def dump(url: str, folder: Path) -> Dump:
    """Writes every table of the state into the folder, on disk when this returns.

    Raises  ConfigError  there is no state, or it is a newer program's
            StateUnavailable  the database does not answer
    """
    options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with _connected(url) as connection:
        connection = connection.execution_options(**options)
        revision = found(connection)
        if not revision:
            raise ConfigError("state_url: no state in that database: has `bridge run` been started with it?")
        if revision > NEWEST:
            raise ConfigError("state_url: the database is a newer program's: back it up with that")
        there = set(inspect(connection).get_table_names())
        tables = [table for table in metadata.sorted_tables if table.name in there]
        return Dump(revision, tuple(_written(connection, table, folder) for table in tables))


def load(url: str, folder: Path, dumped: Dump) -> None:
    """Makes the tables in a database that has none and fills them: all of it or nothing.

    Raises  ConfigError  the database has tables, or files are missing, damaged, or a newer program's
            StateUnavailable  the database does not answer
    """
    if not re.fullmatch(r"\d{4}", dumped.revision) or dumped.revision > NEWEST:
        raise ConfigError("the backup was made by a newer program: use that")
    files = {one.file for one in dumped.tables}
    if files != {name for name, problem in checked(folder) if not problem}:
        raise ConfigError("the backup's tables are damaged, or files are missing: see bridge verify")
    with _connected(url) as connection:
        _check_empty(connection)
        upgrade(connection, dumped.revision)
        made = inspect(connection)
        if {one.table for one in dumped.tables} != set(made.get_table_names()) & set(metadata.tables):
            raise ConfigError(_NOT_WHOLE)
        for one in dumped.tables:
            if set(one.columns) != {column["name"] for column in made.get_columns(one.table)}:
                raise ConfigError(_NOT_WHOLE)
            _read(connection, metadata.tables[one.table], one, folder)
        connection.commit()


def must_be_empty(url: str) -> None:
    """Raises ConfigError when the database has tables, StateUnavailable when it does not answer."""
    with _connected(url) as connection:
        _check_empty(connection)


def checked(folder: Path) -> Iterator[tuple[str, str]]:
    """(name, why it is not what was written, or "") of every table's file in a folder."""
    for path in sorted(folder.glob("*.copy.gz")):
        said = _NAME.fullmatch(path.name)
        fine = said is not None and _digest(path) == said[1]
        yield path.name, "" if fine else "its content is not what its name says"


def _check_empty(connection: Connection) -> None:
    if inspect(connection).get_table_names():
        raise ConfigError("state_url: there are tables in that database already: name an empty one")


def _written(connection: Connection, table: Table, folder: Path) -> TableFile:
    columns = [column["name"] for column in inspect(connection).get_columns(table.name)]
    part = folder / f"{table.name}.part"
    with part.open("xb") as file:
        os.fchmod(file.fileno(), 0o600)
        with gzip.GzipFile("", "wb", 1, file, 0) as packed, _cursor(connection) as cursor:
            with cursor.copy(f"COPY {_shape(connection, table, columns)} TO STDOUT") as rows:
                for block in rows:
                    packed.write(block)
            count = cursor.rowcount
        file.flush()
        os.fsync(file.fileno())
    path = part.replace(folder / f"{table.name}-{_digest(part)}.copy.gz")
    return TableFile(table.name, tuple(columns), count, path.name)


def _read(connection: Connection, table: Table, one: TableFile, folder: Path) -> None:
    """Instead of what making the tables put there; numbers that a table gives go on after the last."""
    connection.execute(table.delete())
    with _cursor(connection) as cursor, gzip.open(folder / one.file) as packed:
        with cursor.copy(f"COPY {_shape(connection, table, one.columns)} FROM STDIN") as rows:
            while block := packed.read(_BLOCK):
                rows.write(block)
        if cursor.rowcount != one.rows:
            raise ConfigError(_NOT_WHOLE)
    for column in table.columns:
        if column.autoincrement is True:
            last = select(func.coalesce(func.max(column), 0) + 1).scalar_subquery()
            sequence = func.pg_get_serial_sequence(table.name, column.name)
            connection.execute(select(func.setval(sequence, last, text("false"))))


def _shape(connection: Connection, table: Table, columns: Sequence[str]) -> str:
    quote = connection.dialect.identifier_preparer.quote_identifier
    return f"{quote(table.name)} ({', '.join(map(quote, columns))})"


@contextmanager
def _connected(url: str) -> Iterator[Connection]:
    """A connection whose transaction is rolled back unless it is committed."""
    engine = engine_of(url)
    try:
        with translated(), engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


@contextmanager
def _cursor(connection: Connection) -> Iterator[Any]:
    """One of psycopg's own, for COPY; the driver's errors quote rows, so their kind alone is told."""
    driver: Any = connection.connection.driver_connection
    try:
        with driver.cursor() as cursor:
            yield cursor
    except connection.dialect.loaded_dbapi.Error as error:
        raise StateUnavailable(f"state: a table cannot be copied ({type(error).__name__})") from None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]
