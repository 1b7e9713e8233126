"""The commands that list what can be asked, and what was: `cohort questions`, `tables` and `log`."""

from __future__ import annotations

import sys
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bridge.errors import InvalidQuery
from cohort.catalogue import questions as ready_questions
from cohort.disclosure import meaning
from cohort.options import ConfigOption, JsonOption, LakeOption, desk, desk_folder, lake_if_there
from cohort.query_log import QueryLog
from cohort.render import PLAIN_WIDTH
from cohort.schema import catalogue


def questions(as_json: JsonOption = False) -> None:
    """List the ready questions and their parameters.

    Example: cohort questions
    """
    if as_json:
        described = [
            {
                "name": q.name,
                "title": q.title,
                "description": q.description,
                "parameters": [p.__dict__ for p in q.parameters],
            }
            for q in ready_questions().values()
        ]
        typer.echo(orjson.dumps(described, option=orjson.OPT_INDENT_2).decode())
        return
    made = Table("question", "what it gives", "parameters")
    for q in ready_questions().values():
        made.add_row(q.name, q.title, "\n".join(f"{p.name}={p.default}" for p in q.parameters))
    Console().print(made)


def tables(
    name: Annotated[str, typer.Argument(metavar="[TABLE]", help="One table with its columns")] = "",
    lake: LakeOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the tables, or one table's columns with unit, description, source and what is withheld or replaced.

    Example: cohort tables dicom_series
    """
    known = catalogue()
    if name and name not in known:
        raise InvalidQuery(f"no table {name!r}; known: {', '.join(known)}")
    policy, opened = desk(lake, config_file).policy, lake_if_there(lake, config_file)
    current = opened.current() if opened else None
    rows = {n: policy.table_rows(t.rows) for n, t in current.tables.items()} if current else {}
    wanted = [known[name]] if name else list(known.values())
    if as_json:
        described = [
            {
                "name": t.name,
                "title": t.title,
                "rows": rows.get(t.name, 0),
                "columns": [c.__dict__ | {"shown": meaning(t.name, c.name, policy)} for c in t.columns],
            }
            for t in wanted
        ]
        typer.echo(orjson.dumps(described, option=orjson.OPT_INDENT_2).decode())
    elif name:
        made = Table("column", "type", "unit", "what it holds", "source", "shown in rows", title=wanted[0].title)
        for c in wanted[0].columns:
            made.add_row(c.name, c.type, c.unit, c.description, c.source, meaning(name, c.name, policy))
        Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH).print(made)
    else:
        made = Table("table", "rows", "what it holds")
        for t in wanted:
            made.add_row(t.name, str(rows.get(t.name, 0)), t.title)
        Console().print(made)


def log(
    lake: LakeOption = None,
    config_file: ConfigOption = None,
    last: Annotated[int, typer.Option("--last", min=1, max=1_000_000, help="So many questions, the newest")] = 50,
    as_json: JsonOption = False,
) -> None:
    """Show who asked what, of which generation, and how many rows came of it.

    Example: cohort log --last 20
    """
    entries = QueryLog(desk_folder(lake, config_file) / "log").questions()[-last:]
    if as_json:
        typer.echo(orjson.dumps(entries, option=orjson.OPT_INDENT_2).decode())
        return
    made = Table("time", "who", "door", "asked", "generation", "access", "outcome", "rows", "s")
    for e in entries:
        outcome = e.get("reason") or e["event"]
        asked = " ".join([f"{e['kind']} {e['what']}", *(f"{n}={v}" for n, v in e["parameters"].items())])
        cells = (e["time"][:19], e["who"], e["door"], asked[:200], e["generation"], e["access"], outcome)
        made.add_row(*(escape(str(c)) for c in (*cells, e.get("rows", ""), e.get("seconds", ""))))
    Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH).print(made)
