"""Ways of doing one thing, measured in turns, so that what else the machine does falls on all of them alike."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Milliseconds for one item: the processor's, and by the clock."""

    cpu_ms: float
    wall_ms: float


def in_turns(ways: Mapping[str, Callable[[], Cost]], runs: int) -> dict[str, Cost]:
    """The medians of so many runs of each way, after one that is not counted."""
    found: dict[str, list[Cost]] = {name: [] for name in ways}
    for run in range(runs + 1):
        for name, way in ways.items():
            cost = way()
            if run:
                found[name].append(cost)
    return {
        name: Cost(statistics.median(c.cpu_ms for c in costs), statistics.median(c.wall_ms for c in costs))
        for name, costs in found.items()
    }


def timed(work: Callable[[], object], items: int) -> Callable[[], Cost]:
    """What work of so many items costs each of them, when it is done in this process."""

    def way() -> Cost:
        gc.collect()
        cpu, wall = time.process_time(), time.perf_counter()
        work()
        return Cost(1000 * (time.process_time() - cpu) / items, 1000 * (time.perf_counter() - wall) / items)

    return way
