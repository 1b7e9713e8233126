"""An answer as people and programs want it: a table, CSV, JSON, NDJSON, Parquet, Arrow."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from html import escape as html_escape
from typing import Any

import orjson
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cohort.answer import Answer
from cohort.engine.arrow_ipc import arrow_ipc
from cohort.engine.parquet import parquet
from cohort.timeline import Timeline

FORMATS = ("table", "csv", "json", "ndjson", "parquet", "arrow")
BINARY = ("parquet", "arrow")
MEDIA_TYPES = {
    "csv": "text/csv; charset=utf-8",
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "parquet": "application/vnd.apache.parquet",
    "arrow": "application/vnd.apache.arrow.stream",
}
SHOWN_ROWS = 40
SHOWN_CHARACTERS = 60
NARROWEST = 11
PLAIN_WIDTH = 200
"""Characters of a line where there is no terminal."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def table(answer: Answer, width: int, rows: int = SHOWN_ROWS, columns: Sequence[str] = ()) -> Table:
    """A table for a terminal so many characters wide: the first rows; where the columns do not fit beside each other,
    one block for each row. Lists show their first item and how many more; columns without any value are left out.
    """
    wanted = [n for n, (name, _) in enumerate(answer.columns) if not columns or name in columns]
    filled = [n for n in wanted if any(row[n] is not None for row in answer.rows)] or wanted
    caption = f"{_note(answer, rows)}; {answer.elapsed_s:.2f} s"
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


def _note(answer: Answer, rows: int) -> str:
    shown = f", the first {rows} shown" if len(answer.rows) > rows else ""
    return f"{len(answer.rows)}{' or more' if answer.truncated else ''} rows{shown}; generation {answer.generation}"


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


def as_text(answer: Answer, width: int = 110) -> str:
    """The table as plain text, without how long it took: the same answer gives the same text."""
    made = table(answer, width)
    made.caption = None
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=False, force_jupyter=False).print(made)
    return f"{out.getvalue()}{_note(answer, SHOWN_ROWS)}"


def as_html(answer: Answer, rows: int = SHOWN_ROWS) -> str:
    """The first rows as an HTML table, every cell escaped, and how many rows there are of which generation."""
    head = "".join(f"<th>{html_escape(name)}</th>" for name, _ in answer.columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html_escape(_short(value))}</td>" for value in row) + "</tr>"
        for row in answer.rows[:rows]
    )
    return (
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{html_escape(_note(answer, rows))}</p>"
    )


def timeline_table(timeline: Timeline) -> Table:
    """One patient's events, one line for each, in order."""
    made = Table(
        title=f"Patient {escape(timeline.patient_id)}",
        caption=f"{len(timeline.events)} events; generation {timeline.generation}",
    )
    for name in ("day", "what", "", "status", "detail"):
        made.add_column(name, overflow="fold", no_wrap=name in ("day", "what"))
    for e in timeline.events:
        day = (e.day or "not known") + (f" {e.time[11:16]}" if e.time else "") + (f" to {e.until}" if e.until else "")
        made.add_row(day, e.kind.value, *(escape(_short(text)) for text in (e.title, e.status, e.detail)))
    return made


def rendered(answer: Answer, kind: str) -> bytes:
    """The answer in one of FORMATS but `table`. Raises ConfigError where the format's library is not installed."""
    made = {"csv": as_csv, "json": as_json, "ndjson": as_ndjson, "parquet": parquet, "arrow": arrow_ipc}
    return made[kind](answer)


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


def as_ndjson(answer: Answer) -> bytes:
    """One JSON object a row."""
    names = [name for name, _ in answer.columns]
    return b"".join(orjson.dumps(dict(zip(names, row, strict=True))) + b"\n" for row in answer.rows)


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
