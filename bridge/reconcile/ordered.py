"""Long streams in one order, and two of them side by side, in memory that does not grow with them."""

from __future__ import annotations

import heapq
import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from typing import IO, Any, TypeVar

AT_ONCE = 50_000
"""Rows that are sorted in memory; longer streams go through files."""

T = TypeVar("T")

Row = tuple[Any, ...]
"""Its first value is its key: text."""


def in_order(rows: Iterable[Row], at_once: int = AT_ONCE) -> Iterator[Row]:
    """The rows in order of their keys, by code point: databases and servers have orders of their own."""
    rows = iter(rows)
    first = sorted(islice(rows, at_once), key=_key)
    with ExitStack() as stack:
        runs: list[Iterator[Row]] = []
        while some := sorted(islice(rows, at_once), key=_key):
            runs.append(_run(stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8")), some))
        yield from heapq.merge(first, *runs, key=_key) if runs else first


def side_by_side(left: Iterable[Row], right: Iterable[Row]) -> Iterator[tuple[str, Row | None, Row | None]]:
    """(key, the left row, the right row) for every key of two streams in order, None where one has none. Of several
    rows with one key the last counts.

    >>> list(side_by_side([("a", 1), ("b", 2)], [("b", 3)]))
    [('a', ('a', 1), None), ('b', ('b', 2), ('b', 3))]
    """
    lefts, rights = _last_of_each(left), _last_of_each(right)
    one, other = next(lefts, None), next(rights, None)
    while one is not None or other is not None:
        key = min(row[0] for row in (one, other) if row is not None)
        mine = one if one is not None and one[0] == key else None
        theirs = other if other is not None and other[0] == key else None
        yield key, mine, theirs
        one = next(lefts, None) if mine is not None else one
        other = next(rights, None) if theirs is not None else other


def some_at_once(items: Iterable[T], number: int) -> Iterator[list[T]]:
    """The items in lists of so many."""
    items = iter(items)
    while some := list(islice(items, number)):
        yield some


def _last_of_each(rows: Iterable[Row]) -> Iterator[Row]:
    last: Row | None = None
    for row in rows:
        if last is not None and row[0] != last[0]:
            yield last
        last = row
    if last is not None:
        yield last


def _run(file: IO[str], rows: list[Row]) -> Iterator[Row]:
    file.writelines(json.dumps(row) + "\n" for row in rows)
    file.seek(0)
    return (tuple(json.loads(line)) for line in file)


def _key(row: Row) -> str:
    return str(row[0])
