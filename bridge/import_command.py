"""The command `bridge import`. Part of the composition root."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bridge.command_line import EXIT_PARTIAL
from bridge.import_files import import_files
from bridge.import_report import show
from bridge.options import DATA_DIR, ConfigOption, DataOption, JsonOption, settings_of


def import_(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Folders, files, zip, tar and tar.gz")],
    config_file: ConfigOption = None,
    data_dir: DataOption = DATA_DIR,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Leave the files where they are and follow them")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring files into the pipeline once. Copied into data_dir, so that a disc may be taken out afterwards.

    Exit code 1 when something was parked or the import was interrupted. Starting it again goes on.

    Example: bridge import /media/cdrom export.zip
    """
    summary = import_files(settings_of(config_file, data_dir), paths, Console(stderr=as_json), in_place)
    if as_json:
        typer.echo(json.dumps(summary.as_json(), indent=2))
    else:
        show(summary, Console())
    raise typer.Exit(EXIT_PARTIAL if summary.parked or summary.interrupted else 0)
