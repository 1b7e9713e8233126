"""The command `bridge map`. Part of the composition root."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bridge import config
from bridge.map_files import Files
from bridge.map_report import BundleReport, JsonReport, Report, TextReport
from bridge.translation import translator


class FhirVersion(StrEnum):
    """The version of FHIR that elements and resources are told in."""

    R4 = "R4"


def map_files(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="DICOM files, and folders of them")],
    config_file: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="The TOML file, for its issuers and time zone", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output")] = False,
    values: Annotated[
        bool, typer.Option("--values", help="Show some of the values, too: they are a patient's")
    ] = False,
    resources: Annotated[
        bool, typer.Option("--resources", help="Print the resources as a FHIR Bundle instead: they are a patient's")
    ] = False,
    fhir: Annotated[FhirVersion, typer.Option("--fhir", help="Version of FHIR")] = FhirVersion.R4,
) -> None:
    """Show what becomes of every attribute of DICOM files: its FHIR element, its column, or why it is left out.

    Needs no server and keeps nothing. Exit code 1 when a file, an instance or a value was rejected.

    Example: bridge map --values scans/ slice7.dcm
    """
    settings = config.load(config_file) if config_file else config.embedded()
    writer: Report = TextReport(Console())
    if resources:
        writer = BundleReport(f"{settings.public_url}/fhir")
    elif as_json:
        writer = JsonReport(fhir.value)
    files = Files(paths, Console(stderr=True))
    fine = True
    for study in files.explained(translator(settings, {}), values):
        writer.study(study)
        fine = fine and not study.rejected
    writer.end(files.not_used)
    raise typer.Exit(0 if fine and files.all_used else 1)
