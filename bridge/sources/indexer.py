"""Writes what a receiver has stored into the state's index, in groups, behind the objects themselves."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from bridge.errors import SourceUnavailable, Unavailable, place
from bridge.model import IndexedFile, Rejection
from bridge.ports import ChangePage

log = logging.getLogger("bridge.receiver")

GROUP, GROUP_S = 200, 0.05
"""A group is committed when it has so many entries, or so long after its first."""

WAITING = 2000
"""Entries that may wait for the database; then senders wait as well."""

STUCK_S = 20.0
RETRY_S = 0.5

_STOP = object()


class Indexer:
    """One thread that commits in the order of arrival, and again until the database takes it.

    A group that meets a bug, or that the database would not take before the end, is left for the next look at the
    spool, which finds its files; `left` counts such groups, and `commit_left` commits their rejections.
    """

    def __init__(self, name: str, store: Callable[[ChangePage], None], at: Callable[[str], None]) -> None:
        self._name, self._store, self._at = name, store, at
        self.left, self._rejections = 0, deque[Rejection](maxlen=WAITING)
        self._queue: queue.Queue[object] = queue.Queue(WAITING)
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    def start(self) -> None:
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name=f"indexer-{self._name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Commits what waits, unless the database cannot take it: then the scan at the next start finds it."""
        if self._thread is not None:
            self._stopping.set()
            self._queue.put(_STOP)
            self._thread.join(timeout=30)
            self._thread = None

    def add(self, entry: IndexedFile | Rejection) -> None:
        """Hands over one entry. Raises SourceUnavailable when the database has taken nothing for a long time."""
        try:
            self._queue.put(entry, timeout=STUCK_S)
        except queue.Full:
            raise SourceUnavailable(
                f"source {self._name}: the state takes no entries: is its database stuck?"
            ) from None

    def caught_up(self, timeout_s: float) -> bool:
        """Waits until what was handed over before this call is committed; whether that was in time."""
        reached = threading.Event()
        try:
            self._queue.put(reached, timeout=timeout_s)
        except queue.Full:
            return False
        return reached.wait(timeout_s)

    def settled(self, timeout_s: float) -> bool:
        """Waits until nothing waits; whether that was in time."""
        until = time.monotonic() + timeout_s
        while self._queue.unfinished_tasks:
            if time.monotonic() > until:
                return False
            time.sleep(0.005)
        return True

    def commit_left(self) -> None:
        """Commits the rejections that were left, one by one, so that none holds up another. Raises StateUnavailable."""
        for _ in range(len(self._rejections)):
            rejection, stored = self._rejections.popleft(), False
            try:
                stored = self._stored([rejection])
            finally:
                if not stored:
                    self._rejections.append(rejection)

    def _run(self) -> None:
        for group in self._groups():
            while not (done := self._commit(group)) and not self._stopping.is_set():
                self._stopping.wait(RETRY_S)
            if not done:
                self._leave(group)
            for _ in group:
                self._queue.task_done()

    def _groups(self) -> Iterator[list[IndexedFile | Rejection]]:
        while True:
            group: list[IndexedFile | Rejection] = []
            entry = self._queue.get()
            until = time.monotonic() + GROUP_S
            while isinstance(entry, IndexedFile | Rejection):
                group.append(entry)
                if len(group) == GROUP:
                    break
                try:
                    entry = self._queue.get(timeout=max(0.0, until - time.monotonic()))
                except queue.Empty:
                    break
            if group:
                yield group
            if isinstance(entry, threading.Event):
                if not self._stopping.is_set():  # then the group may have been given up
                    entry.set()
                self._queue.task_done()
            if entry is _STOP:
                self._queue.task_done()
                return

    def _commit(self, group: list[IndexedFile | Rejection]) -> bool:
        """Whether nothing more is to be done about a group here."""
        try:
            stored = self._stored(group)
        except Unavailable as error:
            log.warning("source %s: stored objects are not indexed yet: %s", self._name, error)
            return False
        if stored:
            self._at("stored")
        else:
            self._leave(group)
        return True

    def _leave(self, group: Sequence[IndexedFile | Rejection]) -> None:
        self._rejections += [e for e in group if isinstance(e, Rejection)]
        self.left += 1

    def _stored(self, group: Sequence[IndexedFile | Rejection]) -> bool:
        """Whether the database took a group; False when a bug kept it from that. Raises StateUnavailable."""
        files = tuple(e for e in group if isinstance(e, IndexedFile))
        rejected = tuple(e for e in group if isinstance(e, Rejection))
        studies = frozenset(f.study_instance_uid for f in files)
        try:
            self._store(ChangePage(studies, "", caught_up=True, files=files, rejected=rejected))
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001  a bug met by one group must not end the thread that indexes all
            log.error(
                "source %s: objects wait for the next look at the spool: unexpected %s at %s: please report this",
                self._name, type(error).__name__, place(error),
            )  # fmt: skip
            return False
        return True
