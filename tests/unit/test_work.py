from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.errors import ConfigError, InvalidQuery
from bridge.model import Receipt
from bridge.ports import LeaseLost
from bridge.state import State

LEASE = 30.0


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    made = State(f"sqlite:///{tmp_path / 's.sqlite'}")
    yield made
    made.close()


def test_marks_of_one_key_coalesce_and_wait_until_it_is_quiet(state: State) -> None:
    state.mark("q", ["k"], 100.0, quiet_s=5, max_wait_s=60)
    state.mark("q", ["k", "k"], 103.0, quiet_s=5, max_wait_s=60)
    assert state.claim("q", 107.9, LEASE, 10, "w") == []
    (claim,) = state.claim("q", 108.0, LEASE, 10, "w")
    assert (claim.key, claim.generation) == ("k", 2)


def test_a_key_that_is_never_quiet_is_due_at_the_longest_wait(state: State) -> None:
    for second in range(0, 100, 2):
        state.mark("q", ["k"], 100.0 + second, quiet_s=5, max_wait_s=60)
    assert state.claim("q", 159.9, LEASE, 10, "w") == []
    assert state.claim("q", 160.0, LEASE, 10, "w")


def test_no_two_workers_have_one_key_and_a_dead_workers_key_comes_free(state: State) -> None:
    state.mark("q", ["k"], 0.0)
    assert state.claim("q", 1.0, LEASE, 10, "one")
    assert state.claim("q", 1.0 + LEASE - 0.1, LEASE, 10, "two") == []
    assert state.claim("q", 1.0 + LEASE, LEASE, 10, "two")


def test_a_mark_during_the_work_leaves_the_key_dirty(state: State) -> None:
    state.mark("q", ["k"], 0.0)
    (claim,) = state.claim("q", 1.0, LEASE, 10, "w")
    state.mark("q", ["k"], 2.0)
    state.done(claim, 3.0)
    (again,) = state.claim("q", 4.0, LEASE, 10, "w")
    state.done(again, 5.0)
    assert state.items() == []


def test_a_mark_during_recurring_work_is_not_delayed_by_its_end(state: State) -> None:
    state.mark("q", ["k"], 0.0)
    (claim,) = state.claim("q", 1.0, LEASE, 10, "w")
    state.mark("q", ["k"], 2.0)
    state.reschedule(claim, 1000.0)
    (again,) = state.claim("q", 3.0, LEASE, 10, "w")
    state.reschedule(again, 1000.0)
    assert state.claim("q", 999.0, LEASE, 10, "w") == []
    assert state.claim("q", 1000.0, LEASE, 10, "w")


def test_what_another_worker_took_over_cannot_be_finished(state: State) -> None:
    state.mark("q", ["k"], 0.0)
    (old,) = state.claim("q", 1.0, LEASE, 10, "one")
    (new,) = state.claim("q", 100.0, LEASE, 10, "two")
    with pytest.raises(LeaseLost):
        state.done(old, 101.0)
    state.retry(old, 101.0, 1000.0, "late")
    state.done(new, 102.0)
    assert state.items() == []


def test_a_retry_waits_and_counts_and_a_new_mark_ends_the_waiting(state: State) -> None:
    state.mark("q", ["k"], 0.0)
    (claim,) = state.claim("q", 1.0, LEASE, 10, "w")
    state.retry(claim, 1.0, 50.0, "no answer")
    assert state.claim("q", 50.9, LEASE, 10, "w") == []
    assert state.items()[0].attempts == 1
    state.mark("q", ["k"], 20.0)
    assert state.claim("q", 20.0, LEASE, 10, "w")[0].attempts == 0


def test_parked_work_waits_for_a_person_or_a_new_mark(state: State) -> None:
    state.mark("q", ["a", "b"], 0.0)
    for claim in state.claim("q", 1.0, LEASE, 10, "w"):
        state.park(claim, 1.0, "PatientID is strange", {"bytes": 3})
    assert state.claim("q", 1e9, LEASE, 10, "w") == []
    (item, _) = state.items(parked=True)
    assert (item.error, item.evidence) == ("PatientID is strange", {"bytes": 3})
    state.replay("q", "a", 2.0)
    state.mark("q", ["b"], 2.0)
    assert {c.key for c in state.claim("q", 2.0, LEASE, 10, "w")} == {"a", "b"}
    with pytest.raises(InvalidQuery):
        state.replay("q", "nothing", 2.0)


def test_a_mark_while_parking_is_not_lost(state: State) -> None:
    state.mark("q", ["k"], 0.0)
    (claim,) = state.claim("q", 1.0, LEASE, 10, "w")
    state.mark("q", ["k"], 2.0)
    state.park(claim, 3.0, "bad", {})
    assert state.claim("q", 4.0, LEASE, 10, "w")


def test_recurring_work_exists_once_and_goes_with_its_source(state: State) -> None:
    state.ensure("poll", ["a", "b"], 0.0)
    state.ensure("poll", ["b", "c"], 1.0)
    assert sorted(i.key for i in state.items()) == ["b", "c"]


def test_leases_of_a_living_process_are_kept_and_of_a_dead_one_released(state: State) -> None:
    state.mark("q", ["a", "b"], 0.0)
    state.claim("q", 1.0, LEASE, 1, "p1/w")
    state.claim("q", 1.0, LEASE, 1, "p2/w")
    state.renew_process("p1", 20.0, LEASE)
    assert [c.key for c in state.claim("q", 40.0, LEASE, 10, "p3/w")] == ["b"]
    state.release_leases()
    assert len(state.claim("q", 41.0, LEASE, 10, "p3/w")) == 2


def test_what_one_worker_has_is_given_back_and_of_no_other(state: State) -> None:
    state.mark("q", ["a", "b"], 0.0)
    state.claim("q", 1.0, LEASE, 1, "p1/w")
    state.claim("q", 1.0, LEASE, 1, "p1/w2")
    state.give_back("p1/w")
    assert [c.key for c in state.claim("q", 1.0, LEASE, 10, "p3/w")] == ["a"]


def test_depth_tells_what_waits_fails_and_is_parked(state: State) -> None:
    state.mark("q", ["a", "b", "c"], 0.0)
    one, two, _ = state.claim("q", 1.0, LEASE, 3, "w")
    state.park(one, 1.0, "bad", {})
    state.retry(two, 1.0, 9.0, "away")
    assert state.depth() == [("q", 2, 1, 1, 0.0)]


def test_many_keys_are_claimed_oldest_first(state: State) -> None:
    state.mark("q", [f"{n:04}" for n in range(1500)], 0.0)
    assert len(state.claim("q", 1.0, LEASE, 2000, "w")) == 1500


@pytest.mark.parametrize("url", ["nonsense", "oracle+none://x", "sqlite:////proc/nowhere/s.sqlite"])
def test_a_database_that_cannot_be_opened_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigError, match="state_url"):
        State(url)


def test_due_tells_the_queues_that_have_something_to_claim(state: State) -> None:
    asked = ["later", "now", "parked", "leased", "empty"]
    state.mark("later", ["k"], 0.0, quiet_s=9, max_wait_s=9)
    for queue in ("now", "parked", "leased"):
        state.mark(queue, ["k"], 0.0)
    (claim,) = state.claim("parked", 1.0, LEASE, 1, "w")
    state.park(claim, 1.0, "bad", {})
    state.claim("leased", 1.0, LEASE, 1, "w")
    assert state.due(asked, 2.0) == {"now"}
    assert state.due(asked, 1.0 + LEASE) == {"later", "now", "leased"}


def test_of_claims_ended_together_those_lost_or_marked_again_stay(state: State) -> None:
    state.mark("sink:ehr", ["a", "b", "c"], 0.0)
    old = state.claim("sink:ehr", 1.0, LEASE, 3, "one")
    (taken,) = state.claim("sink:ehr", 1.0 + LEASE, LEASE, 1, "two")
    state.mark("sink:ehr", ["b"], 40.0)
    state.commit_delivered("ehr", [(claim, Receipt("ImagingStudy/1", "1", "d")) for claim in old], 41.0)
    assert taken.key == "a"
    assert [(i.key, i.leased_until) for i in state.items()] == [("a", 1.0 + 2 * LEASE), ("b", None)]
    assert sorted(state.receipts("ehr", ["a", "b", "c"])) == ["b", "c"]
    state.commit_delivered("ehr", [(taken, Receipt("ImagingStudy/1", "1", "d"))], 42.0)
    assert [i.key for i in state.items()] == ["b", "a"]  # the sink may have what "one" delivered, later


def test_nothing_waits_for_the_time_that_a_clock_showed_before_it_went_back(state: State) -> None:
    state.mark("soon", ["k"], 3600.0, quiet_s=5, max_wait_s=60)
    state.mark("long", ["k"], 3600.0, quiet_s=500, max_wait_s=500)
    state.mark("held", ["k"], 100.0)
    assert state.claim("held", 3600.0, LEASE, 1, "dead/w")
    state.move_back(3500.0, 102.0, LEASE)
    assert state.due(["soon", "long", "held"], 105.0) == {"soon"}
    assert state.due(["soon", "long", "held"], 102.0 + LEASE) == {"soon", "held"}
    assert state.due(["soon", "long", "held"], 600.0) == {"soon", "long", "held"}
    assert [i.first_marked_at for i in state.items(queue="soon")] == [102.0]
