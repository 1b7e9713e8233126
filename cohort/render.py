"""An answer as people and programs want it: a table, CSV, JSON, Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import orjson
from rich.markup import escape
from rich.table import Table

from cohort.answer import Answer
from cohort.engine.parquet import parquet

FORMATS = ("table", "csv", "json", "parquet")
MEDIA_TYPES = {
    "csv": "text/csv; charset=utf-8",
    "json": "application/json",
    "parquet": "application/vnd.apache.parquet",
}
SHOWN_ROWS = 40
SHOWN_CHARACTERS = 60
NARROWEST = 11

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def table(answer: Answer, width: int, rows: int = SHOWN_ROWS, columns: Sequence[str] = ()) -> Table:
    """A table for a terminal so many characters wide: the first rows; where the columns do not fit beside each other,
    one block for each row. Lists show their first item and how many more; columns without any value are left out.
    """
    wanted = [n for n, (name, _) in enumerate(answer.columns) if not columns or name in columns]
    filled = [n for n in wanted if any(row[n] is not None for row in answer.rows)] or wanted
    count = f"{len(answer.rows)}{' or more' if answer.truncated else ''} rows"
    shown = f", the first {rows} shown" if len(answer.rows) > rows else ""
    caption = f"{count}{shown}; generation {answer.generation}; {answer.elapsed_s:.2f} s"
    if width < NARROWEST * len(filled):
        return _blocks(answer, filled, rows, caption)
    made = Table(caption=caption)
    for n in filled:
        made.add_column(
            answer.columns[n][0], overflow="ellipsis" if _is_uid(answer, n) else "fold", no_wrap=_is_uid(answer, n)
        )
    for row in answer.rows[:rows]:
        made.add_row(*(escape(_short(row[n])) for n in filled))
    return made


def _is_uid(answer: Answer, column: int) -> bool:
    return answer.columns[column][0].endswith("_uid")


def _blocks(answer: Answer, columns: Sequence[int], rows: int, caption: str) -> Table:
    made = Table(caption=caption, show_header=False)
    made.add_column("column", style="bold", no_wrap=True)
    made.add_column("value", overflow="fold")
    for row in answer.rows[:rows]:
        for n in columns:
            made.add_row(answer.columns[n][0], escape(_short(row[n])), end_section=n == columns[-1])
    return made


def rendered(answer: Answer, kind: str) -> bytes:
    """The answer as csv, json or parquet."""
    return {"csv": as_csv, "json": as_json, "parquet": parquet}[kind](answer)


def as_csv(answer: Answer) -> bytes:
    """RFC 4180 with a header. A text cell that a spreadsheet would run as a formula gets an apostrophe before it."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([name for name, _ in answer.columns])
    writer.writerows([_cell(value) for value in row] for row in answer.rows)
    return out.getvalue().encode()


def as_json(answer: Answer) -> bytes:
    """{"generation", "truncated", "notes", "columns": [{name, type}], "rows": [{column: value}]}."""
    names = [name for name, _ in answer.columns]
    return orjson.dumps(
        {
            "generation": answer.generation,
            "truncated": answer.truncated,
            "notes": answer.notes,
            "columns": [{"name": name, "type": kind} for name, kind in answer.columns],
            "rows": [dict(zip(names, row, strict=True)) for row in answer.rows],
        },
        option=orjson.OPT_INDENT_2,
    )


def _cell(value: Any) -> Any:
    if isinstance(value, list | dict):
        value = orjson.dumps(value).decode()
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _short(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        more = f" (+{len(value) - 1} more)" if len(value) > 1 else ""
        return _short(value[0]) + more if value else ""
    text = str(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"
