"""One seed: its world, its faults, and what is wrong afterwards.

python -m tests.faults.run SEED [sqlite|postgresql] [FAULTS]
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.faults.prober import Probed, probing
from tests.faults.schedule import Fault, schedule
from tests.faults.verdict import Tally, evidence, never, settled, tally
from tests.faults.world import World
from tests.services.postgresql import PostgreSql, a_postgresql, fresh_database

CALM_AFTER = 20
"""Changes and faults: then everything must be right before they go on."""


@dataclass(frozen=True)
class Outcome:
    """`problems` is empty when all held; `settled_s`: after how long nothing was wrong, each time that it was looked;
    `log` the end of what the bridges had said, and what waited, when something was wrong first."""

    seed: int
    database: str
    problems: tuple[str, ...]
    kills: int
    faults: dict[str, int]
    settled_s: tuple[float, ...]
    tally: Tally
    probed: Probed
    log: str


def run(seed: int, database: str, length: int) -> Outcome:
    """Lets so many faults of a seed happen, then all be well."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"faults-{seed}-")))
        server: PostgreSql | None = None
        url = ""
        if database == "postgresql":
            server = stack.enter_context(a_postgresql())
            url = fresh_database(server.url, "faults")
        world = World(folder, seed, url, server, stack)
        settled_s, wrong, log = list[float](), list[str](), ""
        with probing(world.bridges.addresses) as probed:
            world.meet(Fault("new study", amount=2, pause_s=2.0))
            faults = schedule(seed, length, database)
            for n, fault in enumerate(faults, 1):
                world.meet(fault)
                if n % CALM_AFTER == 0 or n == len(faults):
                    took_s, left = settled(world)
                    settled_s.append(took_s)
                    wrong += left
                    log = log or (evidence(world) if left else "")
        wrong += never(world)
        reached = Counter({f"reached {stage}": times for stage, times in world.bridges.reached.items()})
        happened = dict(sorted((world.faults + reached).items()))
        kills, left, log = world.bridges.kills, tally(world), log or evidence(world)
        return Outcome(seed, database, tuple(wrong), kills, happened, tuple(settled_s), left, probed, log)


def main() -> None:
    database = sys.argv[2] if len(sys.argv) > 2 else "sqlite"
    outcome = run(int(sys.argv[1]), database, int(sys.argv[3]) if len(sys.argv) > 3 else 20)
    print(outcome.log, outcome.faults, outcome.probed, f"settled in {outcome.settled_s} s", sep="\n")
    print(f"{outcome.kills} kills, {outcome.tally}", *outcome.problems, sep="\n")
    sys.exit(bool(outcome.problems))


if __name__ == "__main__":
    main()
