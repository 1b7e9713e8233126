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


@dataclass(frozen=True)
class Layer:
    """One Parquet file of a table, and the list of its rows that are gone (None: all count)."""

    file: Path
    rows: int
    gone: Path | None = None
    gone_rows: int = 0

    @property
    def live(self) -> int:
        return self.rows - self.gone_rows

    def entry(self) -> dict[str, Any]:
        """As the manifest holds it."""
        gone = {"gone": self.gone.name, "gone_rows": self.gone_rows} if self.gone else {}
        return {"file": self.file.name, "rows": self.rows} | gone


def layer(files: Path, entry: Mapping[str, Any]) -> Layer:
    """From the manifest."""
    gone = entry.get("gone")
    return Layer(files / entry["file"], entry["rows"], files / gone if gone else None, entry.get("gone_rows", 0))


def names(layers: Iterable[Layer]) -> list[str]:
    """Of their files."""
    return [path.name for one in layers for path in (one.file, one.gone) if path]


def scan(layers: Sequence[Layer], columns: Sequence[str]) -> str:
    """A DuckDB SELECT of the rows that count. `columns` are names, or expressions with a name."""
    return " UNION ALL ".join(_live(one, ", ".join(columns)) for one in layers)


def scan_numbered(one: Layer, columns: Sequence[str]) -> str:
    """The rows of one layer that count, with `file_row_number`."""
    return _live(one, ", ".join((*columns, "l.file_row_number")), numbered=True)


def _live(one: Layer, columns: str, *, numbered: bool = False) -> str:
    read = f"read_parquet({quoted(one.file)}{', file_row_number = true' if numbered or one.gone else ''})"
    gone = ""
    if one.gone:
        gone = f" ANTI JOIN read_parquet({quoted(one.gone)}) g ON l.file_row_number = g.{GONE_COLUMN}"
    return f"SELECT {columns} FROM {read} l{gone}"


def quoted(value: Path | str | int) -> str:
    """A path or another value as an SQL literal."""
    return "'" + str(value).replace("'", "''") + "'"
