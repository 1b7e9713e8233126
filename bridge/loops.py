"""Runs the pipeline's steps in threads until told to stop."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from functools import partial

from bridge.errors import Unavailable
from bridge.model import Role
from bridge.ports import (
    BACKFILL_QUEUE,
    POLL_QUEUE,
    RECHECK_QUEUE,
    RETRANSLATE_QUEUE,
    STUDY_QUEUE,
    SWEEP_QUEUE,
    VERIFY_QUEUE,
    Leases,
    sink_queue,
)
from bridge.sync import Pipeline

log = logging.getLogger("bridge.loops")

IDLE_S = 0.2
"""So often it is looked what is due."""

UNAVAILABLE_S = 2.0
UNAVAILABLE_MOST_S = 15.0
"""What cannot be reached is left alone for so long at first, and at most."""

HEARTBEATS_PER_LEASE = 3

CLOCK_BACK_S = 2.0
"""A clock that went back by more leaves nothing waiting for the time that it showed before."""


@dataclass(frozen=True)
class Loop:
    """One loop: `work(worker)` tells how many keys it worked on, and is called again at once while there were any.

    `queue` is where its keys come from: it is called when one is due there, and what it claimed is settled when it
    returns; "": at every look, and it may go on with its claims in other threads.
    """

    name: str
    queue: str
    work: Callable[[str], int]


class Loops:
    """Threads for the roles. `poll`: one for each source, one each for sweeps and verify passes; `work`: `workers` for
    studies, one each for translating all again and for the backfill; `deliver`: one for each sink, one for rechecks.
    One for each of the `others`, a heartbeat, and one that looks what is due.

    `leases` of this process are kept alive; `failed` is called once if a thread dies of a bug, after which everything
    stops.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        roles: Set[Role],
        process: str,
        workers: int,
        leases: Leases,
        failed: Callable[[str], None],
        others: Sequence[Loop] = (),
    ) -> None:
        self._pipeline, self._roles, self._process = pipeline, roles, process
        self._leases, self._failed = leases, failed
        self._stop = threading.Event()
        of_roles = {
            Role.POLL: [
                Loop("sweep", SWEEP_QUEUE, pipeline.sweep),
                Loop("verify", VERIFY_QUEUE, pipeline.verify),
                *(Loop(f"poll-{n}", POLL_QUEUE, pipeline.poll) for n in range(len(pipeline.sources))),
            ],
            Role.WORK: [
                Loop("retranslate", RETRANSLATE_QUEUE, pipeline.retranslate),
                Loop("backfill", BACKFILL_QUEUE, pipeline.backfill),
                *(Loop(f"study-{n}", STUDY_QUEUE, pipeline.translate) for n in range(workers)),
            ],
            Role.DELIVER: [
                Loop("recheck", RECHECK_QUEUE, pipeline.recheck),
                *(Loop(f"sink-{name}", sink_queue(name), partial(pipeline.deliver, name)) for name in pipeline.sinks),
            ],
        }
        steps = [step for role, some in of_roles.items() if role in roles for step in some]
        steps += others
        self._wake = {step.queue: threading.Event() for step in steps}
        bodies = [(step.name, partial(self._repeat, step)) for step in steps]
        self._threads = [
            threading.Thread(target=self._watched, args=(name, body), name=name, daemon=True)
            for name, body in [*bodies, ("heartbeat", self._beat), ("look", self._look)]
        ]

    def start(self) -> None:
        self._pipeline.prepare(self._roles)
        for thread in self._threads:
            thread.start()

    def dead(self) -> tuple[str, ...]:
        """The names of threads that have ended."""
        return tuple(thread.name for thread in self._threads if not thread.is_alive())

    def stop(self, wait_s: float = 20.0) -> None:
        """Ends every loop after its current step; a step still running after `wait_s` is left to its lease."""
        self._stop.set()
        for wake in self._wake.values():
            wake.set()
        for thread in self._threads:
            thread.join(timeout=wait_s)

    def _watched(self, name: str, body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as error:
            self._stop.set()
            self._failed(f"thread {name}: unexpected {type(error).__name__}")
            raise

    def _repeat(self, step: Loop) -> None:
        worker, wake, pause_s = f"{self._process}/{step.name}", self._wake[step.queue], UNAVAILABLE_S
        leases_left = False
        while not self._stop.is_set():
            try:
                if leases_left:  # a database that went away may have kept a claim, and our heartbeat would for ever
                    self._leases.give_back(worker)
                    leases_left = False
                worked = step.work(worker)
            except Unavailable as error:
                log.warning("%s", error)
                leases_left = bool(step.queue)
                self._stop.wait(max(pause_s, min(error.retry_after_s or 0.0, 60.0)))
                pause_s = min(pause_s * 2, UNAVAILABLE_MOST_S)
                continue
            if worked:
                pause_s = UNAVAILABLE_S
                continue
            wake.clear()
            if not self._stop.is_set():
                wake.wait()

    def _look(self) -> None:
        """Wakes the loops of every queue in which something is due. What one of them misses, the next look tells."""
        queues, pause_s = [queue for queue in self._wake if queue], IDLE_S
        clock, state = self._pipeline.clock, self._pipeline.state
        wall, steady = clock(), time.monotonic()
        while not self._stop.wait(pause_s):
            now, passed_s = clock(), time.monotonic() - steady
            back_s = wall + passed_s - now
            try:
                if back_s > CLOCK_BACK_S:
                    state.move_back(back_s, now, self._pipeline.timing.lease_s)
                    log.warning("the clock went back by %.0f s, and what is due with it", back_s)
                wall, steady = now, steady + passed_s
                due, pause_s = state.due(queues, now), IDLE_S
            except Unavailable as error:
                log.warning("%s", error)
                pause_s = UNAVAILABLE_S
                continue
            for queue in due | {""} & self._wake.keys():
                self._wake[queue].set()

    def _beat(self) -> None:
        lease_s = self._pipeline.timing.lease_s
        while not self._stop.wait(lease_s / HEARTBEATS_PER_LEASE):
            try:
                self._leases.renew_process(self._process, self._pipeline.clock(), lease_s)
            except Unavailable as error:
                log.warning("%s", error)
