"""What followers ask of the state, and the values they exchange."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from bridge.model import Change, StoredResource
from bridge.ports import Claim, WorkTable

EXPORT_QUEUE = "export"
"""Exports to be written; key: the job's id."""


@dataclass(frozen=True)
class ExportFile:
    """One NDJSON file of an export: resources of one type, or Bundles of deletions."""

    resource_type: str
    name: str
    count: int
    deleted: bool = False


@dataclass(frozen=True)
class ExportJob:
    """One export: what was asked for, and what has become of it. Times are seconds since the epoch.

    Result  `revision` the point of the history it shows; `transaction_time` when that was; `since` leaves out what
            did not change since, 0 for nothing; `written` resources so far; `finished_at` None until it is done;
            `error` why it failed, else ""
    """

    id: str
    request: str
    resource_types: tuple[str, ...]
    since: float
    revision: int
    transaction_time: float
    created_at: float
    written: int = 0
    finished_at: float | None = None
    files: tuple[ExportFile, ...] = ()
    error: str = ""


class History(Protocol):
    """The resources as they were and are."""

    def latest_revision(self) -> int: ...

    def time_of(self, revision: int) -> float: ...

    def changes(self, since: int, limit: int, resource_type: str = "") -> list[Change]: ...

    def held_at(self, revision: int, resource_type: str, since: float) -> Iterator[Change]: ...

    def versions(self, changes: Sequence[Change]) -> list[StoredResource]: ...


class ExportState(History, WorkTable, Protocol):
    """What writing exports needs of the state."""

    def exports(self) -> list[ExportJob]: ...

    def export(self, id_: str) -> ExportJob | None: ...

    def export_written(self, id_: str, written: int) -> bool:
        """Notes how far it is; False when the export was removed."""
        ...

    def finish_export(self, claim: Claim, files: Sequence[ExportFile], error: str, now: float) -> None: ...

    def remove_export(self, id_: str) -> bool: ...
