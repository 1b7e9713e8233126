"""The ports: what a source, a sink and the state must do. The loops know nothing else of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Protocol, runtime_checkable

from bridge.errors import ProjectError
from bridge.model import (
    IndexedFile,
    InstanceName,
    KeptDocument,
    KeptReport,
    KeptResult,
    Receipt,
    Rejection,
    StoredResource,
    StudyResult,
    StudyState,
    WadoEndpoint,
)
from bridge.translate.headers import Headers
from bridge.translate.procedure_step import ProcedureStep

STUDY_QUEUE = "study"
"""Studies that may have changed; key: Study Instance UID."""

BACKFILL_QUEUE = "backfill"
"""Studies to be read when no other is due; key: source/Study Instance UID."""

POLL_QUEUE = "poll"
"""Sources to look at for changes; key: source. Recurring."""

SWEEP_QUEUE = "sweep"
"""Sources to compare as a whole; key: source. Recurring."""

VERIFY_QUEUE = "verify"
"""Sources of which a bounded part of what is held is compared, one part after another; key: source. Recurring."""

RECHECK_QUEUE = "recheck"
"""Sinks of which a part of what was delivered is compared again, one part after another; key: sink. Recurring."""

RETRANSLATE_QUEUE = "retranslate"
"""While everything known is translated again, part by part, since the translation changed; key: `all`."""

INSTANCE_QUEUE = "instance"
"""Parked instances; key: Study Instance UID/source/instance or path."""


def file_queue(source: str) -> str:
    """The queue in which a source's unreadable files and feed entries are parked; key: path or entry."""
    return f"file:{source}"


def sink_queue(sink: str) -> str:
    """Studies a sink must be made to match; key: Study Instance UID."""
    return f"sink:{sink}"


def send_queue(archive: str) -> str:
    """Studies of whose results an archive is to hold the documents; key: Study Instance UID."""
    return f"send:{archive}"


def model_queue(model: str) -> str:
    """Studies that a model may have to look at; key: Study Instance UID."""
    return f"model:{model}"


@dataclass(frozen=True)
class ChangePage:
    """One page of a source's changes. Its marks, its files and its position become durable together.

    Result  `studies` Study Instance UIDs that may have changed; `position` the opaque cursor for the next call
            ("" leaves it where it is);
            `caught_up` False when more can be read at once; `files`/`gone` what a source of files has indexed or
            no longer finds; `rejected` what it could not read; `accepted` keys that were rejected once and are
            readable now (their parked entries are removed).
    """

    studies: frozenset[str]
    position: str
    caught_up: bool
    files: tuple[IndexedFile, ...] = ()
    gone: tuple[str, ...] = ()
    rejected: tuple[Rejection, ...] = ()
    accepted: tuple[str, ...] = ()
    resweep: bool = False
    """The source was reset: every study known of it must be compared with its inventory."""
    recount: frozenset[str] = frozenset()
    """Studies that changed only if the source does not hold as many instances of them as it did when they were read."""


@dataclass(frozen=True)
class StudyHeaders:
    """What one archive holds of one study now. No instances = the archive does not have it (any more)."""

    instances: tuple[Headers, ...]
    held: int = 0
    """How many instances (or files) the source holds of it, usable or not: what its inventory counts."""
    rejected: tuple[Rejection, ...] = ()
    procedure_steps: tuple[ProcedureStep, ...] = ()
    """Steps the source was told of that name the study, whether it holds instances or not."""


class ImagingSource(Protocol):
    """An archive, a folder, a receiver: anything studies come from. Raises SourceUnavailable when it cannot answer."""

    @property
    def name(self) -> str: ...

    @property
    def endpoint(self) -> WadoEndpoint | None: ...

    @property
    def poll_s(self) -> float: ...

    @property
    def sweep_s(self) -> float: ...

    @property
    def verify_s(self) -> float:
        """Seconds between passes of `count` over a part of what is held; 0: `changes` miss no deletion."""
        ...

    def changes(self, position: str | None) -> ChangePage: ...

    def read(self, study_instance_uid: str) -> StudyHeaders: ...

    def inventory(self) -> Iterator[tuple[str, int]]:
        """Every study the source holds now, with its number of instances. Raises rather than giving only a part."""
        ...

    def count(self, study_instance_uids: Sequence[str]) -> Mapping[str, int]:
        """How many instances the source holds now of each of these studies, counted as `inventory` does; 0 = gone."""
        ...


@runtime_checkable
class GivesObjects(Protocol):
    """A source that can hand over whole objects, one by one, and not only their headers."""

    @property
    def gives_objects(self) -> bool:
        """False where its settings do not let it."""
        ...

    def instance(self, name: InstanceName, most_bytes: int) -> bytes | None:
        """The first so many bytes of an instance as a Part 10 file, all of it when it is not larger; None when the
        source does not have it. Raises InvalidFile when it has it and cannot give it, SourceUnavailable."""
        ...


@runtime_checkable
class TellsNoChanges(Protocol):
    """A source that cannot tell what changes in old studies: a patient renamed leaves every count as it was. In each
    verify pass some of the studies held are read again, whatever their counts say, one after another and round again.
    """

    @property
    def rereads_per_pass(self) -> int: ...


@runtime_checkable
class KnowsTotal(Protocol):
    """A source that can tell cheaply how many instances it holds of all studies: verify passes make haste when some
    are missing. It need not be exact: what it does not show, the passes find at their own pace."""

    def total(self) -> int | None:
        """How many instances there are now; None when that cannot be told."""
        ...


@runtime_checkable
class ListsByDate(Protocol):
    """A source that can list its studies by their dates."""

    def listed(self, first: date | None, last: date | None) -> Iterator[tuple[str, date | None]]:
        """Every study of these days, both included, with its StudyDate; without ends those of no date as well. Raises
        SourceUnavailable."""
        ...


class FileIndex(Protocol):
    """What a source of files remembers of them between looks."""

    def known_files(self, source: str) -> dict[str, tuple[int, int]]: ...

    def study_files(self, source: str, study_instance_uid: str) -> tuple[str, ...]: ...

    def file_studies(self, source: str, paths: Sequence[str]) -> dict[str, str]: ...

    def indexed_studies(self, source: str) -> Iterator[tuple[str, int]]: ...

    def file_counts(self, source: str, studies: Sequence[str]) -> dict[str, int]: ...

    def instance_files(self, source: str, sop_instance_uids: Sequence[str]) -> dict[str, tuple[str, ...]]: ...

    def replayed_files(self, source: str) -> tuple[str, ...]: ...


class Sink(Protocol):
    """A receiver of what the bridge knows. Idempotent: the same state twice changes nothing.

    `deliver` gives one outcome for each state, in order: a Receipt or None for success, or the error (RejectedInput:
    park; Conflict: retry this one; SinkUnavailable: retry). An error that concerns all of them may be raised.
    """

    @property
    def name(self) -> str: ...

    @property
    def batch_size(self) -> int: ...

    @property
    def wants_rows(self) -> bool: ...

    def deliver(self, states: Sequence[StudyState]) -> Sequence[Receipt | ProjectError | None]: ...


@dataclass(frozen=True)
class Claim:
    """One leased row of the work table."""

    queue: str
    key: str
    generation: int
    attempts: int
    worker: str
    first_marked_at: float
    """Since when it waits, in seconds since the epoch; what a study's change led to waits since that change."""


@dataclass(frozen=True)
class WorkItem:
    """One row of the work table as people see it. Times are seconds since the epoch."""

    queue: str
    key: str
    generation: int
    due_at: float
    first_marked_at: float
    attempts: int
    leased_until: float | None
    parked: bool
    error: str
    evidence: Mapping[str, str | int]


@dataclass(frozen=True)
class Wait:
    """Seconds: work is due once no mark came for `quiet_s`, but never later than `max_wait_s` after the first."""

    quiet_s: float = 0.0
    max_wait_s: float = 0.0


@dataclass(frozen=True)
class Backlog:
    """How much there is in a queue.

    Result  `waiting` rows; `failing` of them that failed before; `parked` besides; `oldest` first mark of those that
            wait, in seconds since the epoch, or None
    """

    queue: str
    waiting: int
    failing: int
    parked: int
    oldest: float | None

    def with_(self, other: Backlog) -> Backlog:
        """Both together, under this name."""
        oldest = min((o for o in (self.oldest, other.oldest) if o is not None), default=None)
        return Backlog(
            self.queue, self.waiting + other.waiting, self.failing + other.failing, self.parked + other.parked, oldest
        )


@dataclass(frozen=True)
class Turn:
    """How one recurring piece of work goes.

    Result  `due_since` when it was, or is, due after its last success, in seconds since the epoch; `attempts` failures
            since then, `error` the last of them
    """

    due_since: float
    attempts: int
    error: str


class LeaseLost(Exception):
    """The work was taken over by another worker, or removed: what was done for it must not be committed."""


class Leases(Protocol):
    """The leases that a process has, and each of its workers."""

    def renew_process(self, process: str, now: float, lease_s: float) -> None:
        """Extends all of them: the process is alive."""
        ...

    def give_back(self, worker: str) -> None:
        """Ends all that a worker has: it works on nothing."""
        ...


class WorkTable(Protocol):
    """The one durable mechanism. Times are seconds since the epoch, given by the caller."""

    def mark(
        self, queue: str, keys: Iterable[str], now: float, quiet_s: float = 0.0, max_wait_s: float = 0.0
    ) -> None: ...

    def claim(self, queue: str, now: float, lease_s: float, limit: int, worker: str) -> list[Claim]: ...

    def due(self, queues: Sequence[str], now: float) -> frozenset[str]:
        """Those of the queues that have a key to claim now."""
        ...

    def move_back(self, back_s: float, now: float, lease_s: float) -> None:
        """The clock went back by so many seconds: what is due later, and leases, move with it."""
        ...

    def renew(self, claim: Claim, now: float, lease_s: float) -> bool: ...

    def done(self, claim: Claim, now: float) -> None: ...

    def retry(self, claim: Claim, now: float, delay_s: float, error: str) -> None: ...

    def reschedule(self, claim: Claim, due_at: float) -> None: ...

    def ensure(self, queue: str, keys: Iterable[str], now: float) -> None: ...

    def park(self, claim: Claim, now: float, error: str, evidence: Mapping[str, str | int]) -> None: ...


class PipelineState(WorkTable, Protocol):
    """What the loops need of the state."""

    def position(self, source: str) -> str | None: ...

    def commit_page(self, source: str, page: ChangePage, now: float, quiet_s: float, max_wait_s: float) -> None: ...

    def mark_studies(self, source: str, studies: Iterable[str], now: float) -> None: ...

    def backfill(self, source: str, studies: Iterable[tuple[str, date | None]], now: float) -> None:
        """Marks studies to be read when no other is due, the newest first."""
        ...

    def due_in(self, queue: str, now: float, most: int) -> int: ...

    def commit_backfill(self, claims: Sequence[Claim], now: float) -> None:
        """Ends the claims, and marks their studies to be read now."""
        ...

    def hinted(self, study_instance_uid: str) -> dict[str, int]:
        """source → hint number, for every source with a hint newer than its snapshot."""
        ...

    def snapshots(self, study_instance_uid: str) -> dict[str, tuple[Headers, ...]]: ...

    def procedure_steps(self, study_instance_uid: str) -> dict[str, tuple[ProcedureStep, ...]]: ...

    def commit_snapshot(self, claim: Claim, source: str, hint: int, headers: StudyHeaders, now: float) -> None:
        """What the source held of the claimed study when it was read after `hint`. Raises LeaseLost."""
        ...

    def rejections(self, study_instance_uid: str) -> tuple[Rejection, ...]: ...

    def commit_study(
        self,
        claim: Claim,
        result: StudyResult,
        sinks: Sequence[str],
        row_sinks: Sequence[str],
        now: float,
        finished: bool = True,
        followed_by: Mapping[str, Wait] | None = None,
    ) -> bool: ...

    def clear_replayed(self, source: str, before: float) -> None: ...

    def held(self, source: str) -> Iterator[tuple[str, int]]: ...

    def held_after(self, source: str, after: str, limit: int) -> list[tuple[str, int]]: ...

    def held_of(self, source: str, studies: Sequence[str]) -> dict[str, int]: ...

    def settled_instances(self, source: str) -> int:
        """How many instances the source held of all studies that no hint waits for."""
        ...

    def verified(self, source: str) -> str: ...

    def commit_rereads(self, source: str, studies: int, now: float) -> None:
        """Hints for the next so many studies held of a source, after those of the last call."""
        ...

    def commit_verified(self, source: str, different: Iterable[str], progress: str, now: float) -> None: ...

    def study_resources(self, study_instance_uid: str) -> tuple[StoredResource, ...]: ...

    def ai_results(self, study_instance_uid: str) -> tuple[KeptResult, ...]:
        """All AI results that are kept for a study, whether it is known or not."""
        ...

    def reader_reports(self, study_instance_uid: str) -> tuple[KeptReport, ...]:
        """All reports that readers sent of a study."""
        ...

    def documents(self, study_instance_uid: str) -> tuple[KeptDocument, ...]:
        """What was read of the documents of a study, by source and UID; of those that are gone, that they were."""
        ...

    def commit_documents(
        self, source: str, study_instance_uid: str, read: Sequence[KeptDocument], gone: Sequence[str], now: float
    ) -> None:
        """Keeps what was read of a source's documents; those of the instances in `gone` it does not hold any more."""
        ...

    def translation(self) -> str | None:
        """The fingerprint of the translation in use: of the process that began last."""
        ...

    def begin_retranslation(self, fingerprint: str, now: float) -> bool:
        """Notes by what the studies are translated; work in RETRANSLATE_QUEUE when that changed. Result: whether."""
        ...

    def commit_retranslation(self, claim: Claim, studies: int, now: float) -> None:
        """Marks the next so many studies that are known, less what waits anyway; ends the claim after the last."""
        ...

    def receipts(self, sink: str, studies: Sequence[str]) -> dict[str, Receipt]: ...

    def commit_delivered(self, sink: str, delivered: Sequence[tuple[Claim, Receipt | None]], now: float) -> None:
        """Ends the claims of what a sink has, and keeps its receipts. What was delivered under a lost lease is marked:
        the sink may have an older state now than the one another delivered."""
        ...

    def introduce(self, sink: str, now: float) -> None:
        """Marks everything that is known for a sink that is new here; once."""
        ...

    def commit_recheck(self, sink: str, share: float, now: float) -> None:
        """Marks the next share (0 to 1) of the studies that were delivered to a sink, after those of the last call."""
        ...
