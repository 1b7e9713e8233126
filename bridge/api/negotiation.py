"""What a caller accepts, prefers and sends: HTTP headers as this API reads them."""

from __future__ import annotations

from typing import Annotated

import orjson
from fastapi import Depends, Request
from starlette.exceptions import HTTPException

from bridge.errors import InvalidQuery


async def _body(request: Request) -> bytes:
    return await request.body()


SentBody = Annotated[bytes, Depends(_body)]
"""The body as it came, for routes that run in threads."""

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


def fhir_version(header: str, default: str) -> str:
    """The media type parameter fhirVersion of an Accept or Content-Type header, or the default.

    >>> fhir_version("application/fhir+json; fhirVersion=5.0", "4.0")
    '5.0'
    """
    for part in header.replace(",", ";").split(";"):
        name, _, value = part.strip().partition("=")
        if name.strip().lower() == "fhirversion":
            return value.strip().strip('"')
    return default


def sent_json(request: Request, body: bytes) -> object:
    """The JSON that was sent. Raises InvalidQuery; 415 when it was sent as something else."""
    sent = request.headers.get("content-type", "").partition(";")[0].strip()
    if sent not in ("application/fhir+json", "application/json"):
        raise HTTPException(415, "send application/fhir+json")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise InvalidQuery("the body is not JSON") from None


def posted_parameters(request: Request, body: bytes) -> list[tuple[str, str]]:
    """Name and value of every parameter of a posted Parameters resource. Raises InvalidQuery."""
    sent = sent_json(request, body)
    try:
        if not isinstance(sent, dict) or sent["resourceType"] != "Parameters":
            raise ValueError
        given = [(p["name"], next(v for k, v in p.items() if k.startswith("value"))) for p in sent.get("parameter", [])]
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
        raise InvalidQuery("the body is not a Parameters resource whose parameters have values") from None
    if not all(isinstance(name, str) and isinstance(value, str | int) for name, value in given):
        raise InvalidQuery("a parameter's value is neither a text nor a number")
    return [(name, str(value)) for name, value in given]
