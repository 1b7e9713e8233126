"""By what a document of ours is known when it comes back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

from bridge.model import KeptResult
from bridge.translate.uids import resource_id


def document_uid(run_id: str, reviews: int, by_report: Sequence[bytes] = ()) -> str:
    """The SOP Instance UID of the document of a result after so many reviews and those of reports (PS3.5 B.2)."""
    said = [review.decode() for review in by_report]
    return _uid("SR of AI result", run_id, str(reviews), *said)


def newest_uid(kept: KeptResult) -> str:
    """The SOP Instance UID of the document of a result as it stands."""
    return document_uid(kept.run_id, len(kept.reviews), kept.reviews_by_report)


def series_uid(run_id: str) -> str:
    """The Series Instance UID of all documents of a result."""
    return _uid("DICOM", "series", run_id)


def document_uids(kept: KeptResult, reports: int = 0) -> frozenset[str]:
    """The SOP Instance UIDs of the result's documents, after all of its reviews or some; each of `reports` may have
    been two reviews of it: one that amends and one that accepts."""
    reviews = len(kept.reviews) + max(2 * reports, len(kept.reviews_by_report))
    by_number = {document_uid(kept.run_id, n) for n in range(reviews + 1)}
    said = range(1, len(kept.reviews_by_report) + 1)
    numbers = range(len(kept.reviews) + 1)
    return frozenset(
        by_number | {document_uid(kept.run_id, n, kept.reviews_by_report[:k]) for n in numbers for k in said}
    )


def is_document_of(sop_instance_uid: str, kept: KeptResult, reports: int = 0) -> bool:
    """Whether this is one of the `document_uids` of the result."""
    return sop_instance_uid in document_uids(kept, reports)


def note_uid(run_id: str, rejected: Iterable[str]) -> str:
    """The SOP Instance UID of the note that rejects documents of a result."""
    return _uid("rejection note of AI result", run_id, *sorted(rejected))


def note_series_uid(run_id: str) -> str:
    """The Series Instance UID of the rejection notes of a result."""
    return _uid("DICOM", "rejection notes", run_id)


def _uid(*parts: str) -> str:
    return f"2.25.{UUID(resource_id(*parts)).int}"
