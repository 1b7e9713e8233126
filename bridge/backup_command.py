"""The commands `bridge backup` and `bridge restore`. Part of the composition root."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bridge import config
from bridge.backup import back_up, read_manifest
from bridge.backup import restore as put_back
from bridge.errors import ConfigError
from bridge.options import DATA_DIR, ConfigOption, DataOption, JsonOption, settings_of
from bridge.roles import alone
from bridge.verify_command import parts

FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the backup")]


def backup(
    folder: FolderArgument,
    config_file: ConfigOption = None,
    data_dir: DataOption = DATA_DIR,
    as_json: JsonOption = False,
) -> None:
    """Save state, spool and lake in a new folder, while the bridge runs.

    The state in PostgreSQL and a lake in an S3-compatible store are copied into the folder as well. Files that never
    change are linked where the folder is on the same disk: copy the folder to another one afterwards.

    Example: bridge backup /backup/monday
    """
    with Console(stderr=True).status("Saving") as status:
        manifest = back_up(settings_of(config_file, data_dir), folder, lambda what: status.update(f"Saving {what}"))
    told = f"Saved {manifest['spool_files']} files of the spool and {manifest['lake_files']} of the lake, and the state"
    typer.echo(json.dumps(manifest) if as_json else told)


def restore(
    folder: FolderArgument,
    config_file: ConfigOption = None,
    data_dir: DataOption = DATA_DIR,
    as_json: JsonOption = False,
) -> None:
    """Put a backup back into a data folder, a database and a bucket that have nothing yet, after verifying it. Then
    start `bridge run`.

    Example: bridge restore /backup/monday --data-dir bridge-data
    """
    settings = settings_of(config_file, data_dir)
    read_manifest(folder)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with alone(settings), Console(stderr=True).status("Verifying the backup") as status:
        damaged = [each["what"] for one in parts(config.embedded(folder)) for each in one.damaged]
        if damaged:
            raise ConfigError(f"{folder}: {len(damaged)} parts of the backup are damaged: bridge verify --data-dir DIR")
        manifest = put_back(settings, folder, time.time(), lambda what: status.update(f"Restoring {what}"))
    typer.echo(json.dumps(manifest) if as_json else f"Restored what was saved {manifest['made']}. Start: bridge run")
