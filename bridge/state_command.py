"""What the commands that look at the state share: their options, and the state itself. Part of the composition root."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from bridge import config
from bridge.errors import ConfigError
from bridge.state import State

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="The TOML file; without it the embedded defaults", show_default=False),
]
DataOption = Annotated[Path, typer.Option("--data-dir", help="Where state lives, when there is no --config")]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output")]

EXIT_PARTIAL, EXIT_USAGE = 1, 2
DATA_DIR = Path("bridge-data")


def settings_of(path: Path | None, data_dir: Path) -> config.Settings:
    """The settings that --config names, else the embedded ones. Raises ConfigError."""
    return config.load(path) if path else config.embedded(data_dir)


@contextmanager
def opened_state(settings: config.Settings) -> Iterator[State]:
    """The state, also beside a running bridge. Raises ConfigError when there is none yet."""
    if settings.database_url.startswith("sqlite") and not (settings.data_dir / "state.sqlite").exists():
        raise ConfigError(f"data_dir: no state in {settings.data_dir}: has `bridge run` been started there?")
    state = State(settings.database_url)
    try:
        yield state
    finally:
        state.close()
