from __future__ import annotations

import pytest

from bridge.rounds import Round


def test_passes_are_calm_while_nothing_is_missing() -> None:
    begun = Round(up_to="1.5").before_pass(0)
    assert (begun.pressing, begun.up_to) == (False, "1.5")
    assert begun.after_pass("1.9", True, 0) == Round(up_to="1.9", found=True)
    assert begun.after_pass("", False, 0) == Round()


def test_a_round_begins_anew_and_presses_when_instances_are_missing() -> None:
    begun = Round(up_to="1.5").before_pass(3)
    assert (begun.pressing, begun.up_to) == (True, "")
    middle = begun.after_pass("1.9", False, 3)
    assert middle.before_pass(3) == middle
    assert middle.before_pass(0) == Round(up_to="1.9")


def test_a_pressing_round_that_found_nothing_ends_the_haste_until_more_is_missing() -> None:
    ended = Round(pressing=True, up_to="1.9").after_pass("", False, 3)
    assert ended == Round(unexplained=3)
    assert not ended.before_pass(3).pressing
    assert ended.before_pass(4).pressing


def test_a_pressing_round_that_found_something_goes_on_while_more_is_missing() -> None:
    ended = Round(pressing=True).after_pass("1.9", True, 3).after_pass("", False, 3)
    assert ended.pressing
    assert ended.before_pass(1).pressing
    assert not ended.before_pass(0).pressing


def test_what_is_no_longer_missing_is_forgotten() -> None:
    assert Round(unexplained=5).after_pass("", False, 2).unexplained == 2


def test_a_round_outlives_the_process() -> None:
    kept = Round("1.2.3", True, True, 7)
    assert Round.parse(kept.text) == kept


@pytest.mark.parametrize("text", ["", "1.2.3.4", "[]", "{}", '{"up_to": 5}', '{"other": 1}', "null"])
def test_what_is_no_round_begins_a_new_one(text: str) -> None:
    assert Round.parse(text) == Round()
