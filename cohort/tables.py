"""The tables of a generation in the making: what is held, what replaces it, which files hold it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb
import orjson

from cohort.keys import KEYS_END
from cohort.kinds import BY_CODE
from cohort.layers import GONE_COLUMN, Layer, layer, names, quoted, scan, scan_numbered
from cohort.store.files import Files, named
from cohort.store.local import sync
from cohort.stored import clustered_by, columns_of, told_apart_by

ROW_GROUP = 8192
"""Rows of a Parquet row group: a question about few patients reads few of them (docs/lake.md)."""

PART_ROWS = 500_000
"""About so many rows are made at once where a whole table is made anew."""

MEMORY_LIMIT_MB = 2048
LINE_BYTES = 4_194_304


class Tables:
    """Layers of every table, and the DuckDB that changes them. Files are on disk when a method returns.

    `stamp` is part of the name of every file that is made: no two publishes have the same. `scratch` is a folder on the
    file system of the files.
    """

    def __init__(self, files: Files, scratch: Path, stamp: str, before: Mapping[str, Any]) -> None:
        self._files, self._scratch, self._stamp = files, scratch, stamp
        self.layers = {name: [layer(files.folder, e) for e in table["layers"]] for name, table in before.items()}
        self.held_columns = {name: list(table["columns"]) for name, table in before.items()}
        self.made: set[str] = set()
        self.db = connect(scratch, threads=2)

    def __enter__(self) -> Tables:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.db.close()

    def manifest(self) -> dict[str, Any]:
        """What a generation's manifest says of every table."""
        return {
            name: {"columns": list(columns_of(name)), "layers": [one.entry() for one in layers]}
            for name, layers in sorted(self.layers.items())
        }

    def scan(self, table: str, columns: Sequence[str] = (), *, top: bool = False) -> str:
        """A SELECT, in brackets, of the rows that count: all columns, or these. With `top`, of the newest file alone,
        which has all rows of the keys that were replaced last."""
        layers = self.layers.get(table, [])[-1 if top else 0 :]
        self._files.present(names(layers))
        wanted = columns or list(columns_of(table))
        return f"({scan(layers, wanted) if layers else empty(columns_of(table), wanted)})"

    def scans(self, table: str, columns: Sequence[str]) -> list[str]:
        """As `scan`, file by file: one SELECT of many files holds something of each until its end."""
        layers = self.layers.get(table, [])
        self._files.present(names(layers))
        return [f"({scan([one], columns)})" for one in layers]

    def load(self, name: str, rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
        """Rows into a temporary table with these columns; keys that are no column are left out."""
        path = self._scratch / f"{name}.ndjson"
        longest = 0
        with path.open("wb") as file:
            for row in rows:
                longest = max(longest, file.write(orjson.dumps(row) + b"\n"))
        source = f"({empty(columns, list(columns))})"
        if longest:
            described = ", ".join(f"'{column}': '{kind}'" for column, kind in columns.items())
            source = (
                f"read_json({quoted(path)}, format='newline_delimited', columns={{{described}}}, "
                f"maximum_object_size={max(LINE_BYTES, 2 * longest)})"  # DuckDB takes buffers of this size
            )
        self.make(name, f"SELECT * FROM {source}")
        path.unlink()

    def make(self, name: str, query: str) -> int:
        """A temporary table of the query's rows, and how many there are."""
        self.db.execute(f"CREATE OR REPLACE TABLE {name} AS {query}")
        return self.count(f"SELECT count(*) FROM {name}")

    def count(self, query: str) -> int:
        """The one number a query gives."""
        row = self.db.execute(query).fetchone()
        return int(row[0]) if row else 0

    def halves(self, name: str, columns: str = "*") -> str:
        """A SELECT, in brackets, of a temporary table's rows by two threads, turn by turn: else one reads all of a
        small table."""
        rows = f"SELECT {columns} FROM {name} WHERE rowid // 2048 % 2 ="
        return f"({rows} 0 UNION ALL {rows} 1)"

    def show(self, name: str, query: str) -> None:
        """A temporary view: the query's rows, read whenever they are asked for."""
        self.db.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {query}")

    def replace(self, table: str, keys: str, rows: str) -> None:
        """Takes away every row with one of the keys (a query of `_hash` and `_key`), then adds the rows of a query: in
        the table, and in the one with the same rows by code."""
        self._replace(table, keys, rows)
        if table in BY_CODE:
            self._replace(BY_CODE[table], keys, rows)

    def add(self, table: str, rows: str) -> None:
        """Adds the rows of a query. The table has none with their keys."""
        columns = ", ".join(f'"{c}"' for c in columns_of(table))
        path, added = self._write(table, f"SELECT {columns} FROM ({rows})", clustered_by(table))
        self.layers[table] = [*self.layers.get(table, []), *([Layer(path, added)] if added else [])]

    def parts(self, table: str, key: str = "_hash") -> list[str]:
        """Conditions that part a table's rows, as `parts`."""
        return parts(sum(one.live for one in self.layers.get(table, [])), key)

    def _replace(self, table: str, keys: str, rows: str) -> None:
        before = self.layers.get(table, [])
        self.add(table, rows)
        if before:
            added, by = self.layers[table][len(before) :], told_apart_by(table)
            self.make("replaced", f"SELECT DISTINCT {by} FROM ({keys})")
            kept = self._without(table, before, by)
            self.layers[table] = [*(one for one in kept if one.live), *added]

    def _without(self, table: str, before: Sequence[Layer], by: str) -> list[Layer]:
        """The layers, with a row less for each of their rows that is `replaced`."""
        self._files.present(names(before))
        numbered = (scan_numbered(one, [f"{at} AS layer", *by.split(", ")]) for at, one in enumerate(before))
        found = f"SELECT layer, file_row_number FROM ({' UNION ALL '.join(numbered)}) SEMI JOIN replaced USING ({by})"
        self.make("gone_now", found)
        kept = list(before)
        for (at,) in self.db.execute("SELECT DISTINCT layer FROM gone_now").fetchall():
            now = f"SELECT file_row_number AS {GONE_COLUMN} FROM gone_now WHERE layer = {at}"
            old = before[at].gone
            more = f"UNION ALL SELECT {GONE_COLUMN} FROM read_parquet({quoted(old)})" if old else ""
            path, gone = self._write(f"gone_{table}", f"SELECT * FROM ({now} {more})", GONE_COLUMN)
            kept[at] = replace(before[at], gone=path, gone_rows=gone)
        return kept

    def _write(self, name: str, query: str, order: str) -> tuple[Path, int]:
        """A file of the query's rows, and how many; none is kept without rows."""
        path = self._scratch / f"{name}.parquet"
        rows = write(self.db, f"{query} ORDER BY {order}", path)
        if rows:
            path = named(path, self._files.folder / f"{name}-{self._stamp}")
            self.made.add(path.name)
        return path, rows


def parts(rows: int, key: str = "_hash") -> list[str]:
    """Conditions on a key that part so many rows: each part fits in the memory."""
    count = 1 + rows // PART_ROWS
    bounds = [KEYS_END * n // count for n in range(count + 1)]
    between = [f"{key} >= {low} AND {key} < {high}" for low, high in pairwise(bounds)]
    return [*between[:-1], f"({between[-1]} OR {key} IS NULL)"]


def connect(scratch: Path, threads: int) -> duckdb.DuckDBPyConnection:
    """A DuckDB in memory that spills into a folder past its limit."""
    db = duckdb.connect(
        ":memory:",
        config={
            "threads": threads,
            "preserve_insertion_order": False,
            "memory_limit": f"{MEMORY_LIMIT_MB}MB",
            "temp_directory": str(scratch / "spill"),
        },
    )
    db.execute("SET TimeZone = 'UTC'")
    return db


def write(db: duckdb.DuckDBPyConnection, query: str, path: Path) -> int:
    """The query's rows as a Parquet file, on disk when this returns. Result: how many."""
    how = f"FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, ROW_GROUP_SIZE {ROW_GROUP}"
    copied = db.execute(f"COPY ({query}) TO {quoted(path)} ({how})").fetchone()
    sync(path)
    return int(copied[0]) if copied else 0


def empty(columns: Mapping[str, str], wanted: Sequence[str]) -> str:
    """A SELECT without rows, typed. `wanted` are columns of a table that has no file yet."""
    described = ", ".join(f'NULL::{columns[c]} AS "{c}"' for c in wanted)
    return f"SELECT {described} WHERE false"
