"""Brings the tables of an older program to what this one needs, and makes them in an empty database, by Alembic.

Revisions only add: tables, indexes, columns that may be null or have a default. So programs of the version before go on
while and after a newer one starts. One that cannot keep to this raises `oldest_program` in `setting`.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, inspect, text

from bridge.errors import ConfigError

NEWEST = "0008"
"""The last revision in `versions`. What it makes is what `bridge.state.schema` says."""


def migrate(connection: Connection) -> None:
    """Does every revision that is missing, within the transaction of the connection: all of them or none.

    Raises  ConfigError when the database is a newer program's that this one cannot work with
    """
    there = found(connection)
    if there == NEWEST:
        return
    if there > NEWEST:
        _check_works_with(connection, there)
        return
    upgrade(connection, NEWEST)


def upgrade(connection: Connection, revision: str) -> None:
    """Does every revision that is missing up to this one, within the transaction of the connection."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def found(connection: Connection) -> str:
    """The revision of the database; "" before the first."""
    if not inspect(connection).has_table("alembic_version"):
        return ""
    return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar() or "")


def _check_works_with(connection: Connection, found: str) -> None:
    oldest = connection.execute(text("SELECT value FROM setting WHERE name = 'oldest_program'")).scalar_one()
    if int(oldest) > int(NEWEST):
        raise ConfigError(
            f"state_url: the database has schema version {int(found)}, this program knows {int(NEWEST)}: "
            "use the newer program"
        )
