"""The commands that bring a cohort out: `cohort group`, `omop`, `manifest` and `timeline`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import orjson
import typer
from rich.console import Console

from bridge.command_line import EXIT_PARTIAL
from bridge.errors import ConfigError, InvalidQuery
from cohort.desk import Caller
from cohort.group import group as fhir_group
from cohort.manifest import manifest as dicom_manifest
from cohort.omop import LEFT_OUT
from cohort.omop import omop as omop_tables
from cohort.omop_maps import CONCEPTS, PERSONS, ConceptMap, PersonMap
from cohort.options import (
    ConfigOption,
    DateOption,
    LakeOption,
    OutputOption,
    ParameterOption,
    QuestionArgument,
    desk,
    exported,
    generation_of,
)
from cohort.render import PLAIN_WIDTH, timeline_table
from cohort.timeline_plot import MEDIA_TYPES, drawn

SHOWN_LEFT_OUT = 20


def group(
    question: QuestionArgument,
    param: ParameterOption = [],  # noqa: B006
    date: DateOption = "",
    lake: LakeOption = None,
    config_file: ConfigOption = None,
    fhir: Annotated[Literal["r4", "r5"], typer.Option("--fhir", help="FHIR version")] = "r4",
    output: OutputOption = None,
) -> None:
    """Write the patients of a question as a FHIR Group with members.

    Example: cohort group osteosarcoma-ct --fhir r4 --output group.json
    """
    with exported("group", question, param, date, lake, config_file) as selection:
        made = fhir_group(selection, fhir)
    _write(orjson.dumps(made, option=orjson.OPT_INDENT_2) + b"\n", output)


def manifest(
    question: QuestionArgument,
    param: ParameterOption = [],  # noqa: B006
    date: DateOption = "",
    lake: LakeOption = None,
    config_file: ConfigOption = None,
    format: Annotated[Literal["json", "csv"], typer.Option("--format", "-f")] = "json",
    output: OutputOption = None,
) -> None:
    """List the studies and series of a question with their WADO-RS addresses.

    Example: cohort manifest osteosarcoma-ct --format csv --output manifest.csv
    """
    with exported("manifest", question, param, date, lake, config_file) as selection:
        made = dicom_manifest(selection)
    _write(made.as_csv() if format == "csv" else made.as_json() + b"\n", output)


def omop(
    question: QuestionArgument,
    to: Annotated[Path, typer.Option("--to", help="A folder; what it holds of an earlier export is replaced")],
    param: ParameterOption = [],  # noqa: B006
    date: DateOption = "",
    lake: LakeOption = None,
    config_file: ConfigOption = None,
    format: Annotated[Literal["csv", "parquet"], typer.Option("--format", "-f")] = "parquet",
) -> None:
    """Write the images of a question as OMOP tables. Exit code 1 when something could not be written.

    person_map.csv and concept_map.csv in the folder say which person a patient is and which concept a code is:
    complete them, and export again.

    Example: cohort omop osteosarcoma-ct --to omop/
    """
    persons, concepts = PersonMap.read(to / PERSONS), ConceptMap.read(to / CONCEPTS)
    with exported("omop", question, param, date, lake, config_file) as selection:
        made = omop_tables(selection, persons, concepts)
    _prepare(to)
    for name, content in made.files(format).items():
        _replace(to / name, content)
    for name, rows in made.tables.items():
        typer.echo(f"{name}: {len(rows)} rows")
    if concepts.missing:
        typer.echo(f"{concepts.missing} codes have no concept_id yet: complete {to / CONCEPTS} and export again")
    for what, id_, reason in made.left_out[:SHOWN_LEFT_OUT]:
        typer.echo(f"Left out: {what} {id_}: {reason}", err=True)
    if made.left_out:
        typer.echo(f"{len(made.left_out)} left out: see {to / LEFT_OUT}", err=True)
    raise typer.Exit(EXIT_PARTIAL if made.left_out else 0)


def timeline(
    patient: Annotated[str, typer.Argument(metavar="PATIENT", help="A patient_id, or the value of an identifier")],
    lake: LakeOption = None,
    config_file: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON")] = False,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw it to this .png or .svg file")] = None,
) -> None:
    """Show what happened to one patient, in order: conditions, medications, procedures, observations that matter to
    imaging, studies, findings, reports.

    Example: cohort timeline MRN000001 --plot timeline.png
    """
    if plot is not None and plot.suffix.lstrip(".").lower() not in MEDIA_TYPES:
        raise InvalidQuery("--plot: allowed are names that end in .png or .svg")
    generation = generation_of(lake, config_file)
    made = desk(lake, config_file).timeline(generation, patient, Caller.here("cli"))
    if plot is not None:
        _replace(plot, drawn(made, "svg" if plot.suffix.lower() == ".svg" else "png"))
        typer.echo(f"{len(made.events)} events drawn to {plot}")
    elif as_json:
        _write(made.as_json() + b"\n", None)
    else:
        console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)
        console.print(timeline_table(made))
    if made.truncated:
        typer.echo("There are more events than are shown", err=True)


def _write(content: bytes, output: Path | None) -> None:
    if output is None:
        sys.stdout.buffer.write(content)
    else:
        _replace(output, content)


def _prepare(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be made ({error.strerror})") from None


def _replace(path: Path, content: bytes) -> None:
    """The file as a whole or as it was: a part is never left under its name."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror})") from None
