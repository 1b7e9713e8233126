"""Processes of queries that wait for more: no answer depends on what was asked before, and none outlives its use."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import InvalidQuery
from cohort import sandbox, workers
from cohort.generation import Generation
from cohort.lake import Lake
from cohort.sandbox import Limits, Task, run, run_sql
from cohort.watch import Cancelled, Watch
from cohort.workers import Worker, Workers
from tests.hospital_lake import NOW
from tests.unit.test_lake import line

ROOT = Path(__file__).parents[2]
COUNT = Task("SELECT count(*) FROM patient")
LONG = Task("SELECT count(*) FROM range(100_000_000_000) a WHERE hash(range) = 7")
BUSY = Task("SELECT count(*) FROM range(100_000_000) WHERE hash(range) = 7")
"""About a second of CPU."""


class Counted(Workers):
    """Workers, and every process that was begun."""

    def __init__(self) -> None:
        self.begun: list[Worker] = []
        super().__init__(self._counted)

    def _counted(self, opened: Any, *, spill: bool) -> Worker:
        self.begun.append(Worker(opened, spill=spill))
        return self.begun[-1]

    @property
    def alive(self) -> int:
        return sum(one.process.poll() is None for one in self.begun)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    found = Counted()
    monkeypatch.setattr(sandbox, "WORKERS", found)
    yield found
    found.close()
    assert found.alive == 0


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    found = Lake(tmp_path / "lake")
    found.append([line("Patient", "p")])
    found.publish(NOW)
    return found


@pytest.fixture
def generation(lake: Lake) -> Generation:
    found = lake.current()
    assert found is not None
    return found


def soon(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < until, "it did not come to be"
        time.sleep(0.02)


def test_a_process_runs_one_query_after_another_of_a_generation(counted: Counted, lake: Lake) -> None:
    first = lake.current()
    assert first is not None
    lake.append([line("Patient", "q")])
    second = lake.publish(NOW)
    assert second is not None
    assert [run(first, COUNT).rows for _ in range(3)] == [((1,),)] * 3
    assert len(counted.begun) == 1
    assert run(second, COUNT).rows == ((2,),)
    assert run(first, COUNT).rows == ((1,),)
    assert len(counted.begun) == 2


def test_what_a_connection_shows_and_may_use_is_never_another_ones(
    counted: Counted, generation: Generation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "IDLE", 9)
    hidden = Task(COUNT.sql, views={"patient": 'FROM stored."patient" WHERE false'})
    told = Task("SELECT getvariable('v')::VARCHAR", variables={"v": "61"})
    assert run(generation, COUNT).rows == ((1,),)
    assert run(generation, hidden).rows == ((0,),)
    assert run(generation, told).rows == (("a",),)
    assert run(generation, Task(told.sql)).rows == ((None,),)
    assert run(generation, COUNT, Limits(memory_mb=200)).rows == ((1,),)
    assert len(counted.begun) == 4


def test_peoples_sql_has_a_process_of_its_own(counted: Counted, generation: Generation) -> None:
    run(generation, COUNT)
    assert run_sql(generation, COUNT.sql).rows == ((1,),)
    assert counted.begun[0].queries == 1


def test_no_more_wait_than_allowed_and_not_for_long(
    counted: Counted, generation: Generation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "IDLE_S", 0.5)
    for memory_mb in (200, 210, 220, 230):
        run(generation, COUNT, Limits(memory_mb=memory_mb))
        assert counted.alive <= workers.IDLE
    soon(lambda: counted.alive == 0)
    assert run(generation, COUNT).rows == ((1,),)


def test_another_takes_the_place_of_one_that_ran_many(
    counted: Counted, generation: Generation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "QUERIES", 2)
    assert [run(generation, COUNT).rows for _ in range(3)] == [((1,),)] * 3
    assert [one.queries for one in counted.begun] == [2, 1]


def test_one_that_was_killed_while_it_waited_is_not_missed(counted: Counted, generation: Generation) -> None:
    run(generation, COUNT)
    os.kill(counted.begun[0].process.pid, signal.SIGKILL)
    assert run(generation, COUNT).rows == ((1,),)
    assert len(counted.begun) == 2


def test_one_that_is_killed_while_it_runs_is_asked_again_once(counted: Counted, generation: Generation) -> None:
    run(generation, COUNT)
    killer = threading.Timer(0.3, os.kill, (counted.begun[0].process.pid, signal.SIGKILL))
    killer.start()
    assert run(generation, BUSY).rows == ((0,),)
    killer.join()
    assert 1 <= len(counted.begun) <= 2


def test_an_error_ends_it_and_is_told_by_a_new_one(counted: Counted, generation: Generation) -> None:
    run(generation, COUNT)
    with pytest.raises(InvalidQuery, match="Binder Error"):
        run(generation, Task("SELECT nothing FROM patient"))
    assert len(counted.begun) == 2
    assert counted.alive == 0
    assert run(generation, COUNT).rows == ((1,),)


def test_the_deadline_holds_for_the_second_query_too(counted: Counted, generation: Generation) -> None:
    run(generation, COUNT)
    with pytest.raises(InvalidQuery, match=r"longer than 0\.5 s"):
        run(generation, LONG, Limits(deadline_s=0.5))
    assert counted.alive == 0
    assert len(counted.begun) == 1


def test_the_cpu_time_of_a_query_does_not_count_for_the_next(counted: Counted, generation: Generation) -> None:
    limits = Limits(cpu_s=8, deadline_s=60)
    for _ in range(6):
        assert run(generation, BUSY, limits).rows == ((0,),)
    assert len(counted.begun) == 1
    with pytest.raises(InvalidQuery, match="memory or CPU time"):
        run(generation, LONG, Limits(cpu_s=2, deadline_s=60))
    assert len(counted.begun) == 1
    assert counted.alive == 0


def test_a_second_query_is_watched_and_can_be_cancelled(counted: Counted, generation: Generation) -> None:
    run(generation, COUNT, Limits(watch=Watch()))
    watch, raised = Watch(), list[BaseException]()

    def ask() -> None:
        try:
            run(generation, LONG, Limits(watch=watch, deadline_s=60))
        except BaseException as error:
            raised.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    soon(lambda: watch.running and watch.progress is not None)
    watch.cancel()
    asking.join(30)
    assert [type(error) for error in raised] == [Cancelled]
    assert counted.alive == 0
    watched = Watch()
    assert run(generation, COUNT, Limits(watch=watched)).rows == ((1,),)
    assert not watched.running


@pytest.mark.parametrize("sql", ["SELECT * FROM '/etc/passwd'", "SELECT nothing FROM patient", "SELECT"])
def test_a_watched_query_that_never_runs_ends(counted: Counted, generation: Generation, sql: str) -> None:
    with pytest.raises(InvalidQuery, match="sql: "):
        run_sql(generation, sql, Limits(watch=Watch()))
    with pytest.raises(InvalidQuery, match="sql: "):
        run(generation, Task(sql), Limits(watch=Watch()))
    assert counted.alive == 0


def test_nothing_of_a_query_stays_on_disk(
    counted: Counted, generation: Generation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    large = Task("SELECT count(*) FROM (SELECT DISTINCT range, hash(range) AS other FROM range(3000000))")
    assert run(generation, large, Limits(memory_mb=60, deadline_s=60)).rows == ((3_000_000,),)
    (folder,) = tmp_path.glob("cohort-spill-*")
    assert not [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]
    counted.close()
    assert not folder.exists()


def test_one_that_waits_ends_with_who_asked(generation: Generation, lake: Lake) -> None:
    program = (
        "import sys, time; from pathlib import Path; from cohort.lake import Lake; from cohort import sandbox\n"
        "generation = Lake(Path(sys.argv[1])).current()\n"
        "sandbox.run(generation, sandbox.Task('SELECT count(*) FROM patient'))\n"
        "print(sandbox.WORKERS._idle[0][1].process.pid, flush=True)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(lake.root)], env={"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE
    ) as asking:
        assert asking.stdout is not None
        worker = int(asking.stdout.readline())
        assert Path(f"/proc/{worker}").exists()
        asking.kill()
    soon(lambda: not Path(f"/proc/{worker}").exists() or "State:\tZ" in Path(f"/proc/{worker}/status").read_text())


def test_many_who_ask_at_once_have_their_own_answers(counted: Counted, generation: Generation) -> None:
    answers: dict[int, Any] = {}

    def ask(number: int) -> None:
        for turn in range(3):
            answers[number * 10 + turn] = run(generation, Task(f"SELECT {number * 10 + turn}")).rows

    asking = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for one in asking:
        one.start()
    for one in asking:
        one.join()
    assert answers == {n * 10 + t: ((n * 10 + t,),) for n in range(6) for t in range(3)}
    assert counted.alive <= workers.IDLE
