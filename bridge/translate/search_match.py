"""Whether one resource is what a search asks for: the answer that the state's index gives, without it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bridge.model import Resource
from bridge.translate.search_parameters import IndexEntry, Kind, index_entries, normal
from bridge.translate.search_query import Criterion, DateRange, SearchQuery, Token


def matches(query: SearchQuery, content: Resource) -> bool:
    """Whether the content meets every criterion and every list of ids. Chains are not followed: they never match."""
    if content["resourceType"] != query.resource_type or not all(content["id"] in ids for ids in query.ids):
        return False
    entries = index_entries(content)
    return all(_meets(criterion, entries) for criterion in query.criteria)


def _meets(criterion: Criterion, entries: Iterable[IndexEntry]) -> bool:
    if criterion.chain is not None:
        return False
    param = f"{criterion.param}:identifier" if criterion.modifier == "identifier" else criterion.param
    mine = [entry for entry in entries if entry.param == param]
    if criterion.modifier == "missing":
        return bool(mine) != (criterion.values == ("true",))
    found = _any(criterion, mine)
    return not found if criterion.modifier == "not" else found


def _any(criterion: Criterion, entries: Sequence[IndexEntry]) -> bool:
    return any(_is(criterion, value, entry) for value in criterion.values for entry in entries)


def _is(criterion: Criterion, value: Token | DateRange | str, entry: IndexEntry) -> bool:
    if isinstance(value, Token):
        return (not value.code or entry.value == value.code) and value.system in (None, entry.system)
    if isinstance(value, DateRange):
        return entry.low is not None and entry.high is not None and _date(entry.low, entry.high, value)
    if criterion.kind is Kind.REFERENCE:
        return entry.value == value
    if criterion.modifier == "exact":
        return entry.system == value
    if criterion.modifier == "contains":
        return normal(value) in entry.value
    return entry.value.startswith(normal(value))


def _date(low: float, high: float, wanted: DateRange) -> bool:
    """R4 search 3.1.1.4.5: how the range of a resource compares with the range of a value."""
    inside = low >= wanted.low and high <= wanted.high
    return {
        "eq": inside,
        "ne": not inside,
        "gt": high > wanted.high,
        "lt": low < wanted.low,
        "ge": high > wanted.high or inside,
        "le": low < wanted.low or inside,
        "sa": low >= wanted.high,
        "eb": high <= wanted.low,
        "ap": low < wanted.high and high > wanted.low,
    }[wanted.prefix]
