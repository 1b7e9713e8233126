"""Rows of a SQLite state are sealed (`bridge.state.seal`): a program that knows no checksums may not write them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        connection.execute(sa.text("UPDATE setting SET value = '7' WHERE name = 'oldest_program'"))
