"""Whose query runs now: so many at once in all, so many of one person, and few that wait."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from bridge.errors import Unavailable

RETRY_S = 5.0


class Turns:
    """`at_once` queries run, at most `each` of one person; a person has at most `waiting` that wait, for `wait_s`."""

    def __init__(self, at_once: int, each: int, waiting: int = 4, wait_s: float = 20.0) -> None:
        self._at_once, self._each, self._most_waiting, self._wait_s = at_once, each, waiting, wait_s
        self._running: Counter[str] = Counter()
        self._waiting: Counter[str] = Counter()
        self._changed = threading.Condition()

    @contextmanager
    def turn(self, who: str) -> Iterator[None]:
        """Waits for a turn and holds it. Raises Unavailable when too many wait already or none comes in time."""
        with self._changed:
            if self._waiting[who] >= self._most_waiting:
                raise Unavailable("too many queries at once: try again", RETRY_S)
            self._waiting[who] += 1
            try:
                came = self._changed.wait_for(lambda: self._free(who), self._wait_s)
            finally:
                self._less(self._waiting, who)
            if not came:
                raise Unavailable("too many queries at once: try again", RETRY_S)
            self._running[who] += 1
        try:
            yield
        finally:
            with self._changed:
                self._less(self._running, who)
                self._changed.notify_all()

    def _free(self, who: str) -> bool:
        return self._running.total() < self._at_once and self._running[who] < self._each

    @staticmethod
    def _less(counted: Counter[str], who: str) -> None:
        counted[who] -= 1
        if not counted[who]:
            del counted[who]
