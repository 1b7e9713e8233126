"""A few seeds on each database. `make soak` runs many; `python -m tests.faults.run SEED DATABASE` runs one again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.run import run
from tests.faults.schedule import ANSWERS, FEED, STAGES, schedule
from tests.services.peers import missing

FAULTS = 10


def test_a_seed_gives_one_schedule_and_another_gives_another() -> None:
    assert schedule(1, 20, "sqlite") == schedule(1, 20, "sqlite")
    assert schedule(1, 20, "sqlite") != schedule(2, 20, "sqlite")
    assert schedule(1, 20, "sqlite") != schedule(1, 20, "postgresql")


def test_the_seeds_of_a_soak_have_every_fault() -> None:
    seeds = [(seed, ("postgresql", "sqlite")[seed % 2]) for seed in range(40)]
    found = {(fault.what, fault.how) for seed, database in seeds for fault in schedule(seed, 20, database)}
    assert {how for what, how in found if what == "killed at"} == set(STAGES)
    assert {how for what, how in found if what == "ehr answers"} == set(ANSWERS)
    assert {how for what, how in found if what == "disk full"} == {"state", "lake", "spool"}
    assert {how for what, how in found if what == "network"} == {"cut", "slow"}
    others = {
        "killed",
        "clock moved",
        "database killed",
        "archive away",
        "archive restarted",
        "lake damaged",
        "bad documents",
    }
    assert others | set(FEED) <= {what for what, _ in found}


@pytest.mark.service
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("seed", "database"),
    [(1, "sqlite"), (3, "postgresql"), (9, "sqlite")],
)
def test_after_all_that_went_wrong_everything_is_there_once(seed: int, database: str) -> None:
    if database == "postgresql" and not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        missing("PostgreSQL")
    outcome = run(seed, database, FAULTS)
    assert outcome.problems == (), outcome.log
    assert (outcome.tally.lost, outcome.tally.doubled, outcome.probed.wrong) == (0, 0, 0)
    assert outcome.probed.requests > outcome.probed.unanswered
    assert outcome.kills
