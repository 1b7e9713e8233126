"""Exports in the background: one runs at a time, few are kept, none for long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import uuid4

from bridge.errors import InvalidQuery, ProjectError, Unavailable

MOST_JOBS, MOST_BYTES, KEPT_S = 16, 268_435_456, 3600.0
"""Exports known at a time; bytes of one export's outputs, which are held in memory; seconds after its end."""

Part = tuple[str, Callable[[], bytes]]
"""A view's name, and what makes its output."""


@dataclass
class Job:
    """One export. `state`: running, completed, failed, cancelled."""

    id: str
    format: str
    state: str = "running"
    error: str = ""
    outputs: list[tuple[str, bytes]] = field(default_factory=list)
    ended: float = 0.0


class Exports:
    """The exports of this process; they end with it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._jobs: dict[str, Job] = {}
        self._lock, self._turn, self._clock = threading.Lock(), threading.Lock(), clock

    def start(self, parts: Sequence[Part], format: str) -> Job:
        """Begins an export. Raises Unavailable when there are too many."""
        job = Job(uuid4().hex, format)
        with self._lock:
            now = self._clock()
            self._jobs = {i: j for i, j in self._jobs.items() if j.state == "running" or now - j.ended < KEPT_S}
            if len(self._jobs) >= MOST_JOBS:
                ended = [j for j in self._jobs.values() if j.state != "running"]
                if not ended:
                    raise Unavailable("too many exports at once: try again")
                del self._jobs[min(ended, key=lambda j: j.ended).id]
            self._jobs[job.id] = job
        threading.Thread(target=self._run, args=(job, parts), daemon=True).start()
        return job

    def find(self, id_: str) -> Job | None:
        """An export that is still known."""
        return self._jobs.get(id_)

    def cancel(self, id_: str) -> bool:
        """Forgets an export; one that runs ends before its next view."""
        with self._lock:
            job = self._jobs.pop(id_, None)
        if job:
            job.state = "cancelled"
        return job is not None

    def _run(self, job: Job, parts: Sequence[Part]) -> None:
        with self._turn:
            for name, make in parts:
                if job.state == "cancelled":
                    return
                try:
                    made = make()
                    if sum(len(o) for _, o in job.outputs) + len(made) > MOST_BYTES:
                        raise InvalidQuery("the outputs are larger than one export may be")
                except ProjectError as error:
                    job.outputs.clear()
                    self._end(job, "failed", str(error))
                    return
                except Exception:
                    job.outputs.clear()
                    self._end(job, "failed", "the export failed")
                    raise
                job.outputs.append((name, made))
            self._end(job, "completed", "")

    def _end(self, job: Job, state: str, error: str) -> None:
        job.error, job.ended = error, self._clock()
        if job.state == "running":
            job.state = state
