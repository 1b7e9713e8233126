"""Makes an archive hold the SR document of each result as it stands, and notes that reject those of rejected ones.
Level-triggered: a mark says only that something of the study's results may have changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from bridge.errors import ProjectError, RefusedByServer, RefusedResult, SinkUnavailable, Unavailable
from bridge.findings.documents import documents
from bridge.model import Document, ImagingStudyStatus, KeptResult, StoredResource
from bridge.ports import Claim, WorkTable, send_queue
from bridge.settling import Settling
from bridge.translate.headers import Headers
from bridge.translate.uids import imaging_study_id


class DocumentArchive(Protocol):
    """Where documents are stored. Idempotent by SOP Instance UID; one outcome for each document, in order."""

    def store(self, study_instance_uid: str, documents: Sequence[Document]) -> list[ProjectError | None]: ...


class SendingState(WorkTable, Protocol):
    """What of the state sending needs."""

    def snapshots(self, study_instance_uid: str) -> dict[str, tuple[Headers, ...]]: ...

    def read_resource(self, resource_type: str, id_: str, version: int | None = None) -> StoredResource | None: ...

    def stored_documents(self, archive: str, study_instance_uid: str) -> frozenset[str]: ...

    def commit_stored(self, claim: Claim, archive: str, uids: Sequence[str], now: float, *, finished: bool) -> None:
        """Notes that the archive has these documents; ends the claim with it if `finished`. Raises LeaseLost."""
        ...


@dataclass
class DocumentSender:
    """The step for one archive. `sources`: only studies that one of these holds; empty: all. `results`: those that were
    sent for a study, with all their reviews; `with_notes`: documents of rejected ones are rejected in the archive.

    What the archive once had is not sent again, so that what somebody deleted there stays deleted.
    """

    name: str
    archive: DocumentArchive
    sources: frozenset[str]
    state: SendingState
    results: Callable[[str], Sequence[KeptResult]]
    with_notes: bool
    settling: Settling
    lease_s: float
    at: Callable[[str], None]
    _failing: Unavailable | None = field(default=None, init=False)

    def step(self, worker: str) -> int:
        """Sends what one due study has. Raises Unavailable after giving it back: the archive takes nothing now."""
        claims = self.state.claim(send_queue(self.name), self.settling.clock(), self.lease_s, 1, worker)
        for claim in claims:
            self.at("document claimed")
            self._failing = None
            self.settling.guarded(claim, partial(self._send, claim))
            if self._failing is not None:
                raise self._failing
        return len(claims)

    def _send(self, claim: Claim) -> None:
        found = list(self._documents(claim.key))
        refused = [one for one in found if isinstance(one, RefusedResult)]
        sent = [one for one in found if isinstance(one, Document)]
        try:
            outcomes = self.archive.store(claim.key, sent) if sent else []
        except Unavailable as error:
            self._failing = error
            raise
        self.at("document stored")
        errors = [error for error in outcomes if error is not None]
        stored = [d.sop_instance_uid for d, error in zip(sent, outcomes, strict=True) if error is None]
        finished = not errors and not refused
        self.state.commit_stored(claim, self.name, stored, self.settling.clock(), finished=finished)
        self.at("document noted")
        if not finished:
            raise self._failure([*errors, *refused])

    def _failure(self, errors: Sequence[ProjectError]) -> ProjectError:
        """What does not stop the rest waits first; what is refused for good waits for a person after it."""
        waits = next((e for e in errors if isinstance(e, Unavailable)), None)
        said = "; ".join(sorted({str(e) for e in errors})[:5])
        text = f"archive {self.name}: {len(errors)} documents are not stored: {said}"
        return RefusedByServer(text) if waits is None else SinkUnavailable(text, waits.retry_after_s)

    def _documents(self, uid: str) -> Sequence[Document | RefusedResult]:
        results = self.results(uid)
        study = self.state.read_resource("ImagingStudy", imaging_study_id(uid)) if results else None
        content = study.content if study is not None else None
        if content is None or content["status"] != ImagingStudyStatus.AVAILABLE.value:
            return ()
        held: Mapping[str, tuple[Headers, ...]] = self.state.snapshots(uid)
        instance = next((h for of_source in held.values() for h in of_source), None)
        if instance is None or (self.sources and not self.sources & {name for name, some in held.items() if some}):
            return ()
        there = self.state.stored_documents(self.name, uid)

        def in_series(series_instance_uid: str) -> frozenset[str]:
            every = (h for of_source in held.values() for h in of_source)
            mine = (h for h in every if h.text("SeriesInstanceUID") == series_instance_uid)
            return there.intersection(h.text("SOPInstanceUID") for h in mine)

        return list(documents(results, content, instance, there, in_series if self.with_notes else None))
