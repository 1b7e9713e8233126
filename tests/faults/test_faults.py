"""A few seeds on each database. `make soak` runs many; `python -m tests.faults.run SEED DATABASE` runs one again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.run import run
from tests.faults.schedule import schedule
from tests.services.peers import missing

FAULTS = 10
FOUND = ((2, "sqlite"),)
"""Seeds that once failed, with twice as many faults. 2: a clock that was ahead stopped polls for an hour."""


def test_a_seed_gives_one_schedule_and_another_gives_another() -> None:
    assert schedule(1, 20, "sqlite") == schedule(1, 20, "sqlite")
    assert schedule(1, 20, "sqlite") != schedule(2, 20, "sqlite")
    kinds = {fault.what for seed in range(20) for fault in schedule(seed, 20, "postgresql")}
    assert {
        "killed at",
        "killed",
        "clock moved",
        "database killed",
        "entries lost",
        "ehr answers",
        "bad documents",
    } <= kinds
    assert "disk full" in {fault.what for fault in schedule(1, 20, "sqlite")}


@pytest.mark.service
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("seed", "database", "length"),
    [(1, "sqlite", FAULTS), (3, "postgresql", FAULTS), *((seed, database, 2 * FAULTS) for seed, database in FOUND)],
)
def test_after_all_that_went_wrong_everything_is_there_once(seed: int, database: str, length: int) -> None:
    if database == "postgresql" and not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        missing("PostgreSQL")
    outcome = run(seed, database, length)
    assert outcome.problems == (), outcome.log
    assert outcome.kills
