"""Seed after seed on both databases, until there were enough kills and minutes; then a report.

make soak                              at least 500 kills and 30 minutes; writes bench/results/soak.json
python -m tests.faults.soak MINUTES KILLS FIRST_SEED
"""

from __future__ import annotations

import itertools
import sys
import time
from collections import Counter
from collections.abc import Sequence

from bench.results_file import Measured, write
from tests.faults.prober import ANSWER_WITHIN_S, Probed
from tests.faults.run import Outcome, run
from tests.faults.verdict import SETTLES_IN_S

MINUTES, KILLS, FIRST_SEED, LENGTH = 30.0, 500, 1000, 20
DATABASES = ("postgresql", "sqlite")

AVAILABLE = (
    f"a valid request (search, read, readyz) to one of all serving processes got its right answer within "
    f"{ANSWER_WITHIN_S:g} s, by a client that tries again after 503 and lost connections; kills by the soak count"
)


def main() -> None:
    given = sys.argv[1:]
    minutes = float(given[0]) if given else MINUTES
    kills = int(given[1]) if len(given) > 1 else KILLS
    first = int(given[2]) if len(given) > 2 else FIRST_SEED
    began, outcomes = time.monotonic(), list[Outcome]()
    for seed in itertools.count(first):
        outcomes.append(run(seed, DATABASES[seed % 2], LENGTH))
        last = outcomes[-1]
        told = "; ".join(last.problems) or f"right again after {max(last.settled_s):.0f} s at most"
        print(f"seed {seed} on {last.database}: {last.kills} kills, {last.probed}: {told}", flush=True)
        if last.problems:
            print(last.log, flush=True)
        if time.monotonic() - began >= 60 * minutes and sum(one.kills for one in outcomes) >= kills:
            break
    minutes = (time.monotonic() - began) / 60
    rows = [*_of_all(outcomes, minutes, kills), *(row for name in DATABASES for row in _of_answers(name, outcomes))]
    write("soak", first, _sizes(outcomes, minutes), rows, len(outcomes))
    sys.exit(any(one.problems for one in outcomes))


def _of_all(outcomes: Sequence[Outcome], minutes: float, kills: int) -> list[Measured]:
    killed, longest = sum(one.kills for one in outcomes), max(s for one in outcomes for s in one.settled_s)
    lost, doubled = sum(one.tally.lost for one in outcomes), sum(one.tally.doubled for one in outcomes)
    failed = sum(bool(one.problems) for one in outcomes)
    return [
        Measured("kill -9", killed, "", goal=f">= {kills}", met=killed >= kills),
        Measured("kill -9", killed / minutes, "per minute"),
        Measured("studies that must be there", sum(one.tally.studies for one in outcomes), ""),
        Measured("studies lost at the end of a seed", lost, "", goal="0", met=lost == 0),
        Measured("studies doubled at the end of a seed", doubled, "", goal="0", met=doubled == 0),
        Measured("seeds with any problem", failed, "", goal="0", met=failed == 0),
        Measured(
            "from the end of a fault to no difference, the longest", longest, "s",
            goal=f"<= {SETTLES_IN_S:g} s", met=longest <= SETTLES_IN_S,
        ),
    ]  # fmt: skip


def _of_answers(database: str, outcomes: Sequence[Outcome]) -> list[Measured]:
    found = Probed()
    for one in outcomes:
        if one.database == database:
            found.add(one.probed)
    if not found.requests:
        return []
    available, wrong = 100 * (1 - found.unanswered / found.requests), 100 * found.wrong / found.requests
    return [
        Measured(f"{database}: valid requests", found.requests, ""),
        Measured(f"{database}: available", available, "%", goal=">= 99.95 %", met=available >= 99.95),
        Measured(f"{database}: wrong answers", wrong, "%", goal="< 0.1 %", met=wrong < 0.1),
        Measured(f"{database}: answered at the first try", 100 * found.first / found.requests, "%"),
        Measured(f"{database}: the longest wait for an answer", found.longest_s, "s"),
    ]


def _sizes(outcomes: Sequence[Outcome], minutes: float) -> dict[str, object]:
    faults: Counter[str] = Counter()
    for one in outcomes:
        faults.update(one.faults)
    return {
        "minutes": round(minutes, 1),
        "seeds": [outcomes[0].seed, outcomes[-1].seed],
        "changes_and_faults_of_each_seed": 2 * LENGTH,
        "faults": dict(sorted(faults.items())),
        "available": AVAILABLE,
        "wrong": "a status other than 200 and 503, or content that was not asked for, in any try",
        "failed": [
            {"again": f"python -m tests.faults.run {one.seed} {one.database} {LENGTH}", "problems": one.problems}
            for one in outcomes
            if one.problems
        ],
    }


if __name__ == "__main__":
    main()
