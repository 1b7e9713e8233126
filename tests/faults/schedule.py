"""What goes wrong, and when: the same for the same seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

STAGES = (
    "changes read", "marks committed", "claimed", "headers read", "snapshots committed", "translated",
    "study committed", "delivery claimed", "delivered", "folded", "manifest written", "published", "delta removed",
)  # fmt: skip

FEED = ("entries lost", "entries tripled", "entries late", "numbers skipped", "feed replayed")
ANSWERS = (
    "throttled", "unavailable", "cut", "halved", "hung", "unanswered", "unauthorized", "conflict", "precondition",
    "failed",
)  # fmt: skip
DISKS = {"sqlite": ("state", "lake", "spool"), "postgresql": ("lake",)}
KILLS = ("stage", "moment")
ARCHIVE = ("archive away", "archive restarted")
CLOCKS_S = (3600.0, -3600.0)


@dataclass(frozen=True)
class Fault:
    """One thing that happens: `what`, more of it in `how`, and a pause before the next. Units: `for_s`, `pause_s` s."""

    what: str
    how: str = ""
    nth: int = 1
    amount: float = 0.0
    for_s: float = 0.0
    pause_s: float = 0.0


def schedule(seed: int, length: int, database: str) -> tuple[Fault, ...]:
    """So many faults, each after a change in the archive: kills every second time, of the others all about as often."""
    random = Random(seed)
    kinds = ["feed", "ehr", "pacs", "network", "clock", "archive", "disk", "damage"]
    kinds += ["database"] if database == "postgresql" else []
    bag: list[str] = []
    found: list[Fault] = []
    for _ in range(length):
        if not bag:
            bag = [one for kind in random.sample(kinds, len(kinds)) for one in (kind, random.choice(KILLS))]
        found.append(_change(random))
        found.append(_fault(random, bag.pop(0), DISKS[database]))
    own = Random(f"documents of {seed}")  # the other faults of a seed stay what they were before there was this one
    found.insert(own.randrange(len(found) + 1), Fault("bad documents", pause_s=own.uniform(0.1, 3.0)))
    return tuple(found)


def _change(random: Random) -> Fault:
    what = random.choice(["new study", "objects sent", "more instances", "patient corrected", "study deleted"])
    return Fault(what, nth=random.randrange(1, 1000), amount=random.randint(1, 3))


def _fault(random: Random, kind: str, disks: Sequence[str]) -> Fault:
    pause_s = random.uniform(0.1, 1.0)
    if kind == "stage":
        return Fault("killed at", random.choice(STAGES), random.randint(1, 3), for_s=4.0, pause_s=pause_s)
    if kind == "moment":
        return Fault("killed", nth=random.randint(5, 12), pause_s=pause_s)
    if kind == "feed":
        return Fault(random.choice(FEED), amount=random.randint(1, 4), pause_s=pause_s)
    if kind in ("ehr", "pacs"):
        answer, rate = random.choice(ANSWERS), random.choice([0.2, 0.5, 1.0])
        return Fault(f"{kind} answers", answer, amount=rate, for_s=random.uniform(0.5, 3.0), pause_s=pause_s)
    if kind == "network":
        how = random.choice(["cut", "slow"])
        return Fault("network", how, for_s=random.uniform(0.5, 3.0), pause_s=pause_s)
    if kind == "clock":
        return Fault("clock moved", amount=random.choice(CLOCKS_S), for_s=random.uniform(1.0, 3.0), pause_s=pause_s)
    if kind == "disk":
        return Fault("disk full", random.choice(disks), for_s=random.uniform(0.5, 2.0), pause_s=pause_s)
    if kind == "database":
        return Fault("database killed", for_s=random.uniform(0.2, 1.5), pause_s=pause_s)
    if kind == "damage":
        return Fault("lake damaged", pause_s=pause_s)
    return Fault(random.choice(ARCHIVE), for_s=random.uniform(0.5, 3.0), pause_s=pause_s)
