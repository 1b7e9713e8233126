"""The command `cohort`: questions, SQL, tables, clinical data."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
import uvicorn
from fastapi import FastAPI
from rich.console import Console
from rich.table import Table

from bridge.errors import InvalidQuery, ProjectError
from cohort import lake_cli, sandbox, view_cli
from cohort.answer import Answer
from cohort.api import router
from cohort.catalogue import questions as ready_questions
from cohort.catalogue import read_question
from cohort.engine import spark
from cohort.fetch.command import fetch
from cohort.lake import Lake
from cohort.options import (
    DEFAULT_LAKE,
    EXIT_USAGE,
    DateOption,
    GenerationOption,
    JsonOption,
    LakeOption,
    OutputOption,
    ParameterOption,
    QuestionArgument,
    generation_of,
    lake_to_fill,
    on,
    pair,
    question_of,
)
from cohort.out_commands import group, manifest, omop, timeline
from cohort.plots import Format as PlotFormat
from cohort.plots import attrition_plot, comparison_plot, plot_format
from cohort.render import BINARY, FORMATS, PLAIN_WIDTH, rendered, table
from cohort.sandbox import Limits, run_sql
from cohort.sandbox import compare as compare_cohorts
from cohort.schema import catalogue
from cohort.store.place import place

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
ENGINES = {"duckdb": (sandbox.ask, sandbox.attrition), "spark": (spark.ask, spark.attrition)}
for _command in (group, omop, manifest, fetch, timeline):
    app.command()(_command)


@app.command()
def ask(
    name: QuestionArgument,
    param: ParameterOption = [],  # noqa: B006
    date: DateOption = "",
    generation: GenerationOption = "",
    lake: LakeOption = DEFAULT_LAKE,
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
    run = ENGINES[engine][attrition]
    given = dict(map(pair, param))
    answer = run(generation_of(lake, generation), question_of(name), given, on(date), Limits(rows=limit))
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
    lake: LakeOption = DEFAULT_LAKE,
    format: FormatOption = "table",
    output: OutputOption = None,
    as_json: JsonOption = False,
    plot: PlotOption = None,
) -> None:
    """Show two cohorts beside each other: patients by age, gender, modality, scanner, condition.

    Example: cohort compare osteosarcoma-ct osteosarcoma-ct --second modality=MR --plot comparison.svg
    """
    asked = [
        read_question(question_of(name).document, dict(map(pair, given)))
        for name, given in ((first, first_param), (second, second_param))
    ]
    answer = compare_cohorts(generation_of(lake, generation), asked[0], asked[1], on(date))
    if plot is not None:
        _draw(plot, lambda kind: comparison_plot(answer, (asked[0].title, asked[1].title), kind))
    _show(answer, "json" if as_json else format, output)


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="One SELECT; - reads it from standard input")],
    generation: GenerationOption = "",
    lake: LakeOption = DEFAULT_LAKE,
    format: FormatOption = "table",
    output: OutputOption = None,
    as_json: JsonOption = False,
    limit: LimitOption = 10_000,
) -> None:
    """Run one read-only SELECT over the lake's tables.

    Example: cohort sql "SELECT modality, count(*) FROM imaging_series GROUP BY 1"
    """
    text = sys.stdin.read() if query == "-" else query
    _show(run_sql(generation_of(lake, generation), text, Limits(rows=limit)), "json" if as_json else format, output)


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
    lake: LakeOption = DEFAULT_LAKE,
    as_json: JsonOption = False,
) -> None:
    """Show the tables, or one table's columns with unit, description and source.

    Example: cohort tables dicom_series
    """
    known = catalogue()
    if name and name not in known:
        raise InvalidQuery(f"no table {name!r}; known: {', '.join(known)}")
    found = place(lake)
    current = Lake(found).current() if found else None
    rows = {n: t.rows for n, t in current.tables.items()} if current else {}
    wanted = [known[name]] if name else list(known.values())
    if as_json:
        described = [
            {"name": t.name, "title": t.title, "rows": rows.get(t.name, 0), "columns": [c.__dict__ for c in t.columns]}
            for t in wanted
        ]
        typer.echo(orjson.dumps(described, option=orjson.OPT_INDENT_2).decode())
    elif name:
        made = Table("column", "type", "unit", "what it holds", "source", title=wanted[0].title)
        for c in wanted[0].columns:
            made.add_row(c.name, c.type, c.unit, c.description, c.source)
        Console().print(made)
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
def serve(
    lake: LakeOption = DEFAULT_LAKE,
    host: Annotated[str, typer.Option(help="Address to listen on; loopback until you change it")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535)] = 8081,
) -> None:
    """Serve the cohort API and page alone.

    Example: cohort serve --port 8081
    """
    web = FastAPI(title="Cohort", docs_url=None, redoc_url=None)
    web.include_router(router(lake_to_fill(lake)))
    typer.echo(f"Cohort page  http://{host}:{port}/cohort/")
    uvicorn.run(web, host=host, port=port, log_level="warning", access_log=False)


def _draw(target: Path, draw: Callable[[PlotFormat], bytes]) -> None:
    kind = plot_format(target.suffix)
    if kind is None:
        raise InvalidQuery("--plot: the file's name must end in .svg or .png")
    target.write_bytes(draw(kind))


def _show(answer: Answer, kind: str, output: Path | None) -> None:
    if kind not in FORMATS:
        raise InvalidQuery(f"--format: found {kind!r}; allowed: {', '.join(FORMATS)}")
    if kind == "table":
        with output.open("w", encoding="utf-8") if output else _standard_output() as target:
            console = Console(file=target, width=None if target.isatty() else PLAIN_WIDTH)
            console.print(table(answer, console.width))
    elif output is not None:
        output.write_bytes(rendered(answer, kind))
    elif kind in BINARY:
        raise InvalidQuery(f"--format {kind}: needs --output FILE")
    else:
        sys.stdout.buffer.write(rendered(answer, kind) + (b"\n" if kind == "json" else b""))
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
