"""Calls that may hang, and nobody who waits for them longer than they want to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class Bounded(Generic[T]):
    """One call that is never running twice: whoever asks while it hangs waits for the one that hangs."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call, self._lock = call, threading.Lock()
        self._running: Future[T] | None = None

    def begin(self) -> Future[T]:
        """Its result, soon. The thread is a daemon: one that hangs for ever keeps no process alive."""
        with self._lock:
            if self._running is None or self._running.done():
                self._running = Future()
                threading.Thread(target=self._run, args=(self._running,), name="bounded", daemon=True).start()
            return self._running

    def _run(self, future: Future[T]) -> None:
        try:
            future.set_result(self._call())
        except BaseException as error:  # noqa: BLE001  handed to whoever waits
            future.set_exception(error)
