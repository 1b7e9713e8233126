"""A running query seen from outside: how far it is, and a way to end it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bridge.errors import InvalidQuery


class Cancelled(InvalidQuery):
    """Whoever asked does not want the answer any more."""


class Watch:
    """Of one question, whose queries run one after another.

    Result  `running` True while a query runs, False while it waits for its turn; `progress` the share of the query
            that is done, 0 to 1, None where the engine cannot tell
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._end: Callable[[], None] | None = None
        self._cancelled = threading.Event()
        self.running = False
        self.progress: float | None = None

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Ends the query that runs; none begins any more."""
        with self._lock:
            self._cancelled.set()
            if self._end is not None:
                self._end()

    def check(self) -> None:
        """Raises Cancelled after `cancel`."""
        if self.cancelled:
            raise Cancelled("the question was cancelled")

    @contextmanager
    def over(self, end: Callable[[], None]) -> Iterator[None]:
        """While a query runs, which `end` ends. Raises Cancelled after `cancel`, whatever the query raised."""
        with self._lock:
            self.check()
            self._end, self.running, self.progress = end, True, None
        try:
            yield
        finally:
            with self._lock:
                self._end, self.running = None, False
            self.check()
