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


def scan(layers: Sequence[Layer], columns: Sequence[str]) -> str:
    """A DuckDB SELECT of the rows that count. `columns` are names, or expressions with a name."""
    return " UNION ALL ".join(_live(one, ", ".join(columns)) for one in layers)


def scan_numbered(one: Layer, columns: Sequence[str]) -> str:
    """The rows of one layer that count, with `file_row_number`."""
    return _live(one, ", ".join((*columns, "l.file_row_number")), numbered=True)


def scan_attached(layers: Sequence[Layer], columns: Sequence[str], attached: Mapping[Path, str]) -> str:
    """As `scan`, where copies are attached to the connection under these names."""
    found = []
    for one in layers:
        copy = attached.get(one.copy) if one.copy else None
        gone = _without_gone(one, "rowid") if copy else ""
        found.append(f"SELECT {', '.join(columns)} FROM {copy}.{COPIED} l{gone}" if copy else scan([one], columns))
    return " UNION ALL ".join(found)


def _live(one: Layer, columns: str, *, numbered: bool = False) -> str:
    read = f"read_parquet({quoted(one.file)}{', file_row_number = true' if numbered or one.gone else ''})"
    return f"SELECT {columns} FROM {read} l{_without_gone(one, 'file_row_number')}"


def _without_gone(one: Layer, number: str) -> str:
    if not one.gone:
        return ""
    return f" ANTI JOIN read_parquet({quoted(one.gone)}) g ON l.{number} = g.{GONE_COLUMN}"


def quoted(value: Path | str | int) -> str:
    """A path or another value as an SQL literal."""
    return "'" + str(value).replace("'", "''") + "'"
