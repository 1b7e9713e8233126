"""The processes that queries run in: begun when one is needed, ended at a limit.

A process that ran SQL of the program's own waits for more of the same generation for a while: what it has read is there
already. One that ran a person's SQL ends with it.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from typing import Any

import orjson

from bridge.confined import command, kill
from cohort.frames import receive, send
from cohort.spill import spilling
from cohort.watch import Watch

IDLE, IDLE_S = 2, 60.0
"""So many processes wait, for so many seconds. Each may hold the memory that one query may use."""

QUERIES = 1000
"""So many a process runs before another takes its place: what it never gave back goes with it."""

ENDS_IN_S = 5.0


class Late(Exception):
    """The query took longer than its deadline."""


class Died(Exception):
    """The process ended without an answer; `code` is how."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Worker:
    """One process. It has a process group of its own and no environment; the group is killed at its end.

    `opened` is what its connection is made of. With `spill` it may go on on disk where its memory ends.
    """

    def __init__(self, opened: Mapping[str, Any], *, spill: bool) -> None:
        self._stack, self.queries = ExitStack(), 0
        folder = self._stack.enter_context(spilling() if spill else nullcontext(""))
        reading, writing = os.pipe()
        self._progress = self._stack.enter_context(os.fdopen(reading))
        try:
            self.process = subprocess.Popen(
                command("cohort.worker"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={},
                process_group=0,
                pass_fds=(writing,),
            )
        except BaseException:
            self._stack.close()
            raise
        finally:
            os.close(writing)
        self._opened: Mapping[str, Any] | None = {**opened, "spill": folder, "progress": writing}

    def ask(self, asked: Mapping[str, Any], deadline_s: float, watch: Watch | None) -> bytes:
        """What it answers. Raises Late, Died, Cancelled; it is to be ended then."""
        self.queries += 1
        opened, self._opened = self._opened, None
        late = threading.Event()

        def end() -> None:
            late.set()
            kill(self.process)

        timer = threading.Timer(deadline_s, end)
        timer.daemon = True
        timer.start()
        try:
            with self._watched(watch):
                answer = self._answer(orjson.dumps({**asked, "opened": opened, "watched": watch is not None}))
        finally:
            timer.cancel()
        if answer is not None:
            return answer
        if late.is_set():
            raise Late
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(ENDS_IN_S)
        raise Died(self.end())

    def end(self) -> int:
        """Kills it if it lives; how it ended."""
        if self.process.poll() is None:
            kill(self.process)
        code = self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):  # what was not written yet
                pipe.close()  # type: ignore[union-attr]
        self._stack.close()
        return code

    def _answer(self, asked: bytes) -> bytes | None:
        """None when it ended."""
        try:
            send(self.process.stdin, asked)
        except OSError:
            return None
        return receive(self.process.stdout)

    @contextmanager
    def _watched(self, watch: Watch | None) -> Iterator[None]:
        """Tells the watch what the process writes: the percentage that is done, a line each time, and an empty one at
        the end of a query."""
        if watch is None:
            yield
            return

        def follow() -> None:
            with suppress(ValueError):
                while (line := self._progress.readline()).strip():
                    watch.progress = min(max(float(line) / 100, 0.0), 1.0)

        follower = threading.Thread(target=follow, daemon=True)
        try:
            with watch.over(lambda: kill(self.process)):
                follower.start()
                yield
        except BaseException:
            kill(self.process)
            raise
        finally:
            if follower.ident is not None:
                follower.join()


class Workers:
    """Processes that wait, by what they have opened. Safe to be used by many threads."""

    def __init__(self, begin: Callable[..., Worker] = Worker) -> None:
        self._begin, self._lock = begin, threading.Lock()
        self._idle: list[tuple[bytes, Worker]] = []

    def ask(
        self, opened: Mapping[str, Any], asked: Mapping[str, Any], deadline_s: float, watch: Watch | None
    ) -> dict[str, Any]:
        """The answer of one that has opened the same, or of a new one. What one that waited cannot answer, a new one is
        asked: no answer depends on what was asked before. Raises as `Worker.ask`."""
        key = orjson.dumps(opened)
        waited = self._taken(key)
        if waited is not None:
            try:
                told = self._told(waited, asked, deadline_s, watch)
            except Died as died:
                if died.code == -signal.SIGXCPU:
                    raise
                told = {"error": ""}
            if "error" not in told:
                self._give_back(key, waited)
                return told
            waited.end()
        worker = self._begin(opened, spill=True)
        told = self._told(worker, asked, deadline_s, watch)
        if "error" in told:
            worker.end()
        else:
            self._give_back(key, worker)
        return told

    def close(self) -> None:
        """Ends those that wait."""
        with self._lock:
            idle, self._idle = self._idle, []
        for _, worker in idle:
            worker.end()

    def _told(self, worker: Worker, asked: Mapping[str, Any], deadline_s: float, watch: Watch | None) -> dict[str, Any]:
        try:
            told: dict[str, Any] = orjson.loads(worker.ask(asked, deadline_s, watch))
        except BaseException:
            worker.end()
            raise
        return told

    def _taken(self, key: bytes) -> Worker | None:
        with self._lock:
            for number, (of, worker) in enumerate(self._idle):
                if of == key:
                    del self._idle[number]
                    return worker
        return None

    def _give_back(self, key: bytes, worker: Worker) -> None:
        ended = [worker]
        if worker.queries < QUERIES:
            with self._lock:
                self._idle.append((key, worker))
                ended = [one for _, one in self._idle[:-IDLE]]
                self._idle = self._idle[-IDLE:]
            timer = threading.Timer(IDLE_S, self._expire, (worker, worker.queries))
            timer.daemon = True
            timer.start()
        for one in ended:
            one.end()

    def _expire(self, worker: Worker, queries: int) -> None:
        """Ends one that still waits, and was asked nothing meanwhile."""
        with self._lock:
            over = [one for _, one in self._idle if one is worker and one.queries == queries]
            self._idle = [(key, one) for key, one in self._idle if one not in over]
        for one in over:
            one.end()


WORKERS = Workers()
atexit.register(WORKERS.close)


def alone(
    opened: Mapping[str, Any], asked: Mapping[str, Any], deadline_s: float, watch: Watch | None
) -> dict[str, Any]:
    """The answer of a process that ends with it, and writes nothing. Raises as `Worker.ask`."""
    worker = Worker(opened, spill=False)
    try:
        told: dict[str, Any] = orjson.loads(worker.ask(asked, deadline_s, watch))
    finally:
        worker.end()
    return told
