"""By what a document of ours is known when it comes back."""

from __future__ import annotations

from uuid import UUID

from bridge.model import KeptResult
from bridge.translate.uids import resource_id


def document_uid(run_id: str, reviews: int) -> str:
    """The SOP Instance UID of the document of a result after so many reviews (PS3.5 B.2)."""
    return f"2.25.{UUID(resource_id('SR of AI result', run_id, str(reviews))).int}"


def series_uid(run_id: str) -> str:
    """The Series Instance UID of all documents of a result."""
    return f"2.25.{UUID(resource_id('DICOM', 'series', run_id)).int}"


def document_uids(kept: KeptResult, reports: int = 0) -> frozenset[str]:
    """The SOP Instance UIDs of the result's documents, after all of its reviews or some; each of `reports` may be two
    reviews of it: one that amends and one that accepts."""
    reviews = len(kept.reviews) + max(2 * reports, len(kept.reviews_by_report))
    return frozenset(document_uid(kept.run_id, n) for n in range(reviews + 1))


def is_document_of(sop_instance_uid: str, kept: KeptResult, reports: int = 0) -> bool:
    """Whether this is one of the `document_uids` of the result."""
    return sop_instance_uid in document_uids(kept, reports)
