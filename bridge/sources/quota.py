"""How many manifests connections that bring no objects may leave: C-ECHO, refused callers, port scans."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable

log = logging.getLogger("bridge.receiver")

OVERALL, OF_ONE_ADDRESS = 200, 60
"""So many a minute have a manifest of their own; the rest are counted in the log."""

WINDOW_S = 60.0


class Quota:
    """What is left of this minute. Safe to use from several threads; `monotonic` gives seconds."""

    def __init__(self, name: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._name, self._monotonic = name, monotonic
        self._lock = threading.Lock()
        self._began_at = monotonic()
        self._taken: Counter[str] = Counter()
        self._over = 0

    def take(self, address: str) -> bool:
        """Whether one more of this address may have its manifest."""
        with self._lock:
            now = self._monotonic()
            if now - self._began_at > WINDOW_S:
                self._tell()
                self._began_at, self._over = now, 0
                self._taken.clear()
            if self._taken.total() >= OVERALL or self._taken[address] >= OF_ONE_ADDRESS:
                self._over += 1
                return False
            self._taken[address] += 1
            return True

    def _tell(self) -> None:
        if self._over:
            log.warning("receiver %s: %d associations without objects have no manifest", self._name, self._over)
