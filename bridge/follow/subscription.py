"""A Subscription as a client wrote it → what it asks for, or an InvalidQuery that names the element. Pure.

Three forms are understood: R4 with criteria, R4 with a topic (Subscriptions R5 Backport), and R5.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import parse_qsl

from bridge.errors import InvalidQuery
from bridge.follow.endpoints import is_plain
from bridge.model import Resource
from bridge.translate.fhir_search import parse_search
from bridge.translate.search_parameters import date_range
from bridge.translate.search_query import SearchQuery

NOT_SHOWN = "(not shown)"
"""Stands for the value of a header wherever a Subscription is shown."""

MAXIMUM_HEADERS, MAXIMUM_HEADER = 20, 4096
MAXIMUM_FILTERS = 20
LONGEST_TIMEOUT_S, DEFAULT_TIMEOUT_S = 60, 10
SHORTEST_HEARTBEAT_S, LONGEST_HEARTBEAT_S = 5, 604_800
MOST_EVENTS, DEFAULT_EVENTS = 1000, 1
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_OURS_TO_SET = frozenset({
    "host", "content-length", "content-type", "transfer-encoding", "connection", "te", "trailer", "upgrade",
    "expect", "accept-encoding",
})  # fmt: skip
_VALUE = re.compile(r"[\x20-\x7e]*")


class Form(StrEnum):
    """Which of the three forms a Subscription has."""

    CRITERIA = "criteria"
    BACKPORT = "backport"
    R5 = "R5"


class Payload(StrEnum):
    """How much of a resource a notification brings. FHIR R5 Subscription.content."""

    EMPTY = "empty"
    ID_ONLY = "id-only"
    FULL_RESOURCE = "full-resource"


@dataclass(frozen=True)
class Wanted:
    """What a Subscription asks for.

    Result  `topic` "" in the criteria form; `query` what a changed resource must match; `headers` sent with each
            notification; `heartbeat_s` 0 for none; `most_events` in one notification; `end` seconds since the epoch
            after which it is over, or None
    """

    form: Form
    topic: str
    query: SearchQuery
    endpoint: str
    headers: tuple[tuple[str, str], ...]
    payload: Payload
    heartbeat_s: int
    timeout_s: int
    most_events: int
    end: float | None

    @property
    def resource_type(self) -> str:
        return self.query.resource_type


def only(element: str, given: object, allowed: frozenset[str]) -> Resource:
    """The JSON object, if it has no other elements. Raises InvalidQuery naming the first other one."""
    if not isinstance(given, dict):
        raise InvalidQuery(f"{element}: missing, or not an object")
    for name in sorted(given):
        if name not in allowed:
            raise InvalidQuery(f"{element}.{name[:60]}: not supported here")
    return given


def text(element: str, given: object, most: int = 2000) -> str:
    """A text that is there. Raises InvalidQuery naming the element."""
    if not isinstance(given, str) or not 0 < len(given) <= most:
        raise InvalidQuery(f"{element}: missing, or not a text of at most {most} characters")
    return given


def items(element: str, given: object, most: int) -> list[object]:
    """A list that may be absent. Raises InvalidQuery naming the element."""
    if given is None:
        return []
    if not isinstance(given, list) or len(given) > most:
        raise InvalidQuery(f"{element}: not a list of at most {most}")
    return given


def number(element: str, given: object, least: int, most: int, default: int) -> int:
    """A whole number within bounds, or the default where it is absent. Raises InvalidQuery naming the element."""
    if given is None:
        return default
    if not isinstance(given, int) or isinstance(given, bool) or not least <= given <= most:
        raise InvalidQuery(f"{element}: allowed are whole numbers from {least} to {most}")
    return given


def endpoint(element: str, given: object) -> str:
    """An address that can be understood in one way only. Raises InvalidQuery naming the element."""
    address = text(element, given)
    if not is_plain(address):
        raise InvalidQuery(
            f"{element}: not a plain http:// or https:// address; it has no user, query, fragment or escapes: "
            "put secrets into a header"
        )
    return address


def header(element: str, name: str, value: str) -> tuple[str, str]:
    """One header of the notifications. Raises InvalidQuery naming the element, never the value."""
    if not _HEADER.fullmatch(name) or name.lower() in _OURS_TO_SET:
        raise InvalidQuery(f"{element}: not the name of a header that can be set here")
    if not _VALUE.fullmatch(value) or len(value) > MAXIMUM_HEADER:
        raise InvalidQuery(f"{element}: the value of a header is at most {MAXIMUM_HEADER} printable ASCII characters")
    return name, value


def end(element: str, given: object) -> float | None:
    """A moment in seconds since the epoch, or None where it is absent. Raises InvalidQuery naming the element."""
    if given is None:
        return None
    covered = date_range(given) if isinstance(given, str) and "T" in given else None
    if covered is None:
        raise InvalidQuery(f"{element}: not an instant, such as 2026-01-31T12:00:00Z")
    return covered[0]


def payload(element: str, given: object) -> Payload:
    """How much a notification brings. Raises InvalidQuery naming the element."""
    if given not in list(Payload):
        raise InvalidQuery(f"{element}: allowed are {', '.join(Payload)}")
    return Payload(str(given))


def filter_query(element: str, kind: str, pairs: Sequence[tuple[str, str]]) -> SearchQuery:
    """The filter of these search parameters; what only steers an answer, and chains, are refused."""
    try:
        parsed = parse_search(kind, pairs)
    except InvalidQuery as error:
        raise InvalidQuery(f"{element}: {error}") from None
    steering = [n for n, _ in pairs if n.startswith("_") and n != "_id"]
    if steering or parsed.ignored:
        raise InvalidQuery(f"{element}: cannot filter by {', '.join([*steering, *parsed.ignored][:5])[:200]}")
    if any(criterion.chain is not None for criterion in parsed.query.criteria):
        raise InvalidQuery(f"{element}: cannot filter by what a reference leads to")
    return parsed.query


def criteria_pairs(element: str, given: str, kinds: Sequence[str]) -> tuple[str, list[tuple[str, str]]]:
    """(resource type, search parameters) of `Type?name=value&…`. Raises InvalidQuery naming the element."""
    kind, _, query = given.partition("?")
    if kind not in kinds:
        raise InvalidQuery(f"{element}: allowed resource types: {', '.join(kinds)}")
    try:
        return kind, parse_qsl(query, keep_blank_values=True, max_num_fields=100)
    except ValueError:
        raise InvalidQuery(f"{element}: too many search parameters") from None


def with_status(content: Resource, status: str, error: str, meta: Mapping[str, object]) -> Resource:
    """The resource as it is shown, but for redaction: what the client wrote, and what has become of it."""
    shown = {k: v for k, v in content.items() if k not in ("error", "status", "meta")}
    profiles = content.get("meta", {}).get("profile") if isinstance(content.get("meta"), dict) else None
    head: Resource = {"resourceType": "Subscription", "id": content["id"]}
    head["meta"] = dict(meta) | ({"profile": profiles} if isinstance(profiles, list) else {})
    return head | {"status": status} | shown | ({"error": error} if error and "channel" in content else {})
