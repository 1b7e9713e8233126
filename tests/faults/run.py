"""One seed: its world, its faults, and what is wrong afterwards.

python -m tests.faults.run SEED [sqlite|postgresql] [FAULTS]
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.faults.schedule import Fault, schedule
from tests.faults.verdict import evidence, problems
from tests.faults.world import World
from tests.services.postgresql import PostgreSql, a_postgresql, fresh_database


@dataclass(frozen=True)
class Outcome:
    """`problems` is empty when all held; `log` the end of what the bridges said."""

    seed: int
    database: str
    problems: tuple[str, ...]
    kills: int
    faults: dict[str, int]
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
        world.meet(Fault("new study", amount=2, pause_s=2.0))
        for fault in schedule(seed, length, database):
            world.meet(fault)
        wrong = problems(world)
        return Outcome(seed, database, tuple(wrong), world.kills, dict(sorted(world.faults.items())), evidence(world))


def main() -> None:
    database = sys.argv[2] if len(sys.argv) > 2 else "sqlite"
    outcome = run(int(sys.argv[1]), database, int(sys.argv[3]) if len(sys.argv) > 3 else 20)
    print(outcome.log, outcome.faults, f"{outcome.kills} kills", *outcome.problems, sep="\n")
    sys.exit(bool(outcome.problems))


if __name__ == "__main__":
    main()
