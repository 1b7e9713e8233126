"""Seed after seed on both databases, until there were enough kills and minutes; then a report.

make soak                              at least 500 kills and 30 minutes; writes bench/results/soak.json
python -m tests.faults.soak MINUTES KILLS FIRST_SEED
"""

from __future__ import annotations

import itertools
import os
import platform
import sys
import time
from collections import Counter
from typing import Any

import orjson

from tests.faults.run import Outcome, run
from tests.faults.world import ROOT

MINUTES, KILLS, FIRST_SEED, LENGTH = 30.0, 500, 1000, 20


def main() -> None:
    given = sys.argv[1:]
    minutes = float(given[0]) if given else MINUTES
    kills = int(given[1]) if len(given) > 1 else KILLS
    first = int(given[2]) if len(given) > 2 else FIRST_SEED
    began, outcomes = time.monotonic(), list[Outcome]()
    for seed in itertools.count(first):
        outcomes.append(run(seed, ("postgresql", "sqlite")[seed % 2], LENGTH))
        told = "; ".join(outcomes[-1].problems) or "all is there once"
        print(f"seed {seed} on {outcomes[-1].database}: {outcomes[-1].kills} kills: {told}", flush=True)
        if time.monotonic() - began >= 60 * minutes and sum(one.kills for one in outcomes) >= kills:
            break
    report = _report(outcomes, time.monotonic() - began)
    (ROOT / "bench" / "results" / "soak.json").write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")
    print(f"{report['kills']} kills in {len(outcomes)} seeds, {len(report['failed'])} failed")
    sys.exit(bool(report["failed"]))


def _report(outcomes: list[Outcome], seconds: float) -> dict[str, Any]:
    faults: Counter[str] = Counter()
    for one in outcomes:
        faults.update(one.faults)
    return {
        "machine": {"cores": os.cpu_count(), "system": platform.system()},
        "minutes": round(seconds / 60, 1),
        "seeds": [outcomes[0].seed, outcomes[-1].seed],
        "faults_of_each_seed": LENGTH,
        "kills": sum(one.kills for one in outcomes),
        "faults": dict(sorted(faults.items())),
        "failed": [
            {"again": f"python -m tests.faults.run {one.seed} {one.database} {LENGTH}", "problems": one.problems}
            for one in outcomes
            if one.problems
        ],
    }


if __name__ == "__main__":
    main()
