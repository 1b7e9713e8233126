"""The pipeline's steps for what was imported, when no running bridge takes them."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from uuid import uuid4

from bridge.compose import Bridge
from bridge.errors import SinkUnavailable, Unavailable
from bridge.import_report import Bar, Summary
from bridge.ports import STUDY_QUEUE, sink_queue
from bridge.sources.importer import Verdict
from bridge.state import State

_IDLE_S = 0.2


def look_through(bridge: Bridge, sources: Sequence[str], summary: Summary, bar: Bar) -> None:
    """Indexes everything that these sources hold."""
    for name in sources:
        source, caught_up = bridge.sources[name], False
        show, started = bar("Reading in place", 0), time.monotonic()
        while not caught_up:
            page = source.changes(bridge.state.position(name))
            bridge.state.commit_page(name, page, time.time(), 0.0, 0.0)
            summary.add_page(page)
            summary.seconds += time.monotonic() - started
            started, caught_up = time.monotonic(), page.caught_up
            show(0, f"{summary.verdicts[Verdict.IMPORTED]} objects")


def drain(bridge: Bridge, bar: Bar) -> int:
    """Works on studies until all were tried and delivered, or only waits for peers; how many rows still wait."""
    process = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
    worker, away = f"{process}/import", set[str]()
    total = sum(_untried(bridge.state, STUDY_QUEUE))
    show = bar("Translating and delivering", total)
    with _leases_kept(bridge, process):
        while True:
            worked = bridge.pipeline.translate(worker, limit=8)
            for sink in bridge.sinks.keys() - away:
                try:
                    worked += bridge.pipeline.deliver(sink, worker)
                except SinkUnavailable:
                    away.add(sink)
            untried = _untried(bridge.state, STUDY_QUEUE)[0]
            sinks = sum(_untried(bridge.state, sink_queue(sink))[0] for sink in bridge.sinks.keys() - away)
            show(max(0, total - untried), f"{untried} studies left")
            if not untried and not sinks:
                break
            if not worked:
                time.sleep(_IDLE_S)
    return sum(sum(_untried(bridge.state, queue)) for queue in (STUDY_QUEUE, *map(sink_queue, bridge.sinks)))


def _untried(state: State, queue: str) -> tuple[int, int]:
    """(rows of a queue not tried yet, rows that failed and are tried again later)."""
    for name, waiting, _parked, failing, _oldest in state.depth():
        if name == queue:
            return waiting - failing, failing
    return 0, 0


@contextmanager
def _leases_kept(bridge: Bridge, process: str) -> Iterator[None]:
    """A heartbeat, so that a study of any size is finished by the worker that began it."""
    stop, lease_s = threading.Event(), bridge.pipeline.timing.lease_s

    def beat() -> None:
        while not stop.wait(lease_s / 3):
            with suppress(Unavailable):
                bridge.state.renew_process(process, time.time(), lease_s)

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
