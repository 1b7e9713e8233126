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
from cohort.similar import FEATURES, Alike

ALL_FORMATS = (*FORMATS, "fhir")


def outcomes(
    model: Annotated[str, typer.Argument(metavar="[MODEL[@VERSION]]", help="As its findings' device is called")] = "",
    by: Annotated[
        str,
        typer.Option(
            "--by", help="An outcome definition by its name, or a .yaml or .json document; one if only one fits"
        ),
    ] = "",
    reader: Annotated[str, typer.Option("--reader", help="Of this reader's reports instead: the identifier")] = "",
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
    """Show what became of a model's predictions, or of a reader's reports: one row for each, confirmed or refuted by
    later facts.

    The cursor for the next time is the last line of standard error.

    Example: cohort outcomes LungNet@2.1.0 --by lung-nodule-cancer --format parquet --output outcomes.parquet
    """
    if format not in ALL_FORMATS:
        raise InvalidQuery(f"--format: found {format!r}; allowed: {', '.join(ALL_FORMATS)}")
    if format in BINARY and output is None:
        raise InvalidQuery(f"--format {format}: needs --output FILE")
    name, _, version = model.partition("@")
    if bool(model) == bool(reader):
        raise InvalidQuery("MODEL or --reader is needed, one of them")
    if reader and (cursor is not None or generation):
        raise InvalidQuery("--reader: has no cursor, and is answered by the newest generation")
    day = on(date) if date else datetime.now(UTC).date() if generation else None
    at, told, asked_of = desk(lake, config_file), "", generation_of(lake, config_file, generation)
    if not by:
        by = _only(at.definitions_of(asked_of, name, Caller.here("cli")) if model else ())
    wanted = Wanted(definition_of(by), dict(map(pair, param)), name, version or None, day, limit)
    if reader:
        answer, told = at.readings(asked_of, wanted, reader, Caller.here("cli"))
    else:
        found = at.outcomes(asked_of, wanted, Caller.here("cli"), cursor)
        answer, told = found.answer, f"Cursor: {found.cursor}" if found.cursor else ""
    if format == "table":
        Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH).print(table(answer, PLAIN_WIDTH))
    else:
        made = bundle(answer, wanted.definition.name) if format == "fhir" else rendered(answer, format)
        _written(made + (b"\n" if format in ("json", "fhir") else b""), output)
    for note in answer.notes:
        typer.echo(f"Note: {note}", err=True)
    if answer.truncated:
        typer.echo("There are more rows: ask again with the cursor, or raise --limit", err=True)
    if told:
        typer.echo(told[0].upper() + told[1:], err=True)


def similar(
    whom: Annotated[str, typer.Argument(metavar="PATIENT|STUDY", help="A patient, or a Study Instance UID")],
    alike: Annotated[list[str], typer.Option("--alike", help=f"May be repeated: {', '.join(FEATURES)}")] = [],  # noqa: B006
    years: Annotated[int, typer.Option("--years", help="Born at most so many years apart")] = 5,
    by: Annotated[str, typer.Option("--by", help="Their outcomes too, by this definition")] = "",
    generation: GenerationOption = "",
    lake: LakeOption = None,
    config_file: ConfigOption = None,
    format: Annotated[str, typer.Option("--format", "-f", help=f"One of: {', '.join(FORMATS)}")] = "table",
    output: OutputOption = None,
) -> None:
    """Show how many patients are like a patient or a study, their treatments and outcomes. Counts of few are left out.

    Example: cohort similar MRN000001 --alike sex --alike condition --by lung-nodule-cancer
    """
    if format not in FORMATS:
        raise InvalidQuery(f"--format: found {format!r}; allowed: {', '.join(FORMATS)}")
    if format in BINARY and output is None:
        raise InvalidQuery(f"--format {format}: needs --output FILE")
    given = {"features": tuple(alike)} if alike else {}
    wanted = Alike(whom, years=years, outcome=definition_of(by) if by else None, **given)
    answer = desk(lake, config_file).similar(generation_of(lake, config_file, generation), wanted, Caller.here("cli"))
    if format == "table":
        Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH).print(table(answer, PLAIN_WIDTH))
    else:
        _written(rendered(answer, format), output)
    for note in answer.notes:
        typer.echo(f"Note: {note}", err=True)


def _only(names: tuple[str, ...]) -> str:
    if len(names) != 1:
        told = f"{', '.join(names)} speak of its findings" if names else f"known: {', '.join(ready_outcomes())}"
        raise InvalidQuery(f"--by: needed; {told}")
    return names[0]


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
