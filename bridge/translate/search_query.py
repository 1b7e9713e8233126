"""A parsed FHIR search, as values: what the API asks and the state answers."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.translate.search_parameters import Kind


@dataclass(frozen=True)
class Token:
    """A token value: `system` None = any, "" = none; `code` "" = any of the system."""

    system: str | None
    code: str


@dataclass(frozen=True)
class DateRange:
    """A date value: prefix (eq, ne, lt, le, gt, ge, sa, eb, ap) and [low, high) in seconds since the epoch."""

    prefix: str
    low: float
    high: float


@dataclass(frozen=True)
class Criterion:
    """One search parameter with its alternatives (OR). `chain` leads through a reference to `target`."""

    param: str
    kind: Kind
    modifier: str
    values: tuple[Token | DateRange | str, ...]
    target: str = ""
    chain: Criterion | None = None


@dataclass(frozen=True)
class SearchQuery:
    """A parsed search: criteria that all must hold, ids, lastUpdated, order, page.

    Result  `sort` parameter name or `_lastUpdated`, `_id`; `after` (sort key, id) of the last row of the page before
    """

    resource_type: str
    criteria: tuple[Criterion, ...] = ()
    ids: tuple[tuple[str, ...], ...] = ()
    last_updated: tuple[DateRange, ...] = ()
    sort: str = "_lastUpdated"
    descending: bool = False
    count: int = 50
    after: tuple[float | str, str] | None = None
