"""A list read page by page (PS3.18 8.3.4.4), with proof that it is whole.

Paging is proved, never assumed: a next page must begin inside the one before it, and a list ends where a page brings
nothing new.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, TypeVar

from bridge.errors import SourceUnavailable
from bridge.sources.qido_items import Part, Study
from bridge.sources.web_client import TOO_LARGE, Refusal

OVERLAP = 20
"""Items of the page before that are asked for again: what others store or delete meanwhile then hides none."""

ATTEMPTS = 3
"""A list that moves while it is read is read again, so many times in all."""

MOST_ITEMS = 10_000_000
"""A longer list is not an archive's."""

BAD_REQUEST = 400
TOO_BROAD = frozenset({BAD_REQUEST, TOO_LARGE, 504})
"""Refusals that a narrower search may not meet: 413 by the standard, 400 and 504 by experience."""

Item = TypeVar("Item", Study, Part)


@dataclass
class Page(Generic[Item]):
    """One answer: its items in order, each once; `count` of them as they came; `more`: the archive says there are."""

    items: dict[str, Item] = field(default_factory=dict)
    count: int = 0
    more: bool = False

    def add(self, item: Item) -> None:
        self.items[item.key] = item
        self.count += 1

    def follows(self, before: Page[Item]) -> bool:
        """Whether it begins inside the page before it, in the same order."""
        place = {key: i for i, key in enumerate(before.items)}
        known = [place[key] for key in self.items if key in place]
        return next(iter(self.items), "") in place and known == sorted(known)


class _End(StrEnum):
    """How the reading of a list ended.

    ENDED where a page brought nothing new; UNPAGED: `offset` is ignored; MOVED: a page did not follow the one before,
    since the list changed meanwhile, or is never in the same order.
    """

    ENDED = "ended"
    UNPAGED = "unpaged"
    MOVED = "moved"


class Pages(Generic[Item]):
    """The items of a list, page after page. Afterwards `whole` says whether they are all.

    Where paging cannot prove it, `believed` tells it from the number of items of the first answer.
    """

    def __init__(
        self,
        ask: Callable[[int], Page[Item]],
        unavailable: Callable[[str], SourceUnavailable],
        believed: Callable[[int], bool],
    ) -> None:
        self._ask: Callable[[int], Page[Item]] = ask
        self._unavailable, self._believed = unavailable, believed
        self._first: Page[Item] = Page()
        self._last: Page[Item] = self._first
        self.whole = False
        self.refusal: Refusal | None = None

    def __iter__(self) -> Iterator[Item]:
        for _ in range(ATTEMPTS):
            try:
                end = yield from self._attempt()
            except Refusal as refusal:
                if refusal.code not in TOO_BROAD:
                    raise
                self.refusal = refusal
                return
            if end is not _End.MOVED:
                break
        self.whole = not self._last.more and (end is _End.ENDED or self._believed(self._first.count))

    def _attempt(self) -> Generator[Item, None, _End]:
        self._first = self._last = page = self._ask(0)
        yield from page.items.values()
        seen, offset = set(page.items), 0
        if not seen:
            return _End.ENDED
        while True:
            again = min(OVERLAP, len(page.items) // 2)
            offset += len(page.items) - again
            before, page = page, self._ask(offset)
            self._last = page
            if list(page.items) == list(self._first.items):
                return _End.UNPAGED
            if again and not page.follows(before):
                return _End.MOVED
            new = page.items.keys() - seen
            if not new:
                return _End.MOVED if list(page.items) == list(before.items) else _End.ENDED
            yield from page.items.values()
            seen |= new
            if len(seen) > MOST_ITEMS:
                raise self._unavailable("a list of more items than an archive can hold: refused")
