"""The process is killed at every stage; what is there after a restart is what a run without a kill gives."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.builders import STUDY, write_file
from tests.kill_runs import KILLED, Run, kill_runs, result

STAGES = (
    "changes read", "marks committed", "claimed", "headers read", "snapshots committed", "translated",
    "study committed", "delivery claimed", "delivered", "folded", "manifest written", "published", "delta removed",
)  # fmt: skip


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    with kill_runs() as runs:
        yield runs


def fill(folder: Path) -> None:
    for study in range(1, 6):
        for series in (1, 2):
            for instance in (1, 2, 3):
                uid = f"{STUDY}.{study}"
                path = folder / "inbox" / f"{study}" / f"{series}-{instance}.dcm"
                write_file(path, study=uid, series=series, instance=instance, PatientID=f"P{study}")


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, run: Run) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("whole")
    fill(folder)
    return result(run(folder))


def test_a_run_without_a_kill_reaches_every_stage(expected: dict[str, Any]) -> None:
    assert set(STAGES) <= set(expected["stages"])
    assert expected["lake"] == [5, 10, 30, 30]
    assert {version for version, _ in expected["resources"].values()} == {1}


@pytest.mark.timeout(200)
@pytest.mark.parametrize("nth", [1, 3])
@pytest.mark.parametrize("stage", STAGES)
def test_a_kill_loses_nothing_and_doubles_nothing(
    tmp_path: Path, expected: dict[str, Any], run: Run, stage: str, nth: int
) -> None:
    fill(tmp_path)
    killed = run(tmp_path, stage, nth)
    assert killed.returncode in (KILLED, 0)
    if nth == 1:
        assert killed.returncode == KILLED
    again = result(run(tmp_path))
    assert again["resources"] == expected["resources"]
    assert again["lake"] == expected["lake"]
    shutil.rmtree(tmp_path)
