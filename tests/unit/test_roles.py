from __future__ import annotations

from pathlib import Path

import pytest

from bridge import config
from bridge.compose import Bridge
from bridge.errors import ConfigError
from bridge.model import ALL_ROLES, Role
from bridge.roles import check_roles

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
