"""The durable state: work, cursors, snapshots, resources with history. SQLite or PostgreSQL."""

from bridge.state.backfill import Backfill
from bridge.state.backlogs import Backlogs
from bridge.state.database import Database
from bridge.state.documents import StoredDocuments
from bridge.state.kept_documents import KeptDocuments
from bridge.state.model_calls import ModelCalls
from bridge.state.reader_reports import ReaderReports
from bridge.state.reconciled import Reconciled
from bridge.state.retranslation import Retranslation
from bridge.state.search import Search
from bridge.state.subscriptions import Subscriptions

__all__ = ["State"]


class State(
    Search,
    Subscriptions,
    Retranslation,
    StoredDocuments,
    KeptDocuments,
    ReaderReports,
    ModelCalls,
    Backlogs,
    Reconciled,
    Backfill,
):
    """Everything that survives a crash, in one database."""

    def __init__(self, url: str) -> None:
        super().__init__(Database(url))

    def close(self) -> None:
        self._db.close()
