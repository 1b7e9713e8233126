"""The state, for commands that look at it. Part of the composition root."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bridge import config
from bridge.errors import ConfigError
from bridge.state import State


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
