"""Hours in which an archive may be asked."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from bridge.errors import ConfigError
from bridge.sources.hours import Hours

VIENNA = ZoneInfo("Europe/Vienna")


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=VIENNA).timestamp()


@pytest.mark.parametrize(
    ("hours", "now", "hours_to_wait"),
    [
        ("", "2024-03-01T12:00", 0),
        ("19:00-06:00", "2024-03-01T12:00", 7),
        ("19:00-06:00", "2024-03-01T19:00", 0),
        ("19:00-06:00", "2024-03-01T05:59", 0),
        ("19:00-06:00", "2024-03-01T06:00", 13),
        ("19:00-06:00, 12:00-13:00", "2024-03-01T11:00", 1),
        ("08:00-09:00", "2024-03-01T20:00", 12),
        ("00:00-24:00", "2024-03-01T20:00", 0),
        ("22:00-24:00", "2024-03-01T23:30", 0),
        ("03:00-04:00", "2024-03-30T22:00", 4),
    ],
)
def test_the_wait_ends_when_the_next_span_begins(hours: str, now: str, hours_to_wait: float) -> None:
    assert Hours.parse(hours, VIENNA).wait_s(at(now)) == hours_to_wait * 3600


@pytest.mark.parametrize("text", ["19-6", "25:00-06:00", "19:00", "19:00-24:30", "night"])
def test_what_is_no_span_stops_at_once(text: str) -> None:
    with pytest.raises(ConfigError, match="allowed_hours"):
        Hours.parse(text, None)
