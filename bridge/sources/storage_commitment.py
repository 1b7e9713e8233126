"""Storage Commitment Push Model (PS3.4 J): before a modality deletes its images it asks whether they are safe here.

A transaction is on disk before it is answered. Then every object is looked for and read to its end, and the verdict is
told on a new association, again and again until the peer takes it. What is told is what is true at that moment.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from bridge.errors import Unavailable, place
from bridge.model import Rejection
from bridge.ports import ChangePage
from bridge.sources.commitment_verdict import verdict
from bridge.sources.documents import Documents
from bridge.sources.services import CommandField, Refused, Request, Response, Status, mandatory, mandatory_uid

log = logging.getLogger("bridge.receiver")

STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"
STORAGE_COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
MAXIMUM_ITEMS = 100_000
MAXIMUM_PENDING = 1000
_REQUEST = 1
_MAXIMUM_BYTES = 16_777_216
_DAY_S = 86_400.0
_TICK_S = 2.0


Reporter = Callable[[int, Dataset], int]
"""Sends an event (type id, data set) to one peer, in the role of SCP: its status. Raises SourceUnavailable."""


_OF_ACTION: Mapping[int, int] = dict.fromkeys(
    (Status.MISSING_ATTRIBUTE, Status.MISSING_ATTRIBUTE_VALUE, Status.INVALID_ATTRIBUTE_VALUE),
    Status.INVALID_ARGUMENT_VALUE,
)
"""What an N-ACTION is answered where an N-CREATE would be told more exactly (PS3.7 10.1.4.1.10)."""


@dataclass
class _Pending:
    """A transaction that is not told yet. `due_at` is monotonic; None waits for a person."""

    key: str
    ae_title: str
    transaction_uid: str
    instances: int
    received_at: float
    due_at: float | None
    attempts: int = 0


class StorageCommitment:
    """A storage commitment SCP.

    `held` gives the files of SOP Instance UIDs, and raises SourceUnavailable when it cannot say; `reporters` AE title →
    how the peer of that title is told; `store` makes a page of changes durable; `replayed` keys of rejections that a
    person wants tried again. A peer that takes no report for `commitment_retry_days`, or has no reporter, is rejected
    with what to do; its transaction stays, and is tried again when it is replayed and at the next start.
    """

    sop_classes = frozenset({STORAGE_COMMITMENT})

    def __init__(
        self,
        root: Path,
        held: Callable[[Sequence[str]], Mapping[str, Sequence[Path]]],
        reporters: Mapping[str, Reporter],
        store: Callable[[ChangePage], None],
        clock: Callable[[], float],
        *,
        retrieve_ae_title: str = "",
        commitment_retry_days: float = 7.0,
        replayed: Callable[[], Sequence[str]] = tuple,
        maximum_items: int = MAXIMUM_ITEMS,
        maximum_pending: int = MAXIMUM_PENDING,
        retry_first_s: float = 5.0,
        retry_most_s: float = 21_600.0,
    ) -> None:
        self._documents = Documents(root / "commitments", maximum=maximum_pending, maximum_bytes=_MAXIMUM_BYTES)
        self._held, self._reporters, self._store, self._clock = held, dict(reporters), store, clock
        self._retrieve_ae_title = retrieve_ae_title
        self._maximum_items, self._maximum_pending = maximum_items, maximum_pending
        self._retry_s, self._replayed = commitment_retry_days * _DAY_S, replayed
        self._retry_first_s, self._retry_most_s = retry_first_s, retry_most_s
        self._lock = threading.Lock()
        self._pending: dict[str, _Pending] = {}
        for document in self._documents:
            self._expect(document)
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins to tell verdicts, those left by an earlier process among them."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="storage-commitment", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends after the report that is being sent; what is not told yet stays on disk."""
        if self._thread is not None:
            self._stopping.set()
            self._wake.set()
            self._thread.join(timeout=30)
            self._thread = None

    def handle(self, request: Request) -> Response:
        """Answers N-ACTION; success once the transaction survives a crash."""
        if request.command_field != CommandField.N_ACTION:
            return Response(Status.UNRECOGNIZED_OPERATION)
        if request.sop_instance_uid != STORAGE_COMMITMENT_INSTANCE:
            return Response(Status.NO_SUCH_SOP_INSTANCE)
        if request.action_type_id != _REQUEST:
            return Response(Status.NO_SUCH_ACTION)
        try:
            transaction = self._transaction(request)
            with self._lock:
                self._accept(transaction)
        except Refused as refused:
            answer = refused.response
            return replace(answer, status=_OF_ACTION.get(answer.status, answer.status))
        self._wake.set()
        return Response()

    def catch_up(self) -> None:
        """Nothing is left undone: the thread tells what is due."""
        self._wake.set()

    def report_due(self) -> None:
        """Tells every verdict that is due now."""
        self._revive()
        now = time.monotonic()
        with self._lock:
            due = [p for p in self._pending.values() if p.due_at is not None and p.due_at <= now]
        for pending in due:
            if not self._stopping.is_set():
                self._report(pending)

    def _transaction(self, request: Request) -> dict[str, Any]:
        data_set = request.data_set or Dataset()
        items = mandatory(data_set, "ReferencedSOPSequence")
        if len(items) > self._maximum_items:
            raise Refused(Status.RESOURCE_LIMITATION, f"more than {self._maximum_items} instances in one request")
        return {
            "ae_title": request.calling_ae_title,
            "transaction_uid": mandatory_uid(data_set, "TransactionUID"),
            "received_at": self._clock(),
            "items": [
                [mandatory_uid(i, "ReferencedSOPClassUID"), mandatory_uid(i, "ReferencedSOPInstanceUID")] for i in items
            ],
        }

    def _accept(self, transaction: dict[str, Any]) -> None:
        """Keeps a transaction. The same request again is one transaction: its answer may have been lost."""
        document_key = _document_key(transaction)
        known = self._documents.get(document_key)
        if known is not None and known["items"] != transaction["items"]:
            raise Refused(Status.PROCESSING_FAILURE, "TransactionUID is in use for other instances")
        if known is None and len(self._pending) >= self._maximum_pending:
            self._make_room()
        self._documents.put(document_key, transaction)
        self._expect(transaction)

    def _make_room(self) -> None:
        """The transaction that has waited longest for a person goes; its rejection stays for them to see."""
        parked = [p for p in self._pending.values() if p.due_at is None]
        if not parked:
            raise Refused(Status.RESOURCE_LIMITATION, "too many transactions are not told yet")
        oldest = min(parked, key=lambda p: p.received_at)
        self._documents.remove(oldest.key)
        del self._pending[oldest.key]

    def _expect(self, transaction: Mapping[str, Any]) -> None:
        key = _document_key(transaction)
        self._pending[key] = _Pending(
            key,
            transaction["ae_title"],
            transaction["transaction_uid"],
            len(transaction["items"]),
            transaction["received_at"],
            due_at=time.monotonic(),
        )

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.report_due()
            self._wake.wait(_TICK_S)
            self._wake.clear()

    def _revive(self) -> None:
        """What a person wants tried again is due now."""
        with self._lock:
            parked = {_rejection_key(p.key): p for p in self._pending.values() if p.due_at is None}
        if not parked:
            return
        try:
            wanted = self._replayed()
        except Unavailable as error:
            log.warning("storage commitment: what is to be tried again is not known now: %s", error)
            return
        for key in wanted:
            if key in parked:
                parked[key].due_at, parked[key].received_at = time.monotonic(), self._clock()

    def _report(self, pending: _Pending) -> None:
        reporter = self._reporters.get(pending.ae_title)
        if reporter is None:
            self._park(pending, _NO_ADDRESS)
            return
        try:
            self._tell(pending, reporter)
        except Unavailable as error:
            self._again(pending, str(error))
        except Exception as error:  # noqa: BLE001  a bug met by one transaction must not stop the others
            log.error("storage commitment: unexpected %s at %s", type(error).__name__, place(error))
            self._again(pending, f"unexpected {type(error).__name__}: a bug of this program")

    def _tell(self, pending: _Pending, reporter: Reporter) -> None:
        with self._lock:
            transaction = self._documents.get(pending.key)
        if transaction is None:
            self._forget(pending)
            return
        event_type, data_set = verdict(transaction["transaction_uid"], transaction["items"], self._held)
        if self._retrieve_ae_title:
            data_set.RetrieveAETitle = self._retrieve_ae_title
        status = reporter(event_type, data_set)
        if status != Status.SUCCESS and status >> 12 != 0xB:
            self._again(pending, f"the peer refused the report with status {status:04X}")
            return
        self._forget(pending)
        self._show(ChangePage(frozenset(), "", caught_up=True, accepted=(_rejection_key(pending.key),)))

    def _forget(self, pending: _Pending) -> None:
        with self._lock:
            if self._pending.get(pending.key) is pending:  # not asked again meanwhile
                self._documents.remove(pending.key)
                del self._pending[pending.key]

    def _again(self, pending: _Pending, problem: str) -> None:
        if self._clock() - pending.received_at > self._retry_s:
            self._park(pending, f"storage commitment: no report was taken: {problem}")
            return
        delay = min(self._retry_most_s, self._retry_first_s * 2 ** min(pending.attempts, 30))
        pending.attempts, pending.due_at = pending.attempts + 1, time.monotonic() + delay
        log.warning("storage commitment: a report to %s failed: %s", pending.ae_title, problem)

    def _park(self, pending: _Pending, problem: str) -> None:
        evidence: dict[str, str | int] = {
            "ae_title": pending.ae_title,
            "transaction_uid": pending.transaction_uid,
            "instances": pending.instances,
        }
        rejection = Rejection(_rejection_key(pending.key), problem, evidence)
        shown = self._show(ChangePage(frozenset(), "", caught_up=True, rejected=(rejection,)))
        pending.due_at = None if shown else time.monotonic() + self._retry_first_s

    def _show(self, page: ChangePage) -> bool:
        try:
            self._store(page)
        except Unavailable as error:
            log.warning("storage commitment: what became of a transaction is not shown: %s", error)
            return False
        return True


_NO_ADDRESS = (
    "storage commitment: the address of this AE title is not known: add it to the peers of the receiver, "
    "then start again"
)


def _document_key(transaction: Mapping[str, Any]) -> str:
    return f"{transaction['ae_title']}|{transaction['transaction_uid']}"


def _rejection_key(document_key: str) -> str:
    return f"commitment/{sha256(document_key.encode()).hexdigest()[:32]}"
