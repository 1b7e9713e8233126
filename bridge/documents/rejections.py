"""One bad document stops no other: what cannot be taken of it is rejected, and the rest goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bridge.documents.document import Document
from bridge.errors import RefusedResult, place
from bridge.model import Rejection


@contextmanager
def rejecting(document: Document, rejected: list[Rejection]) -> Iterator[None]:
    """Whatever goes wrong inside is a rejection of the document: with the field and the reason where these are known.

    Damage shows itself anywhere in the library that reads elements, and its messages may quote values: of an
    unexpected error only type and place are told.
    """
    try:
        yield
    except RefusedResult as error:
        rejected.append(rejection(document, error))
    except Exception as error:  # noqa: BLE001  see above
        evidence: dict[str, str | int] = {"sop_instance_uid": document.uid, "place": place(error)}
        problem = f"the document cannot be read: unexpected {type(error).__name__}"
        rejected.append(Rejection(f"{document.source}/{document.uid}/document", problem, evidence))


def rejection(document: Document, error: RefusedResult) -> Rejection:
    """Why a document is not taken for what it is, with the first field that is wrong."""
    first = next(iter(error.refusals))
    evidence: dict[str, str | int] = {"sop_instance_uid": document.uid, "field": first.field}
    return Rejection(f"{document.source}/{document.uid}/result", f"the document cannot be taken: {error}", evidence)
