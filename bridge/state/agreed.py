"""What all processes on one database agree on."""

from __future__ import annotations

from sqlalchemy import select

from bridge.state.deliveries import Deliveries
from bridge.state.schema import setting


class Agreed(Deliveries):
    """Single values that are the same for every process."""

    def agreed(self, name: str) -> str | None:
        """The value of this name; None before the first."""
        with self._db.read() as connection:
            return connection.execute(select(setting.c.value).where(setting.c.name == name)).scalar()

    def agree(self, name: str, value: str) -> str:
        """The value of the first that said one."""
        first = self._insert(setting).values(name=name, value=value).on_conflict_do_nothing()
        with self._db.write() as connection:
            connection.execute(first)
            return str(connection.execute(select(setting.c.value).where(setting.c.name == name)).scalar_one())
