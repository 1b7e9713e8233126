"""What processes use, from /proc: CPU time and resident memory, each with the children that it has."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclass(frozen=True)
class Sample:
    """At a moment (seconds since the epoch): CPU seconds since each process began, and its memory in MB."""

    at: float
    cpu_s: Mapping[str, float]
    resident_mb: Mapping[str, float]


@dataclass
class Watched:
    """Samples of named processes, in order of time."""

    samples: list[Sample] = field(default_factory=list)

    def cores(self, name: str, from_: float, to: float) -> float:
        """How many cores a process used between the two moments."""
        some = [s for s in self.samples if from_ - 1 <= s.at <= to + 1]
        return (some[-1].cpu_s[name] - some[0].cpu_s[name]) / (some[-1].at - some[0].at)

    def fifths_mb(self, name: str, from_: float, to: float) -> tuple[float, float, float]:
        """Memory between the two moments: medians of the second and of the last fifth of the time, and the most."""
        values = [s.resident_mb[name] for s in self.samples if from_ <= s.at <= to]
        fifth = len(values) // 5
        return statistics.median(values[fifth : 2 * fifth]), statistics.median(values[-fifth:]), max(values)


@contextmanager
def watched(roots: Mapping[str, int], every_s: float = 0.5) -> Iterator[Watched]:
    """Samples of these processes (name → id of the first of its tree) and of the `machine`, until the block ends."""
    found, ended = Watched(), threading.Event()

    def watch() -> None:
        while True:
            found.samples.append(_sample(roots))
            if ended.wait(every_s):
                return

    thread = threading.Thread(target=watch, name="watch")
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and of its children that have ended."""
    return _cpu_s(_fields(pid))


def _sample(roots: Mapping[str, int]) -> Sample:
    stats = _stats()
    children: dict[int, list[int]] = {}
    for pid, fields in stats.items():
        children.setdefault(int(fields[1]), []).append(pid)
    used, resident_mb = {"machine": _machine_cpu_s()}, dict[str, float]()
    for name, root in roots.items():
        tree = [stats[pid] for pid in _tree(root, children) if pid in stats]
        used[name] = sum(map(_cpu_s, tree))
        resident_mb[name] = sum(int(fields[21]) for fields in tree) * PAGE_MB
    return Sample(time.time(), used, resident_mb)


def _stats() -> dict[int, Sequence[str]]:
    """Process id → the fields of /proc/ID/stat from the third on."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                found[int(folder.name)] = _fields(int(folder.name))
            except OSError:
                continue  # it has ended
    return found


def _fields(pid: int) -> Sequence[str]:
    return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()


def _cpu_s(fields: Sequence[str]) -> float:
    return sum(map(int, fields[11:15])) / TICKS


def _tree(root: int, children: Mapping[int, Sequence[int]]) -> Iterator[int]:
    yield root
    for child in children.get(root, ()):
        yield from _tree(child, children)


def _machine_cpu_s() -> float:
    """Of all cores, without waiting and idling (user, nice, system, irq, softirq)."""
    fields = Path("/proc/stat").read_text("utf-8").splitlines()[0].split()[1:]
    return sum(int(fields[n]) for n in (0, 1, 2, 5, 6)) / TICKS
