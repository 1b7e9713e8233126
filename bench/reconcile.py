"""Reconciliation of 10,000 to 1,000,000 studies: how fast, and that its memory does not grow with them.

    make bench-reconcile                10,000, 100,000 and 1,000,000 studies
    python -m bench.reconcile 10000     these sizes alone; written all the same

Each size is compared by a process of its own, whose peak memory is told beside what it had before it began. One
difference of each kind is planted: all of them and nothing else must be found.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.reconcile_parties import ARCHIVE, SERVER, Archive, Planted, Server, fill_lake, fill_state
from bench.results_file import ROOT, Measured, write
from bridge.reconcile.reconciler import Reconciler
from bridge.state import State
from cohort.lake import Lake
from cohort.tally import LakeTally

SEED, SIZES, GROWTH = 0, (10_000, 100_000, 1_000_000), 1.2
WHOLE = 10_000
"""Up to so many studies are also compared whole: every header read, every resource element by element."""


def main() -> None:
    if sys.argv[1:2] == ["compare"]:
        print(json.dumps(compare(Path(sys.argv[2]), int(sys.argv[3]), whole=sys.argv[4] == "whole")))
        return
    sizes = tuple(map(int, sys.argv[1:])) or SIZES
    found = {size: measured(size) for size in sizes}
    rows = [row for size, one in found.items() for row in _rows(size, one)]
    if len(sizes) > 1:
        small, large = sizes[-2:]
        growth = found[large][0]["peak_mb"] / found[small][0]["peak_mb"]
        rows.append(Measured(f"peak memory, {large:,} over {small:,} studies", growth, "times", goal=f"<= {GROWTH}",
                             met=growth <= GROWTH))  # fmt: skip
    rows.append(Measured("load of the machine, one minute", os.getloadavg()[0], ""))
    write("reconcile", SEED, {"studies": list(sizes), "instances": 2 * max(sizes)}, rows, 1)


def measured(studies: int) -> list[dict[str, Any]]:
    """A comparison, and where there are few studies a whole one: each what its process printed."""
    with tempfile.TemporaryDirectory(prefix="reconcile-", dir=ROOT) as scratch:
        Path(scratch, ".gitignore").write_text("*\n", "utf-8")
        state = State(f"sqlite:///{scratch}/state.sqlite")
        fill_state(state, studies)
        state.close()
        fill_lake(Lake(Path(scratch) / "lake"), studies)
        print(f"{studies:,} studies made", flush=True)
        found = []
        for how in ("counts", "whole") if studies <= WHOLE else ("counts",):
            command = [sys.executable, "-m", "bench.reconcile", "compare", scratch, str(studies), how]
            done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
            found.append(json.loads(done.stdout.splitlines()[-1]))
            print(f"{studies:,} studies compared: {found[-1]}", flush=True)
        return found


def compare(folder: Path, studies: int, *, whole: bool) -> dict[str, Any]:
    """In a process of its own. Raises AssertionError when anything but what was planted is found."""
    state, archive, sink = State(f"sqlite:///{folder}/state.sqlite"), Archive(Planted(studies)), Server().sink()
    began: list[tuple[str, float]] = []
    with LakeTally(Lake(folder / "lake")) as lake:
        made = Reconciler(state, {ARCHIVE: archive}, {SERVER: sink}, lake, time.time,  # type: ignore[dict-item]
                          lambda what: began.append((what, time.perf_counter())))  # fmt: skip
        base = _memory_mb("VmRSS")
        report = made.run(whole=whole)
    began.append(("", time.perf_counter()))
    state.close()
    assert not [c.error for c in report.comparisons if c.error], report.as_json()
    found = [(c.left, c.right, d.key, d.level.value) for c in report.comparisons for d in c.differences]
    assert len(found) == len(set(found))
    expected = Planted(studies).expected
    assert set(found) == expected, (sorted(set(found) - expected), sorted(expected - set(found)))
    assert sum(sum(c.standings.values()) for c in report.comparisons) == len(expected)
    compared = {c.right: c.compared["studies"] for c in report.comparisons if c.left == "state"}
    assert compared == {SERVER: studies, "lake": studies}
    seconds = {what: end - start for (what, start), (_, end) in pairwise(began)}
    return {"seconds": seconds, "base_mb": base, "peak_mb": _memory_mb("VmHWM"), "planted": len(expected)}


def _rows(studies: int, found: list[dict[str, Any]]) -> list[Measured]:
    rows = []
    for how, one in zip(("", ", whole"), found, strict=False):
        of = f"{studies:,} studies{how}"
        total = sum(one["seconds"].values())
        rows += [
            Measured(f"{of}: everything", studies / total, "studies/s"),
            *(Measured(f"{of}: {what}", studies / s, "studies/s") for what, s in one["seconds"].items()),
            Measured(f"{of}: peak memory", one["peak_mb"], "MB", "before it began", one["base_mb"]),
            Measured(f"{of}: planted differences found, and nothing else", one["planted"], "", met=True),
        ]
    return rows


def _memory_mb(what: str) -> float:
    """Of this process (proc(5)): VmRSS now, VmHWM at most so far."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text("utf-8"))
    assert found is not None
    return int(found[1]) / 1024


if __name__ == "__main__":
    main()
