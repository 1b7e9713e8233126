"""The command `cohort`: questions, SQL, tables, clinical data."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
import uvicorn
from fastapi import FastAPI
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bridge.api.security import harden
from bridge.errors import InvalidQuery, ProjectError
from cohort import lake_cli, progress, view_cli
from cohort.answer import Answer
from cohort.api import router
from cohort.catalogue import questions as ready_questions
from cohort.catalogue import read_question
from cohort.desk import ENGINES, Caller
from cohort.disclosure import meaning
from cohort.feedback_command import outcomes, similar
from cohort.fetch.command import fetch
from cohort.options import (
    EXIT_PARTIAL,
    EXIT_USAGE,
    ConfigOption,
    DateOption,
    GenerationOption,
    JsonOption,
    LakeOption,
    OutputOption,
    ParameterOption,
    QuestionArgument,
    desk,
    desk_folder,
    generation_of,
    lake_if_there,
    lake_to_fill,
    on,
    pair,
    question_of,
)
from cohort.out_commands import group, manifest, omop, timeline
from cohort.plots import Format as PlotFormat
from cohort.plots import attrition_plot, comparison_plot, plot_format
from cohort.query_log import QueryLog
from cohort.render import BINARY, FORMATS, PLAIN_WIDTH, rendered, table
from cohort.sandbox import Limits
from cohort.schema import catalogue
from cohort.scores_command import scores
from cohort.shell import Shell, piped, typed

app = typer.Typer(
    help="Questions across clinical and imaging data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(view_cli.app, name="view")
FormatOption = Annotated[str, typer.Option("--format", "-f", help=f"One of: {', '.join(FORMATS)}")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=1_000_000, help="Rows at most")]
PlotOption = Annotated[Path | None, typer.Option("--plot", help="Draw it too, .svg or .png", show_default=False)]
for _command in (group, omop, manifest, fetch, timeline, outcomes, similar, scores):
    app.command()(_command)


@app.command()
def ask(
    name: QuestionArgument,
    param: ParameterOption = [],  # noqa: B006
    date: DateOption = "",
    generation: GenerationOption = "",
    lake: LakeOption = None,
    config_file: ConfigOption = None,
    format: FormatOption = "table",
    output: OutputOption = None,
    as_json: JsonOption = False,
    limit: LimitOption = 10_000,
    attrition: Annotated[bool, typer.Option("--attrition", help="How many remain after each criterion")] = False,
    plot: PlotOption = None,
    engine: Annotated[str, typer.Option(help="duckdb or spark")] = "duckdb",
) -> None:
    """Answer a question.

    Example: cohort ask osteosarcoma-ct --param older_than_years=40 --format csv --output answer.csv
    """
    if plot is not None and not attrition:
        raise InvalidQuery("--plot: needs --attrition")
    if engine not in ENGINES:
        raise InvalidQuery(f"--engine: found {engine!r}; allowed: {', '.join(ENGINES)}")
    _check_format(format, output, as_json)
    given, asked, day = dict(map(pair, param)), question_of(name), on(date)
    found, at = generation_of(lake, config_file, generation), desk(lake, config_file, Limits(rows=limit))
    run = at.attrition if attrition else at.ask
    with progress.shown() as watch:
        limits = replace(at.limits, watch=watch)
        answer = run(found, asked, given, day, Caller.here("cli"), limits, engine=engine)
    if plot is not None:
        _draw(plot, lambda kind: attrition_plot(answer, kind))
    _show(answer, "json" if as_json else format, output)


@app.command()
def compare(
    first: QuestionArgument,
    second: QuestionArgument,
    first_param: Annotated[list[str], typer.Option("--first", help="NAME=VALUE of the first, may be repeated")] = [],  # noqa: B006
    second_param: Annotated[list[str], typer.Option("--second", help="NAME=VALUE of the second")] = [],  # noqa: B006
    date: DateOption = "",
    generation: GenerationOption = "",
    lake: LakeOption = None,
    config_file: ConfigOption = None,
    format: FormatOption = "table",
    output: OutputOption = None,
    as_json: JsonOption = False,
    plot: PlotOption = None,
) -> None:
    """Show two cohorts beside each other: patients by age, gender, modality, scanner, condition.

    Example: cohort compare osteosarcoma-ct osteosarcoma-ct --second modality=MR --plot comparison.svg
    """
    _check_format(format, output, as_json)
    asked = [
        read_question(question_of(name).document, dict(map(pair, given)))
        for name, given in ((first, first_param), (second, second_param))
    ]
    found = generation_of(lake, config_file, generation)
    answer = desk(lake, config_file).compare(found, asked[0], asked[1], on(date), Caller.here("cli"))
    if plot is not None:
        _draw(plot, lambda kind: comparison_plot(answer, (asked[0].title, asked[1].title), kind))
    _show(answer, "json" if as_json else format, output)


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="One SELECT; - reads it from standard input")],
    generation: GenerationOption = "",
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
    found = generation_of(lake, config_file, generation)
    with progress.shown() as watch:
        answer = desk(lake, config_file, Limits(rows=limit, watch=watch)).sql(found, text, Caller.here("cli"))
    _show(answer, "json" if as_json else format, output)


@app.command()
def shell(
    generation: GenerationOption = "",
    lake: LakeOption = None,
    config_file: ConfigOption = None,
    limit: LimitOption = 10_000,
    format: Annotated[str, typer.Option("--format", "-f", help="table, csv, json, ndjson")] = "table",
    as_json: JsonOption = False,
) -> None:
    """Ask SQL and questions one after another: .help says how. Reads standard input where that is no terminal; exit
    code 1 when something asked there failed.

    Example: cohort shell --lake bridge-data/lake
    """
    kind = "json" if as_json else format
    if kind not in FORMATS or kind in BINARY:
        raise InvalidQuery(f"--format: found {kind!r}; allowed: {', '.join(f for f in FORMATS if f not in BINARY)}")
    found, at, day = generation_of(lake, config_file, generation), desk(lake, config_file, Limits(rows=limit)), on("")
    person = sys.stdin.isatty()

    def ask_sql(text: str) -> Answer:
        with progress.shown() as watch:
            return at.sql(found, text, Caller.here("cli"), replace(at.limits, watch=watch))

    def ask_question(name: str, given: Mapping[str, str]) -> Answer:
        with progress.shown() as watch:
            return at.ask(found, question_of(name), given, day, Caller.here("cli"), replace(at.limits, watch=watch))

    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    if person:
        console.print(f"Generation {found.id}. A statement ends with ; .help lists the commands, ^D ends.")
    failed = Shell(ask_sql, ask_question, console, kind).run(typed() if person else piped())
    if failed and not person:
        raise typer.Exit(EXIT_PARTIAL)


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


app.command()(lake_cli.load)
app.command()(lake_cli.parked)
app.command()(lake_cli.compact)
app.add_typer(lake_cli.generations, name="generations")


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


@app.command()
def serve(
    lake: LakeOption = None,
    config_file: ConfigOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on; loopback until you change it")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535)] = 8081,
    host_name: Annotated[
        list[str] | None, typer.Option(help="A further name it is called by (Host header); may be repeated")
    ] = None,
) -> None:
    """Serve the cohort API and page alone.

    Example: cohort serve --port 8081
    """
    web = FastAPI(title="Cohort", docs_url=None, redoc_url=None)
    web.include_router(router(lake_to_fill(lake, config_file), desk(lake, config_file)))
    names = {"localhost", "127.0.0.1", "[::1]", host, *(host_name or ())}
    harden(web, sorted(names - {"0.0.0.0", "::"}))  # noqa: S104  (taken out of the allowed Host headers)
    typer.echo(f"Cohort page  http://{host}:{port}/cohort/")
    uvicorn.run(web, host=host, port=port, log_level="warning", access_log=False)


def _draw(target: Path, draw: Callable[[PlotFormat], bytes]) -> None:
    kind = plot_format(target.suffix)
    if kind is None:
        raise InvalidQuery("--plot: the file's name must end in .svg or .png")
    target.write_bytes(draw(kind))


def _check_format(kind: str, output: Path | None, as_json: bool) -> None:
    """Before anything is asked: what cannot be shown need not be found."""
    if kind not in FORMATS:
        raise InvalidQuery(f"--format: found {kind!r}; allowed: {', '.join(FORMATS)}")
    if kind in BINARY and output is None and not as_json:
        raise InvalidQuery(f"--format {kind}: needs --output FILE")


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


def main() -> None:
    """Entry point: an error of the project is one clear message and exit code 2, never a traceback."""
    try:
        app()
    except ProjectError as error:
        Console(stderr=True).print(f"cohort: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(EXIT_USAGE)
