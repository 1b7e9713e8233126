"""How often the lake is published."""

from __future__ import annotations

import pytest

from bridge.compose import PUBLISH_AT_MOST_EVERY_S, PUBLISH_SHARE, VISIBLE_WITHIN_S, pause_s


@pytest.mark.parametrize("spent_s", [0.0, 0.1, 0.5, 1.0, 1.5, 2.0])
def test_what_comes_just_too_late_is_still_visible_in_time(spent_s: float) -> None:
    assert spent_s + pause_s(spent_s) + spent_s <= VISIBLE_WITHIN_S
    assert pause_s(spent_s) >= PUBLISH_AT_MOST_EVERY_S


@pytest.mark.parametrize("spent_s", [2.5, 10.0, 600.0])
def test_publishing_that_takes_long_takes_a_share_of_the_time_alone(spent_s: float) -> None:
    assert spent_s / (spent_s + pause_s(spent_s)) == pytest.approx(PUBLISH_SHARE)
