"""What followers ask of the state, and the values they exchange."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from bridge.model import Change, Resource, StoredResource
from bridge.ports import Claim, WorkTable

EXPORT_QUEUE = "export"
"""Exports to be written; key: the job's id."""

SUBSCRIPTION_QUEUE = "subscription"
"""Subscriptions whose receiver is to be told something; key: Subscription.id. Recurring."""


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


class SubscriptionStatus(StrEnum):
    """FHIR R4 Subscription.status, required binding."""

    REQUESTED = "requested"
    ACTIVE = "active"
    ERROR = "error"
    OFF = "off"


@dataclass(frozen=True)
class Subscription:
    """One Subscription: what a client asked for, and how far its receiver has been told. Times in seconds.

    Result  `content` as the client wrote it, with the values of headers; `fhir_version` in which; `position` the
            revision up to which changes have become events; `events` the number of the last event, `delivered` of
            the last one the receiver took; `greeted_at` when it took the handshake, 0 before; `notified_at` when it
            last took anything; `failures` one after another since `failing_since`, 0 and None when all is well
    """

    id: str
    version: int
    fhir_version: str
    content: Resource
    status: SubscriptionStatus
    created_at: float
    updated_at: float
    error: str = ""
    position: int = 0
    events: int = 0
    delivered: int = 0
    greeted_at: float = 0.0
    notified_at: float = 0.0
    failures: int = 0
    failing_since: float | None = None


@dataclass(frozen=True)
class Event:
    """One event of a Subscription: its number, from 1 without a gap, and the change it tells."""

    number: int
    change: Change


class SubscriptionState(History, WorkTable, Protocol):
    """What notifying needs of the state. What names a version does nothing once the client wrote another one."""

    def subscription(self, id_: str) -> Subscription | None: ...

    def read_resource(self, resource_type: str, id_: str, version: int | None = None) -> StoredResource | None: ...

    def wake_subscriptions(self, revision: int, now: float) -> None:
        """Marks those that work and have not seen this revision."""
        ...

    def record_events(self, subscription: Subscription, revisions: Sequence[int], position: int) -> Subscription | None:
        """Gives the next numbers to these revisions; None when the subscription is another one by now."""
        ...

    def events(self, id_: str, after: int, limit: int) -> list[Event]: ...

    def note_taken(self, subscription: Subscription, delivered: int, now: float) -> Subscription | None:
        """The receiver took everything up to an event: the subscription is active and all is well."""
        ...

    def note_failure(self, subscription: Subscription, status: SubscriptionStatus, error: str, now: float) -> None: ...
