"""What processes on one database may share out among them, and what of a data folder belongs to one of them alone.

A data folder holds the spool of receivers, what was imported, the lake (unless it is in a bucket), exports, and the log
of questions: all processes on one database share one. Part of the composition root.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Set
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from bridge.config import DimseSource, ReceiverSource, Settings
from bridge.errors import ConfigError
from bridge.model import ALL_ROLES, Role
from bridge.state import State

_NAME = "data_dir"

LEFT_BEHIND_S = 2.0
"""A lock of one that was killed may be held so long by a process that it had just begun."""


def check_roles(settings: Settings, roles: Set[Role]) -> None:
    """Raises ConfigError for roles that a process with these settings cannot have without the others."""
    if _on_sqlite(settings) and roles != ALL_ROLES:
        raise ConfigError(
            "role: one process has all roles on SQLite; several need state_url of one PostgreSQL database"
        )
    if Role.WORK in roles and Role.POLL not in roles:
        moved = [s.name for s in settings.sources if isinstance(s, DimseSource) and s.receiver]
        if moved:
            raise ConfigError(
                f"role: objects that source {moved[0]} has sent by C-MOVE come to the receiver of the process that "
                "asked for them: give the roles poll and work to one process"
            )


@contextmanager
def folder_of(settings: Settings, roles: Set[Role], state: State) -> Iterator[None]:
    """The data folder for a process with these roles, until the block ends.

    On SQLite one process has it. On PostgreSQL any number share it, of which one receives.
    Raises  ConfigError when another process has what this one needs, or it is not the folder of the others
    """
    with ExitStack() as stack:
        if _on_sqlite(settings):
            stack.enter_context(_locked(settings.data_dir / "lock", fcntl.LOCK_EX, _in_use(settings), LEFT_BEHIND_S))
            yield
            return
        stack.enter_context(_locked(settings.data_dir / "lock", fcntl.LOCK_SH, _in_use(settings), LEFT_BEHIND_S))
        if Role.POLL in roles and any(isinstance(s, ReceiverSource) for s in settings.sources):
            taken = (
                f"role: another process with the role poll receives into {settings.data_dir}, and one does so for all: "
                "start this one without poll"
            )
            stack.enter_context(_locked(settings.data_dir / "receivers.lock", fcntl.LOCK_EX, taken, LEFT_BEHIND_S))
        _same_for_all(settings, state)
        yield


@contextmanager
def alone(settings: Settings) -> Iterator[None]:
    """No other process has this data folder until the block ends. Raises ConfigError when one has it."""
    with _locked(settings.data_dir / "lock", fcntl.LOCK_EX, _in_use(settings)):
        yield


def _on_sqlite(settings: Settings) -> bool:
    return settings.database_url.startswith("sqlite")


def _in_use(settings: Settings) -> str:
    return f"data_dir: {settings.data_dir} is in use by another bridge process"


@contextmanager
def _locked(path: Path, how: int, taken: str, wait_s: float = 0.0) -> Iterator[None]:
    with path.open("a") as lock:
        until = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(lock, how | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() >= until:
                    raise ConfigError(taken) from None
                time.sleep(0.05)
        yield


def _same_for_all(settings: Settings, state: State) -> None:
    """Two folders behind one database would each be the whole truth to itself: half a lake, and files that are gone."""
    file = settings.data_dir / "id"
    made = file.with_name(f"id-{uuid4().hex}")
    made.write_text(uuid4().hex, "utf-8")
    with suppress(FileExistsError):
        os.link(made, file)  # whole, or not at all: others may begin at the same moment
    made.unlink()
    mine = file.read_text("utf-8").strip()
    others = state.agree(_NAME, mine)
    if mine != others:
        raise ConfigError(
            f"data_dir: processes on one database share one folder, and {settings.data_dir} is not that of the others. "
            f"If theirs is lost and this one stands for it, write {others} into {file}"
        )
