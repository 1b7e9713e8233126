"""Finds what changed in a SQLite file by itself: a checksum of every row, kept and checked by SQLite.

SQLite's own check finds pages and indexes that make no sense, not a value that became another one. Each table has an
index on its primary key and a checksum of all its columns: where a row and its index entry differ, PRAGMA
integrity_check says so. The key comes first so that rows which are neighbours in the table are neighbours in the index:
by checksum alone, each row written would touch a page of its own. The checksum is CRC-32, which finds every change of
up to 32 bits in a row. PostgreSQL has checksums of its own.
"""

from __future__ import annotations

import re
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table

from bridge.state.schema import metadata

_FUNCTION = "row_checksum"
_PREFIX = "sealed_"
_MOST = 1000


def knows_checksums(connection: sqlite3.Connection) -> None:
    """The function that the indexes call, for one connection."""
    connection.create_function(_FUNCTION, -1, row_checksum, deterministic=True)


def row_checksum(*values: Any) -> int:
    """CRC-32 of a row."""
    found = 0
    for value in values:
        found = zlib.crc32(value if isinstance(value, bytes) else repr(value).encode(), found)
    return found


def seal(connection: Connection) -> None:
    """Makes the indexes that are missing, and removes those of tables that have other columns now."""
    wanted = {_name(table): table for table in metadata.sorted_tables}
    rows = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'index'")
    there = {row[0] for row in rows if row[0].startswith(_PREFIX)}
    for name in there - wanted.keys():
        connection.exec_driver_sql(f"DROP INDEX {name}")
    for name in wanted.keys() - there:
        connection.exec_driver_sql(f"CREATE INDEX {name} ON {wanted[name].name} ({_entry(wanted[name])})")


def damage(path: Path) -> Iterator[str]:
    """What SQLite finds wrong in a file, by table where it can tell; a bridge may be writing to it.

    Only what was committed to the file: what still is in the -wal file has checksums of SQLite's.
    """
    try:
        with closing(sqlite3.connect(path, timeout=30)) as connection:
            knows_checksums(connection)
            connection.text_factory = lambda raw: raw.decode("utf-8", "replace")  # names may be damaged as well
            for (told,) in connection.execute(f"PRAGMA integrity_check({_MOST})"):
                if told != "ok":
                    yield _explained(str(told))
    except (sqlite3.Error, UnicodeDecodeError) as error:  # what SQLite says of damage may have damaged names in it
        yield f"the file cannot be read to its end ({type(error).__name__})"


def _entry(table: Table) -> str:
    columns = [f'"{column.name}"' for column in table.columns]
    key = [f'"{column.name}"' for column in table.primary_key.columns] or columns[:2]
    return f"{', '.join(key)}, {_FUNCTION}({', '.join(columns)})"


def _name(table: Table) -> str:
    return f"{_PREFIX}{table.name}_{zlib.crc32(_entry(table).encode()):08x}"


def _explained(told: str) -> str:
    """Without values: SQLite names rows and indexes only."""
    found = re.fullmatch(rf"row (\d+) missing from index {_PREFIX}(\w+)_[0-9a-f]{{8}}", told)
    return f"table {found[2]}: row {found[1]} was changed" if found else told.splitlines()[0][:200]
