"""A table of a generation is a stack of files: a large one, small ones over it, and lists of rows that no longer count.

Rows are never changed in place. A change adds a file with the new rows, and for every file that holds an old row a
new list of row numbers that are gone. Reading leaves those out; `cohort.compaction` makes one file of many.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GONE_COLUMN = "row_number"
"""The one column of a list of gone rows: row numbers of the file, from 0."""

COPIED = "copied"
"""The one table of a copy."""

_KINDS = ("file", "gone", "copy")


@dataclass(frozen=True)
class Layer:
    """One Parquet file of a table, and the list of its rows that are gone (None: all count). `copy`: a DuckDB database
    of the same rows in the same order, of the columns that questions see, which DuckDB reads several times faster."""

    file: Path
    rows: int
    gone: Path | None = None
    gone_rows: int = 0
    copy: Path | None = None

    @property
    def live(self) -> int:
        return self.rows - self.gone_rows

    @property
    def paths(self) -> tuple[Path, ...]:
        """Of all its files."""
        return tuple(path for path in (self.file, self.gone, self.copy) if path)

    def entry(self) -> dict[str, Any]:
        """As the manifest holds it."""
        gone = {"gone": self.gone.name, "gone_rows": self.gone_rows} if self.gone else {}
        copy = {"copy": self.copy.name} if self.copy else {}
        return {"file": self.file.name, "rows": self.rows} | gone | copy


def layer(files: Path, entry: Mapping[str, Any]) -> Layer:
    """From the manifest."""
    gone, copy = (files / entry[kind] if kind in entry else None for kind in ("gone", "copy"))
    return Layer(files / entry["file"], entry["rows"], gone, entry.get("gone_rows", 0), copy)


def names(layers: Iterable[Layer]) -> list[str]:
    """Of their Parquet files."""
    return [path.name for one in layers for path in (one.file, one.gone) if path]


def names_read(layers: Iterable[Layer]) -> list[str]:
    """Of the files that questions read: a copy in the place of its Parquet file."""
    return [path.name for one in layers for path in (one.copy or one.file, one.gone) if path]


def names_in(entry: Mapping[str, Any]) -> set[str]:
    """Of all files that a layer's entry in the manifest names."""
    return {entry[kind] for kind in _KINDS if kind in entry}


def names_in_tables(tables: Mapping[str, Any]) -> frozenset[str]:
    """Of all files that a manifest's tables name."""
    return frozenset(n for table in tables.values() for entry in table.get("layers", ()) for n in names_in(entry))


def scan(layers: Sequence[Layer], columns: Sequence[str], held: Mapping[Path, str] | None = None) -> str:
    """A DuckDB SELECT of the rows that count. `columns` are names, or expressions with a name; `held` says which files
    are tables of the connection, under which names."""
    return " UNION ALL ".join(_live(one, ", ".join(columns), held or {}) for one in layers)


def scan_numbered(one: Layer, columns: Sequence[str]) -> str:
    """The rows of one layer that count, with `file_row_number`."""
    return _live(one, ", ".join((*columns, "l.file_row_number")), {}, numbered=True)


def _live(one: Layer, columns: str, held: Mapping[Path, str], *, numbered: bool = False) -> str:
    copy = held.get(one.copy) if one.copy else None
    number, rows = "rowid", copy
    if copy is None:
        number = "file_row_number"
        rows = f"read_parquet({quoted(one.file)}{', file_row_number = true' if numbered or one.gone else ''})"
    gone = ""
    if one.gone:
        numbers = held.get(one.gone) or f"read_parquet({quoted(one.gone)})"
        gone = f" ANTI JOIN {numbers} g ON l.{number} = g.{GONE_COLUMN}"
    return f"SELECT {columns} FROM {rows} l{gone}"


def quoted(value: Path | str | int) -> str:
    """A path or another value as an SQL literal."""
    return "'" + str(value).replace("'", "''") + "'"
