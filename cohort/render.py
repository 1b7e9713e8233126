"""An answer as people and programs want it: a table, CSV, JSON, Parquet."""

from __future__ import annotations

import csv
import io
from typing import Any

import orjson
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
SHOWN_CHARACTERS = 160
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def table(answer: Answer, rows: int = SHOWN_ROWS) -> Table:
    """A table for the terminal: the first rows, long cells shortened; the caption tells what is not shown."""
    count = f"{len(answer.rows)}{' or more' if answer.truncated else ''} rows"
    shown = f", the first {rows} shown" if len(answer.rows) > rows else ""
    made = Table(caption=f"{count}{shown}; generation {answer.generation}; {answer.elapsed_s:.2f} s")
    for name, _ in answer.columns:
        made.add_column(name, overflow="fold")
    for row in answer.rows[:rows]:
        made.add_row(*(_short(value) for value in row))
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
    """{"generation", "truncated", "columns": [{name, type}], "rows": [{column: value}]}."""
    names = [name for name, _ in answer.columns]
    return orjson.dumps(
        {
            "generation": answer.generation,
            "truncated": answer.truncated,
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
    text = "\n".join(_short(v) for v in value) if isinstance(value, list) else str(value)
    return text if len(text) <= SHOWN_CHARACTERS or isinstance(value, list) else text[: SHOWN_CHARACTERS - 1] + "…"
