"""Compaction: one file of many. It runs beside publishing: what is replaced meanwhile is taken out at the end.

A table is due when small files over the large one hold more than a share of its rows, when that share of it is gone,
or when there are many small files (then only those become one). A large file that questions read gets a copy in
DuckDB's own form, which is read several times faster; Parquet is what counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb

from bridge.errors import SinkUnavailable
from cohort.layers import COPIED, GONE_COLUMN, Layer, layer, names, quoted, scan, scan_numbered
from cohort.schema import catalogue
from cohort.store.files import Files, named
from cohort.store.local import sync
from cohort.stored import clustered_by, columns_of
from cohort.tables import ROW_GROUP, connect, write

SHARE = 0.1
"""Of the large file's rows: so many in small files, or gone, and the whole table is written anew."""

RESOURCES_SHARE = 0.5
"""The same in small files of resources, which no question reads: most bytes of a lake that grows step by step would
else be written ten times."""

SMALL_ROWS = 50_000
"""Fewer rows than this in small files never make a large table be written anew."""

MAXIMUM_LAYERS = 8
"""Small files over the large one."""

COPIED_ROWS = 100_000
"""Of fewer rows questions read the Parquet file."""

BLOCK_BYTES = 65_536
"""Of a copy. What is read of it is whole blocks; a row group of 8192 rows has few of them."""

FREE_TEXT = frozenset({"conclusion", "report_text"})
"""Columns that a copy has uncompressed: for one compressed text DuckDB decodes the thousand that stand beside it."""

SORTED_BYTES, SORTED_ROWS = 512 * 1024 * 1024, 2_000_000
"""So much is sorted at once, bytes as Parquet has them before compression. DuckDB's sort of more than fits can fail."""

SAMPLED_ROWS = 1_000_000
"""Of about so many rows it is told where to part the others: a quantile holds every value in memory."""

Entries = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Merged:
    """A finished file, its copy (None: too few rows), and the layers (as the manifest has them) it stands for."""

    file: str
    copy: str | None
    rows: int
    entries: tuple[Mapping[str, Any], ...]


def due(tables: Mapping[str, Any], *, everything: bool) -> dict[str, Entries]:
    """table → the layers to make one of; one whole layer: it wants a copy."""
    found = {name: _due(name, table, everything) for name, table in tables.items() if table["layers"]}
    return {name: entries for name, entries in found.items() if entries}


def _due(name: str, table: Mapping[str, Any], everything: bool) -> Entries:
    layers: Entries = table["layers"]
    first, *over = layers
    gone = first.get("gone_rows", 0)
    changed = gone + sum(one["rows"] for one in over)
    share = RESOURCES_SHARE if name.startswith("resource_") else SHARE
    few, many = max(SHARE * first["rows"], SMALL_ROWS), max(share * first["rows"], SMALL_ROWS)
    if (everything and changed) or gone > few or changed > many:
        return layers
    if len(over) >= MAXIMUM_LAYERS:
        return over if first["rows"] > SMALL_ROWS else layers
    if set(table["columns"]) != set(columns_of(name)):  # the next publish makes it anew
        return []
    return [one for one in layers if _wants_copy(name, one["rows"]) and "copy" not in one][:1]


def _wants_copy(table: str, rows: int) -> bool:
    return table in catalogue() and rows >= COPIED_ROWS


class Compaction:
    """One run, with its own DuckDB. `stamp` is part of the name of every file that is made.

    `scratch` is a folder on the file system of the files.
    """

    def __init__(self, files: Files, scratch: Path, stamp: str) -> None:
        self._files, self._scratch, self._stamp = files, scratch, stamp
        self.made: set[str] = set()
        self._db = connect(scratch, threads=1)

    def __enter__(self) -> Compaction:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def merge(self, table: str, entries: Entries) -> Merged:
        """The rows of these layers that count, in one file, with a copy where it has many. Raises SinkUnavailable when
        these cannot be made."""
        with _files_can_be_made(table):
            layers = [self._layer(entry) for entry in entries]
            rows = sum(one.live for one in layers)
            whole = len(layers) == 1 and not layers[0].gone
            file = layers[0].file if whole else self._sorted(table, layers)
            copy = self._copy(table, file, rows) if _wants_copy(table, rows) else None
        return Merged(file.name, copy, rows, tuple(entries))

    def _sorted(self, table: str, layers: Sequence[Layer]) -> Path:
        columns = [f'"{c}"' for c in columns_of(table)]
        rows, order = f"SELECT * FROM ({scan(layers, columns)})", clustered_by(table)
        ranges = self._ranges(layers, order.partition(",")[0])
        query = f"{rows} ORDER BY {order}" if len(ranges) == 1 else self._sorted_apart(rows, ranges, order)
        path = self._write(table, query, self._scratch)
        for part in self._scratch.glob("part-*.parquet"):
            part.unlink()
        return path

    def _copy(self, table: str, file: Path, rows: int) -> str:
        """A DuckDB database of a file's rows, in their order. Result: its name."""
        path = self._scratch / f"{table}.duckdb"
        columns = catalogue()[table].columns
        described = ", ".join(
            f'"{c.name}" {c.type}{" USING COMPRESSION uncompressed" if c.name in FREE_TEXT else ""}' for c in columns
        )
        named_columns = ", ".join(f'"{c.name}"' for c in columns)
        self._db.execute(f"ATTACH {quoted(path)} AS made (ROW_GROUP_SIZE {ROW_GROUP}, BLOCK_SIZE {BLOCK_BYTES})")
        self._db.execute("SET preserve_insertion_order = true")
        self._db.execute(f"CREATE TABLE made.{COPIED} ({described})")
        self._db.execute(f"INSERT INTO made.{COPIED} SELECT {named_columns} FROM read_parquet({quoted(file)})")
        self._db.execute("SET preserve_insertion_order = false")
        self._db.execute("DETACH made")
        sync(path)
        path = named(path, self._scratch / f"{table}-{self._stamp}")
        self.made.add(path.name)
        return path.name

    def _ranges(self, layers: Sequence[Layer], column: str) -> list[str]:
        """Conditions that part the rows by a column, in its order (NULL is last), so that each part can be sorted."""
        files = ", ".join(quoted(one.file) for one in layers)
        counted = f"SELECT sum(total_uncompressed_size)::BIGINT FROM parquet_metadata([{files}])"
        (size,) = self._db.execute(counted).fetchone() or (0,)
        count = sum(one.live for one in layers)
        parts = 1 + max(size // SORTED_BYTES, count // SORTED_ROWS)
        if parts == 1:
            return ["true"]
        sample = f"{min(100.0, 100 * SAMPLED_ROWS / max(count, 1))} PERCENT (bernoulli, 1)"
        query = f"SELECT quantile_disc({column}, ?) FROM ({scan(layers, [column])}) USING SAMPLE {sample}"
        (bounds,) = self._db.execute(query, [[part / parts for part in range(1, parts)]]).fetchone() or (None,)
        at = [quoted(bound) for bound in sorted(set(bounds or ()))]
        between = [f"{column} >= {low} AND {column} < {high}" for low, high in pairwise(at)]
        return [f"{column} < {at[0]}", *between, f"{column} >= {at[-1]} OR {column} IS NULL"] if at else ["true"]

    def _sorted_apart(self, rows: str, ranges: Sequence[str], order: str) -> str:
        """Sorts the rows of each range into a file of its own. Result: a query of all of them, in order."""
        files = [self._scratch / f"part-{number}.parquet" for number in range(len(ranges))]
        self._db.execute("SET preserve_insertion_order = true")
        for file, within in zip(files, ranges, strict=True):
            write(self._db, f"{rows} WHERE {within} ORDER BY {order}", file)
        return f"SELECT * FROM read_parquet([{', '.join(map(quoted, files))}])"

    def put(self, table: str, held: Mapping[str, Any], merged: Merged) -> dict[str, Any]:
        """The table's entry in the manifest with the merged file in the place of what it stands for.

        Rows that others replaced since the merge began are gone in it too: all rows of a key go together.
        """
        now = {entry["file"]: entry for entry in held["layers"]}
        file, copy = self._moved(merged.file), self._moved(merged.copy) if merged.copy else None
        with _files_can_be_made(table):
            gone = [g for old in merged.entries for g in self._gone_since(old, now.get(old["file"]))]
            made = self._without(table, Layer(file, merged.rows, copy=copy), gone)
        before = {entry["file"] for entry in merged.entries}
        at = min(i for i, e in enumerate(held["layers"]) if e["file"] in before) if before & now.keys() else 0
        rest = [entry for entry in held["layers"] if entry["file"] not in before]
        if made["rows"] > made.get("gone_rows", 0):
            rest.insert(at, made)
        return dict(held) | {"layers": rest}

    def _moved(self, name: str) -> Path:
        """A finished file in its place, the first time."""
        file = self._files.folder / name
        if (self._scratch / name).exists():
            (self._scratch / name).replace(file)
        return file

    def _gone_since(self, old: Mapping[str, Any], now: Mapping[str, Any] | None) -> list[str]:
        """Queries of the keys whose rows in a merged layer have gone since it was read."""
        then = self._layer(old)
        live = scan_numbered(then, ["_hash", "_key"])
        if now is None:
            return [f"SELECT _hash, _key FROM ({live})"]
        if now.get("gone") == old.get("gone"):
            return []
        since = self._layer(now).gone
        if since is None:
            return []
        gone = f"read_parquet({quoted(since)})"
        return [f"SELECT _hash, _key FROM ({live}) l SEMI JOIN {gone} g ON l.file_row_number = g.{GONE_COLUMN}"]

    def _layer(self, entry: Mapping[str, Any]) -> Layer:
        one = layer(self._files.folder, entry)
        self._files.present(names([one]))
        return one

    def _write(self, name: str, query: str, folder: Path) -> Path:
        path = self._scratch / f"{name}.parquet"
        write(self._db, query, path)
        path = named(path, folder / f"{name}-{self._stamp}")
        self.made.add(path.name)
        return path

    def _without(self, table: str, one: Layer, gone: list[str]) -> dict[str, Any]:
        if not gone:
            return one.entry()
        numbered = scan_numbered(one, ["_hash", "_key"])
        self._db.execute(
            f"CREATE OR REPLACE TEMP TABLE gone_now AS SELECT file_row_number AS {GONE_COLUMN} FROM ({numbered}) "
            f"SEMI JOIN ({' UNION ALL '.join(gone)}) USING (_hash, _key)"
        )
        row = self._db.execute("SELECT count(*) FROM gone_now").fetchone()
        if not row or not row[0]:
            return one.entry()
        path = self._write(f"gone_{table}", f"SELECT {GONE_COLUMN} FROM gone_now ORDER BY 1", self._files.folder)
        return replace(one, gone=path, gone_rows=row[0]).entry()


@contextmanager
def _files_can_be_made(table: str) -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        raise SinkUnavailable(f"lake: table {table} cannot be compacted ({type(error).__name__})") from None
