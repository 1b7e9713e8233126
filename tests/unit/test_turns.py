from __future__ import annotations

import threading

import pytest

from bridge.errors import Unavailable
from cohort.turns import Turns


class Holder:
    """Holds a turn in a thread of its own until it is told to let go."""

    def __init__(self, turns: Turns, who: str) -> None:
        self._turns, self._who = turns, who
        self.has, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._hold, daemon=True)
        self._thread.start()

    def _hold(self) -> None:
        with self._turns.turn(self._who):
            self.has.set()
            self._over.wait(30)

    def let_go(self) -> None:
        self._over.set()

    def join(self) -> None:
        self._thread.join(30)


def test_one_person_cannot_take_every_place() -> None:
    turns = Turns(at_once=3, each=1, wait_s=0.05)
    first = Holder(turns, "a")
    assert first.has.wait(10)
    with pytest.raises(Unavailable), turns.turn("a"):
        pytest.fail("a second turn of the same person")
    with turns.turn("b"):
        pass
    first.let_go()
    with turns.turn("a"):
        pass


def test_who_waits_gets_the_place_that_becomes_free() -> None:
    turns = Turns(at_once=1, each=1, wait_s=30)
    first = Holder(turns, "a")
    assert first.has.wait(10)
    second = Holder(turns, "b")
    assert not second.has.is_set()
    first.let_go()
    assert second.has.wait(10)
    second.let_go()


def test_few_of_one_person_wait_and_the_others_are_told_at_once() -> None:
    turns = Turns(at_once=1, each=1, waiting=2, wait_s=30)
    first = Holder(turns, "a")
    assert first.has.wait(10)
    waiting = [Holder(turns, "a") for _ in range(2)]
    until = threading.Event()
    for _ in range(500):
        if turns._waiting["a"] == 2:
            break
        until.wait(0.01)
    with pytest.raises(Unavailable) as caught, turns.turn("a"):
        pytest.fail("a third one waits")
    assert caught.value.retry_after_s
    first.let_go()
    for one in waiting:
        one.let_go()
    for one in (first, *waiting):
        one.join()
    assert not turns._waiting
    assert not turns._running
