"""Options that the commands of `bridge` share, and the settings they mean."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bridge import config

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="The TOML file; without it the embedded defaults", show_default=False),
]
DataOption = Annotated[Path, typer.Option("--data-dir", help="Where state lives, when there is no --config")]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output")]

DATA_DIR = Path("bridge-data")


def settings_of(path: Path | None, data_dir: Path) -> config.Settings:
    """The settings that --config names, else the embedded ones. Raises ConfigError."""
    return config.load(path) if path else config.embedded(data_dir)
