"""Reads a long list in pages while others add to it and take from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

OVERLAP = 20
"""Items of the page before that are asked for again: if none of them is there, the list moved."""

STEPS_BACK = 1000


class ListMoves(Exception):
    """Items vanish from the list faster than it can be read: it is not known whether all were seen."""


def listed(page: Callable[[int, int], list[T]], key: Callable[[T], str], size: int) -> Iterator[T]:
    """Every item of a list once, none missing that was there all the time.

    `page(offset, limit)` gives a part of the list; a part shorter than `limit` is its end; `size` > OVERLAP.
    Raises  ListMoves

    >>> list(listed(lambda offset, limit: ["a", "b", "c"][offset : offset + limit], str, 50))
    ['a', 'b', 'c']
    """
    seen: set[str] = set()
    offset = back = 0
    while True:
        found = page(offset, size)
        new = [item for item in found if key(item) not in seen]
        if offset and len(new) == len(found):
            back += 1
            if back > STEPS_BACK:
                raise ListMoves
            offset = max(0, offset - size)
            continue
        seen.update(map(key, new))
        yield from new
        if len(found) < size:
            return
        offset += len(found) - OVERLAP
