"""The commands that ask: `cohort ask`, `compare`, `sql` and `shell`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bridge.command_line import EXIT_PARTIAL
from bridge.errors import InvalidQuery
from cohort import progress
from cohort.answer import Answer
from cohort.catalogue import read_question
from cohort.desk import ENGINES, Caller
from cohort.options import (
    ConfigOption,
    DateOption,
    GenerationOption,
    JsonOption,
    LakeOption,
    OutputOption,
    ParameterOption,
    QuestionArgument,
    desk,
    generation_of,
    on,
    pair,
    question_of,
)
from cohort.plots import Format as PlotFormat
from cohort.plots import attrition_plot, comparison_plot, plot_format
from cohort.render import BINARY, FORMATS, PLAIN_WIDTH, rendered, table
from cohort.sandbox import Limits
from cohort.shell import Shell, piped, typed

FormatOption = Annotated[str, typer.Option("--format", "-f", help=f"One of: {', '.join(FORMATS)}")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=1_000_000, help="Rows at most")]
PlotOption = Annotated[Path | None, typer.Option("--plot", help="Draw it too, .svg or .png", show_default=False)]


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
        with output.open("w", encoding="utf-8") if output else nullcontext(sys.stdout) as target:
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
