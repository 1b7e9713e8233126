"""Runs the pipeline's steps in threads until told to stop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial

from bridge.errors import Unavailable
from bridge.sync import Pipeline

log = logging.getLogger("bridge.loops")

IDLE_S = 0.2
UNAVAILABLE_S = 2.0
UNAVAILABLE_MOST_S = 30.0
"""What cannot be reached is left alone for so long at first, and at most."""

HEARTBEATS_PER_LEASE = 3


class Loops:
    """One thread for each source's polls, one each for sweeps, verify passes, rechecks, backfill and translating anew,
    `workers` for studies, one for each sink and for each of the `others` (name → step), a heartbeat.

    `renew(process, now, lease_s)` keeps the leases of this process alive; `failed` is called once if a thread dies
    of a bug, after which everything stops.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        process: str,
        workers: int,
        renew: Callable[[str, float, float], None],
        failed: Callable[[str], None],
        others: Mapping[str, Callable[[str], int]] | None = None,
    ) -> None:
        self._pipeline, self._process, self._renew, self._failed = pipeline, process, renew, failed
        self._stop = threading.Event()
        steps: list[tuple[str, Callable[[str], int]]] = [
            ("sweep", pipeline.sweep),
            ("verify", pipeline.verify),
            ("recheck", pipeline.recheck),
            ("backfill", pipeline.backfill),
            ("retranslate", pipeline.retranslate),
        ]
        steps += [(f"poll-{n}", pipeline.poll) for n in range(len(pipeline.sources))]
        steps += [(f"study-{n}", pipeline.translate) for n in range(workers)]
        steps += [(f"sink-{name}", partial(pipeline.deliver, name)) for name in pipeline.sinks]
        steps += list((others or {}).items())
        self._threads = [
            threading.Thread(
                target=self._watched, args=(name, partial(self._repeat, name, step)), name=name, daemon=True
            )
            for name, step in steps
        ]
        self._threads.append(threading.Thread(target=self._watched, args=("heartbeat", self._beat), daemon=True))

    def start(self) -> None:
        self._pipeline.prepare()
        for thread in self._threads:
            thread.start()

    def stop(self, wait_s: float = 20.0) -> None:
        """Ends every loop after its current step; a step still running after `wait_s` is left to its lease."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=wait_s)

    def _watched(self, name: str, body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as error:
            self._stop.set()
            self._failed(f"thread {name}: unexpected {type(error).__name__}")
            raise

    def _repeat(self, name: str, step: Callable[[str], int]) -> None:
        worker, pause_s = f"{self._process}/{name}", UNAVAILABLE_S
        while not self._stop.is_set():
            try:
                worked = step(worker)
            except Unavailable as error:
                log.warning("%s", error)
                self._stop.wait(max(pause_s, min(error.retry_after_s or 0.0, 60.0)))
                pause_s = min(pause_s * 2, UNAVAILABLE_MOST_S)
                continue
            pause_s = UNAVAILABLE_S if worked else pause_s
            if not worked:
                self._stop.wait(IDLE_S)

    def _beat(self) -> None:
        lease_s = self._pipeline.timing.lease_s
        while not self._stop.wait(lease_s / HEARTBEATS_PER_LEASE):
            try:
                self._renew(self._process, self._pipeline.clock(), lease_s)
            except Unavailable as error:
                log.warning("%s", error)
