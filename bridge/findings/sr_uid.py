"""By what a document of ours is known when it comes back."""

from __future__ import annotations

from uuid import UUID

from bridge.model import KeptResult
from bridge.translate.uids import resource_id


def document_uid(run_id: str, reviews: int) -> str:
    """The SOP Instance UID of the document of a result after so many reviews (PS3.5 B.2)."""
    return f"2.25.{UUID(resource_id('SR of AI result', run_id, str(reviews))).int}"


def is_document_of(sop_instance_uid: str, kept: KeptResult) -> bool:
    """Whether this is the SOP Instance UID of the result's document, after all of its reviews or some."""
    return any(document_uid(kept.run_id, n) == sop_instance_uid for n in range(len(kept.reviews) + 1))
