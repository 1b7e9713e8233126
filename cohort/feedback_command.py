"""The command `cohort outcomes`: what became of a model's predictions."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bridge.errors import InvalidQuery
from cohort.catalogue import outcome, outcome_file
from cohort.catalogue import outcomes as ready_outcomes
from cohort.desk import Caller
from cohort.feedback import Wanted
from cohort.options import (
    DOCUMENTS,
    ConfigOption,
    GenerationOption,
    LakeOption,
    OutputOption,
    ParameterOption,
    desk,
    generation_of,
    on,
    pair,
)
from cohort.outcome import Definition
from cohort.outcome_fhir import bundle
from cohort.render import BINARY, FORMATS, PLAIN_WIDTH, rendered, table

ALL_FORMATS = (*FORMATS, "fhir")


def outcomes(
    model: Annotated[str, typer.Argument(metavar="MODEL[@VERSION]", help="As the device of its findings is called")],
    by: Annotated[str, typer.Option("--by", help="An outcome definition by its name, or a .yaml or .json document")],
    cursor: Annotated[
        str | None, typer.Option(help="Only what is new or has changed since", show_default=False)
    ] = None,
    param: ParameterOption = [],  # noqa: B006
    date: Annotated[str, typer.Option("--date", help="As of this day, YYYY-MM-DD, without changes")] = "",
    generation: GenerationOption = "",
    lake: LakeOption = None,
    config_file: ConfigOption = None,
    format: Annotated[str, typer.Option("--format", "-f", help=f"One of: {', '.join(ALL_FORMATS)}")] = "table",
    output: OutputOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000_000, help="Rows at most")] = 10_000,
) -> None:
    """Show what became of a model's predictions: one row for each, confirmed or refuted by later facts.

    The cursor for the next time is the last line of standard error.

    Example: cohort outcomes LungNet@2.1.0 --by lung-nodule-cancer --format parquet --output outcomes.parquet
    """
    if format not in ALL_FORMATS:
        raise InvalidQuery(f"--format: found {format!r}; allowed: {', '.join(ALL_FORMATS)}")
    if format in BINARY and output is None:
        raise InvalidQuery(f"--format {format}: needs --output FILE")
    name, _, version = model.partition("@")
    day = on(date) if date else datetime.now(UTC).date() if generation else None
    wanted = Wanted(definition_of(by), dict(map(pair, param)), name, version or None, day, limit)
    found = desk(lake, config_file).outcomes(
        generation_of(lake, config_file, generation), wanted, Caller.here("cli"), cursor
    )
    answer = found.answer
    if format == "table":
        Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH).print(table(answer, PLAIN_WIDTH))
    else:
        made = bundle(answer, wanted.definition.name) if format == "fhir" else rendered(answer, format)
        _written(made + (b"\n" if format in ("json", "fhir") else b""), output)
    for note in answer.notes:
        typer.echo(f"Note: {note}", err=True)
    if answer.truncated:
        typer.echo("There are more rows: ask again with the cursor, or raise --limit", err=True)
    if found.cursor:
        typer.echo(f"Cursor: {found.cursor}", err=True)


def definition_of(name: str) -> Definition:
    """A ready outcome definition by its name, or the document in a file. Raises InvalidQuery."""
    if Path(name).suffix in DOCUMENTS:
        return outcome_file(Path(name))
    if name not in ready_outcomes():
        raise InvalidQuery(f"--by: no outcome {name!r}; known: {', '.join(ready_outcomes())}")
    return outcome(name)


def _written(content: bytes, output: Path | None) -> None:
    """To the file, as a whole or not at all: the cursor is told after it."""
    if output is None:
        sys.stdout.buffer.write(content)
        return
    part = output.with_name(f"{output.name}.part")
    try:
        part.write_bytes(content)
        part.replace(output)
    except OSError as error:
        raise InvalidQuery(f"--output: {output.name} cannot be written ({error.strerror})") from None
