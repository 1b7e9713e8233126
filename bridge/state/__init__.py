"""The durable state: work, cursors, snapshots, resources with history. SQLite or PostgreSQL."""

from bridge.state.database import Database
from bridge.state.deliveries import Deliveries
from bridge.state.search import Search

__all__ = ["State"]


class State(Search, Deliveries):
    """Everything that survives a crash, in one database."""

    def __init__(self, url: str) -> None:
        super().__init__(Database(url))

    def close(self) -> None:
        self._db.close()
