from __future__ import annotations

import contextlib
import fcntl
import threading
from pathlib import Path

import pytest

from bridge import config
from bridge.compose import Bridge
from bridge.errors import ConfigError
from bridge.model import ALL_ROLES, Role
from bridge.roles import alone, check_roles, folder_of
from bridge.state import State

POSTGRESQL = "postgresql+psycopg://bridge@db.example/bridge"


def moving(tmp_path: Path) -> config.Settings:
    """A receiver, and an archive that sends to it by C-MOVE."""
    return config.parse(
        {
            "data_dir": tmp_path,
            "state_url": POSTGRESQL,
            "sources": [
                {"kind": "receiver", "name": "receiver"},
                {
                    "kind": "dimse", "name": "pacs", "host": "pacs.example", "port": 104, "ae_title": "PACS",
                    "retrieve": "move", "retrieve_policy": "all", "receiver": "receiver",
                },
            ],
        }
    )  # fmt: skip


def test_on_sqlite_one_process_has_all_roles(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="SQLite"):
        Bridge(config.Settings(data_dir=tmp_path), roles=frozenset({Role.WORK}))
    check_roles(config.Settings(data_dir=tmp_path), ALL_ROLES)


def test_what_is_moved_comes_to_the_process_that_asked_for_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="source pacs has sent by C-MOVE"):
        check_roles(moving(tmp_path), frozenset({Role.WORK}))
    for roles in ({Role.POLL, Role.WORK}, {Role.DELIVER}, {Role.SERVE}):
        check_roles(moving(tmp_path), frozenset(roles))


def test_a_lock_that_was_left_behind_for_a_moment_keeps_nobody_from_starting(tmp_path: Path) -> None:
    settings, state = config.embedded(tmp_path), State(f"sqlite:///{tmp_path / 's.sqlite'}")
    with contextlib.closing(state), (tmp_path / "lock").open("a") as left:
        fcntl.flock(left, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="in use by another"), alone(settings):
            pass
        freed = threading.Timer(0.3, fcntl.flock, (left, fcntl.LOCK_UN))
        freed.start()
        with folder_of(settings, ALL_ROLES, state):
            freed.join()
