from __future__ import annotations

import pytest

from bridge.rounds import Round


def test_passes_are_calm_while_nothing_is_missing() -> None:
    begun = Round(up_to="1.5").before_pass(0)
    assert (begun.pressing, begun.up_to) == (False, "1.5")
    assert begun.after_pass("1.9", 0) == Round(up_to="1.9")
    assert begun.after_pass("", 0) == Round()


def test_a_round_begins_anew_and_presses_when_instances_are_missing() -> None:
    begun = Round(up_to="1.5").before_pass(3)
    assert begun == Round(missing=3)
    middle = begun.after_pass("1.9", 3)
    assert middle.before_pass(3) == middle
    assert middle.before_pass(0) == Round(up_to="1.9")


def test_a_pressing_round_that_found_nothing_ends_the_haste_until_more_is_missing() -> None:
    ended = Round(missing=3, up_to="1.9").after_pass("", 3)
    assert ended == Round(unexplained=3)
    assert not ended.before_pass(3).pressing
    assert ended.before_pass(4).pressing


def test_rounds_press_while_each_leaves_less_missing() -> None:
    going, rounds = Round().before_pass(5), 0
    for left in (3, 2, 2, 2):
        if not going.pressing:
            break
        going, rounds = going.after_pass("", left).before_pass(left), rounds + 1
    assert (going, rounds) == (Round(unexplained=2), 3)


def test_the_haste_ends_with_the_pass_that_finds_all_that_is_missing() -> None:
    assert Round(missing=3).after_pass("", 0) == Round()


def test_what_is_no_longer_missing_is_forgotten() -> None:
    assert Round(unexplained=5).after_pass("", 2).unexplained == 2


def test_a_round_outlives_the_process() -> None:
    kept = Round("1.2.3", 3, 7)
    assert Round.parse(kept.text) == kept


@pytest.mark.parametrize(
    "text", ["", "1.2.3.4", "[]", "{}", '{"up_to": 5}', '{"other": 1}', "null", '{"missing": "x"}']
)
def test_what_is_no_round_begins_a_new_one(text: str) -> None:
    assert Round.parse(text) == Round()
