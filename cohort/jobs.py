"""Questions that take long, asked in the background: each has a state, a progress and an answer, and can be ended."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal
from uuid import uuid4

from bridge.errors import ProjectError, Unavailable
from cohort.answer import Answer
from cohort.watch import Cancelled, Watch

MOST_JOBS, MOST_OF_ONE, KEPT_S, WAIT_S = 32, 8, 3600.0, 600.0
"""Jobs known at a time, of all and of one person; seconds after a job's end; seconds that it waits for a turn."""

State = Literal["waiting", "running", "completed", "failed", "cancelled"]
ENDED = ("completed", "failed", "cancelled")
_log = logging.getLogger(__name__)


@dataclass
class Job:
    """One question. `name` names the file of its answer; `error` says why it failed."""

    id: str
    who: str
    name: str
    began: float
    watch: Watch = field(default_factory=Watch)
    answer: Answer | None = None
    error: str = ""
    outcome: State | None = None
    ended: float | None = None

    @property
    def state(self) -> State:
        return self.outcome or ("running" if self.watch.running else "waiting")


class Jobs:
    """The jobs of this process; they end with it. A job's id is not to be guessed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._jobs: dict[str, Job] = {}
        self._lock, self._clock = threading.Lock(), clock

    def start(self, who: str, name: str, run: Callable[[Watch], Answer]) -> Job:
        """Begins a job. Raises Unavailable when there are too many."""
        job = Job(uuid4().hex, who, name, self._clock())
        with self._lock:
            self._forget()
            if sum(j.who == who and j.outcome is None for j in self._jobs.values()) >= MOST_OF_ONE:
                raise Unavailable("too many questions of one person at once: try again", 5.0)
            self._jobs[job.id] = job
        threading.Thread(target=self._run, args=(job, run), name="cohort-job", daemon=True).start()
        return job

    def find(self, id_: str) -> Job | None:
        """A job that is still known."""
        with self._lock:
            self._forget(keep=MOST_JOBS)
            return self._jobs.get(id_)

    def end(self, id_: str) -> bool:
        """Ends a job and forgets it, with its answer. False for one that is not known."""
        with self._lock:
            job = self._jobs.pop(id_, None)
        if job is not None:
            job.watch.cancel()
        return job is not None

    def seconds(self, job: Job) -> float:
        """How long it has taken so far, or took."""
        return round((self._clock() if job.ended is None else job.ended) - job.began, 3)

    def _forget(self, keep: int = MOST_JOBS - 1) -> None:
        """Leaves out what ended long ago, then what ended first. Raises Unavailable when too many have not ended."""
        now = self._clock()
        self._jobs = {i: j for i, j in self._jobs.items() if j.ended is None or now - j.ended < KEPT_S}
        ended = sorted((j.ended, i) for i, j in self._jobs.items() if j.ended is not None)
        for _, id_ in ended[: max(0, len(self._jobs) - keep)]:
            del self._jobs[id_]
        if len(self._jobs) > keep:
            raise Unavailable("too many questions at once: try again", 5.0)

    def _run(self, job: Job, run: Callable[[Watch], Answer]) -> None:
        outcome: State = "completed"
        try:
            job.answer = self._in_turn(job, run)
        except Cancelled:
            outcome = "cancelled"
        except ProjectError as error:
            job.error, outcome = str(error), "failed"
        except Exception as error:  # noqa: BLE001
            job.error, outcome = "the question failed", "failed"
            _log.error("a question in the background failed: %s", type(error).__name__)
        job.ended = self._clock()
        job.outcome = outcome

    def _in_turn(self, job: Job, run: Callable[[Watch], Answer]) -> Answer:
        """Asks until there is a turn: a job waits longer for one than a person at a page does."""
        while True:
            job.watch.check()
            try:
                return run(job.watch)
            except Unavailable:
                if self._clock() - job.began > WAIT_S:
                    raise
                time.sleep(0.2)
