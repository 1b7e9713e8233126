from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from bridge.errors import InvalidQuery, Unavailable
from cohort.answer import Answer
from cohort.jobs import KEPT_S, MOST_JOBS, MOST_OF_ONE, WAIT_S, Jobs
from cohort.watch import Cancelled, Watch

ANSWER = Answer((("n", "INTEGER"),), ((1,),), False, "g000001", 0.0)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def jobs(clock: Clock) -> Jobs:
    return Jobs(clock)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Holds questions until it is set; open at the end, so that no thread is left."""
    held = threading.Event()
    yield held
    held.set()


def waits(gate: threading.Event) -> Callable[[Watch], Answer]:
    def run(watch: Watch) -> Answer:
        with watch.over(gate.set):
            gate.wait(30)
        return ANSWER

    return run


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_job_waits_runs_and_is_answered(jobs: Jobs, gate: threading.Event) -> None:
    job = jobs.start("ann", "q", waits(gate))
    until(lambda: job.state == "running")
    gate.set()
    until(lambda: job.state == "completed")
    found = jobs.find(job.id)
    assert found is job
    assert job.answer == ANSWER


def test_ending_a_job_ends_its_query_and_forgets_it(jobs: Jobs, gate: threading.Event) -> None:
    job = jobs.start("ann", "q", waits(gate))
    until(lambda: job.watch.running)
    assert jobs.end(job.id)
    until(lambda: job.state == "cancelled")
    assert job.answer is None
    assert jobs.find(job.id) is None
    assert not jobs.end(job.id)


def test_a_query_that_is_to_begin_after_the_end_does_not() -> None:
    watch = Watch()
    watch.cancel()
    with pytest.raises(Cancelled), watch.over(lambda: None):
        pytest.fail("it began")


@pytest.mark.parametrize(
    ("raised", "told"), [(InvalidQuery("no such column"), "no such column"), (KeyError("p1"), "the question failed")]
)
def test_what_failed_is_told_without_values(jobs: Jobs, raised: Exception, told: str) -> None:
    def fails(_: Watch) -> Answer:
        raise raised

    job = jobs.start("ann", "q", fails)
    until(lambda: job.state == "failed")
    assert job.error == told


def test_a_job_asks_again_until_there_is_a_turn(jobs: Jobs, clock: Clock) -> None:
    tries = []

    def busy(_: Watch) -> Answer:
        tries.append(1)
        if len(tries) < 3:
            raise Unavailable("busy")
        return ANSWER

    job = jobs.start("ann", "q", busy)
    until(lambda: job.state == "completed")

    def always(_: Watch) -> Answer:
        clock.now += WAIT_S
        raise Unavailable("busy")

    job = jobs.start("ann", "q", always)
    until(lambda: job.state == "failed")
    assert job.error == "busy"


def test_one_person_has_few_at_once_and_all_together_too(jobs: Jobs, gate: threading.Event) -> None:
    for _ in range(MOST_OF_ONE):
        jobs.start("ann", "q", waits(gate))
    with pytest.raises(Unavailable):
        jobs.start("ann", "q", waits(gate))
    for n in range(MOST_JOBS - MOST_OF_ONE):
        jobs.start(f"person {n}", "q", waits(gate))
    with pytest.raises(Unavailable):
        jobs.start("bob", "q", waits(gate))


def test_answers_are_kept_for_a_while_the_oldest_give_way(jobs: Jobs, clock: Clock) -> None:
    made = []
    for n in range(MOST_JOBS + 1):
        clock.now = n
        made.append(jobs.start("ann", "q", lambda _: ANSWER))
        until(lambda: made[-1].ended is not None)
    assert jobs.find(made[0].id) is None
    assert jobs.find(made[1].id) is made[1]
    clock.now = KEPT_S + 5
    assert jobs.find(made[4].id) is None
    assert jobs.find(made[-1].id) is made[-1]
