"""The associations of one archive: a few, reused while they last, at the pace and in the hours it allows."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from bridge.errors import SourceUnavailable
from bridge.sources.hours import Hours
from bridge.sources.peer import Peer
from bridge.sources.scu import STUDY_ROOT_FIND, STUDY_ROOT_MOVE, VERIFICATION, Association, Found, Proposed

IDLE_S = 3.0
"""How long an association is kept that nobody uses: archives have few, and some cannot stop while one is open."""


class Lines:
    """At most `associations` at once to one archive. `clock` gives seconds since the epoch.

    `maximum_queries_per_s` 0: as fast as it answers. Outside `hours` everything is SourceUnavailable, with the
    seconds until the archive may be asked again.
    """

    def __init__(
        self,
        peer: Peer,
        clock: Callable[[], float],
        *,
        associations: int = 2,
        maximum_queries_per_s: float = 0.0,
        hours: Hours | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.peer = peer
        self._clock, self._hours, self._sleep = clock, hours or Hours(), sleep
        self._free = threading.Semaphore(associations)
        self._interval_s = 1 / maximum_queries_per_s if maximum_queries_per_s else 0.0
        self._next_at = 0.0
        self._lock = threading.Lock()
        self._idle: list[tuple[Association, float]] = []
        self._reaper: threading.Timer | None = None

    def find(self, identifier: bytes) -> Found:
        """C-FIND on any association; one that turns out to be dead is replaced once."""
        self._admit()
        with self._free:
            association, reused = self._taken()
            try:
                found = association.find(identifier)
            except SourceUnavailable:
                if not reused:
                    raise
                association = Association(self.peer, _QUERY)
                found = association.find(identifier)
            self._give_back(association)
            return found

    @contextlib.contextmanager
    def opened(self, proposed: Sequence[Proposed]) -> Iterator[Association]:
        """An association for one purpose, released at the end."""
        self._admit()
        with self._free, Association(self.peer, proposed) as association:
            yield association

    def check(self) -> frozenset[str]:
        """C-ECHO; the abstract syntaxes of querying and moving that the archive accepts."""
        with self.opened([VERIFICATION, *_QUERY, STUDY_ROOT_MOVE]) as association:
            association.echo()
            return association.accepted

    def close(self) -> None:
        """Releases what is idle."""
        with self._lock:
            idle, self._idle = self._idle, []
            if self._reaper is not None:
                self._reaper.cancel()
                self._reaper = None
        for association, _ in idle:
            association.release()

    def _admit(self) -> None:
        wait_s = self._hours.wait_s(self._clock())
        if wait_s:
            raise SourceUnavailable(
                f"{self.peer.ae_title} may not be asked now: outside allowed_hours", retry_after_s=wait_s
            )
        if self._interval_s:
            with self._lock:
                now = time.monotonic()
                at = max(now, self._next_at)
                self._next_at = at + self._interval_s
            self._sleep(at - now)

    def _taken(self) -> tuple[Association, bool]:
        """An association, and whether it was used before."""
        while True:
            with self._lock:
                if not self._idle:
                    break
                association, _ = self._idle.pop()
            if association.reusable:
                return association, True
            association.abort()
        return Association(self.peer, _QUERY), False

    def _give_back(self, association: Association) -> None:
        with self._lock:
            self._idle.append((association, time.monotonic()))
            self._schedule()

    def _schedule(self) -> None:
        if self._reaper is None and self._idle:
            self._reaper = threading.Timer(IDLE_S, self._reap)
            self._reaper.daemon = True
            self._reaper.start()

    def _reap(self) -> None:
        with self._lock:
            before = time.monotonic() - IDLE_S
            old = [a for a, since in self._idle if since <= before]
            self._idle = [(a, since) for a, since in self._idle if since > before]
            self._reaper = None
            self._schedule()
        for association in old:
            association.release()


_QUERY = [STUDY_ROOT_FIND]
