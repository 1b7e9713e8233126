"""What a caller accepts, prefers and sends: HTTP headers as this API reads them."""

from __future__ import annotations

from fastapi import Request
from starlette.exceptions import HTTPException

_SPOKEN = ("application/fhir+json", "application/json", "text/json", "application/*", "*/*")


def acceptable(request: Request) -> None:
    """Only JSON is spoken here: 406 when the caller accepts something else only."""
    accept = request.headers.get("accept", "*/*")
    if not any(part.partition(";")[0].strip() in _SPOKEN for part in accept.split(",")) and accept.strip():
        raise HTTPException(406, "this server speaks application/fhir+json")


def preferences(prefer: str) -> frozenset[str]:
    """The preferences of a Prefer header (RFC 7240), without blanks.

    >>> sorted(preferences("respond-async, handling = strict"))
    ['handling=strict', 'respond-async']
    """
    return frozenset(part.replace(" ", "") for part in prefer.replace(";", ",").split(","))
