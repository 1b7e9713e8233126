"""The command `cohort`: questions, SQL, tables, clinical data."""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
import uvicorn
from fastapi import FastAPI
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from bridge import config
from bridge.errors import ConfigError, InvalidQuery, ProjectError
from cohort.answer import Answer
from cohort.api import router
from cohort.catalogue import question as ready_question
from cohort.catalogue import questions as ready_questions
from cohort.clinical import load as load_clinical
from cohort.desk import Caller, desk_of
from cohort.disclosure import meaning
from cohort.lake import Generation, Lake
from cohort.query_log import QueryLog
from cohort.render import FORMATS, rendered, table
from cohort.sandbox import Limits
from cohort.schema import catalogue

app = typer.Typer(
    help="Questions across clinical and imaging data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
LakeOption = Annotated[
    Path | None,
    typer.Option("--lake", help="The lake's folder; bridge-data/lake or the configuration's", show_default=False),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help="The bridge's TOML file: its lake and what [cohort] allows", show_default=False
    ),
]
FormatOption = Annotated[str, typer.Option("--format", "-f", help=f"One of: {', '.join(FORMATS)}")]
OutputOption = Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file", show_default=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="The same as --format json")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=1_000_000, help="Rows at most")]
PLAIN_WIDTH = 200
EXIT_PARTIAL, EXIT_USAGE = 1, 2


@app.command()
def ask(
    name: Annotated[str, typer.Argument(metavar="QUESTION", help="As `cohort questions` lists it")],
    param: Annotated[list[str], typer.Option("--param", "-p", help="NAME=VALUE, may be repeated")] = [],  # noqa: B006
    date: Annotated[str, typer.Option("--date", help="The day asked, YYYY-MM-DD; today if not given")] = "",
    lake: LakeOption = None,
    config_file: ConfigOption = None,
    format: FormatOption = "table",
    output: OutputOption = None,
    as_json: JsonOption = False,
    limit: LimitOption = 10_000,
) -> None:
    """Answer a ready question.

    Example: cohort ask osteosarcoma-ct --param older_than_years=40 --format csv --output answer.csv
    """
    asked, day = ready_question(name), _day(date)
    _check_format(format, output, as_json)
    given = dict(_pair(p) for p in param)
    settings, folder = _opened(config_file, lake)
    desk = desk_of(settings.cohort, folder, Limits(rows=limit))
    answer = desk.ask(_generation(folder), asked, given, day, _caller())
    _show(answer, "json" if as_json else format, output)


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="One SELECT; - reads it from standard input")],
    lake: LakeOption = None,
    config_file: ConfigOption = None,
    format: FormatOption = "table",
    output: OutputOption = None,
    as_json: JsonOption = False,
    limit: LimitOption = 10_000,
) -> None:
    """Run one read-only SELECT over the lake's tables: any, where line_level allows rows; else one that counts.

    Example: cohort sql "SELECT gender, count(DISTINCT patient_id) FROM patient GROUP BY 1"
    """
    _check_format(format, output, as_json)
    text = sys.stdin.read() if query == "-" else query
    settings, folder = _opened(config_file, lake)
    desk = desk_of(settings.cohort, folder, Limits(rows=limit))
    _show(desk.sql(_generation(folder), text, _caller()), "json" if as_json else format, output)


@app.command()
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


@app.command()
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
    settings, folder = _opened(config_file, lake)
    policy = desk_of(settings.cohort, folder).policy
    current = Lake(folder).current() if folder.exists() else None
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


@app.command()
def load(
    paths: Annotated[list[Path], typer.Argument(help="FHIR NDJSON files (.gz too) or folders of them")],
    lake: LakeOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Load clinical FHIR. Exit code 1 when a line could not be used; the rest is loaded.

    Example: cohort load export/ --lake bridge-data/lake
    """
    opened = Lake(_opened(config_file, lake)[1])
    now = datetime.now(UTC)
    with _bar("Loading", quiet=as_json) as progress:
        report = load_clinical(paths, opened, now, progress)
    opened.publish(now)
    if as_json:
        typer.echo(
            orjson.dumps({"counts": report.counts, "parked": report.parked}, option=orjson.OPT_INDENT_2).decode()
        )
    else:
        typer.echo("Loaded: " + (", ".join(f"{n} {kind}" for kind, n in report.counts.items()) or "nothing"))
        for file, line, reason in report.parked[:20]:
            typer.echo(f"Not used: {file} line {line}: {reason}", err=True)
        if len(report.parked) > 20:
            typer.echo(f"… and {len(report.parked) - 20} more lines", err=True)
    raise typer.Exit(EXIT_PARTIAL if report.parked else 0)


@app.command()
def log(
    lake: LakeOption = None,
    config_file: ConfigOption = None,
    last: Annotated[int, typer.Option("--last", min=1, max=1_000_000, help="So many questions, the newest")] = 50,
    as_json: JsonOption = False,
) -> None:
    """Show who asked what, of which generation, and how many rows came of it.

    Example: cohort log --last 20
    """
    entries = QueryLog(_opened(config_file, lake)[1] / "log").questions()[-last:]
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


@app.command()
def serve(
    lake: LakeOption = None,
    config_file: ConfigOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on; loopback until you change it")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535)] = 8081,
) -> None:
    """Serve the cohort API and page alone.

    Example: cohort serve --port 8081
    """
    web = FastAPI(title="Cohort", docs_url=None, redoc_url=None)
    settings, folder = _opened(config_file, lake)
    web.include_router(router(Lake(folder), desk_of(settings.cohort, folder)))
    typer.echo(f"Cohort page  http://{host}:{port}/cohort/")
    uvicorn.run(web, host=host, port=port, log_level="warning", access_log=False)


def _opened(config_file: Path | None, lake: Path | None) -> tuple[config.Settings, Path]:
    """The settings and the lake's folder: as named, else the configuration's."""
    settings = config.load(config_file) if config_file else config.embedded()
    return settings, lake or settings.lake_dir


def _caller() -> Caller:
    return Caller(pwd.getpwuid(os.getuid()).pw_name, "cli")


def _generation(lake: Path) -> Generation:
    current = Lake(lake).current() if lake.is_dir() else None
    if current is None:
        raise ConfigError(f"--lake: no data in {lake}: has `bridge run` or `cohort load` been used there?")
    return current


def _check_format(kind: str, output: Path | None, as_json: bool) -> None:
    """Before anything is asked: what cannot be shown need not be found."""
    if kind not in FORMATS:
        raise InvalidQuery(f"--format: found {kind!r}; allowed: {', '.join(FORMATS)}")
    if kind == "parquet" and output is None and not as_json:
        raise InvalidQuery("--format parquet: needs --output FILE")


def _show(answer: Answer, kind: str, output: Path | None) -> None:
    if kind == "table":
        with output.open("w", encoding="utf-8") if output else _standard_output() as target:
            console = Console(file=target, width=None if target.isatty() else PLAIN_WIDTH)
            console.print(table(answer, console.width))
    elif output is not None:
        output.write_bytes(rendered(answer, kind))
    else:
        sys.stdout.buffer.write(rendered(answer, kind) + (b"\n" if kind == "json" else b""))
    for note in answer.notes:
        typer.echo(f"Note: {note}", err=True)
    if answer.truncated:
        typer.echo("There are more rows: raise --limit to see them", err=True)


@contextmanager
def _standard_output() -> Iterator[Any]:
    yield sys.stdout


def _day(text: str) -> Any:
    try:
        return datetime.fromisoformat(text).date() if text else datetime.now(UTC).date()
    except ValueError:
        raise InvalidQuery(f"--date: found {text!r}; allowed: YYYY-MM-DD") from None


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign:
        raise InvalidQuery(f"--param: found {text!r}; allowed: NAME=VALUE")
    return name, value


@contextmanager
def _bar(title: str, quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    if quiet or not sys.stderr.isatty():
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def main() -> None:
    """Entry point: an error of the project is one clear message and exit code 2, never a traceback."""
    try:
        app()
    except ProjectError as error:
        Console(stderr=True).print(f"cohort: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(EXIT_USAGE)
