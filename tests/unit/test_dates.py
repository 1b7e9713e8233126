from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest

from bridge.errors import InvalidDicomValue
from bridge.translate.dates import fhir_date, fhir_date_time, readable_time

VIENNA = ZoneInfo("Europe/Vienna")


@pytest.mark.parametrize(
    ("da", "expected"),
    [
        ("20240301", "2024-03-01"),
        ("2024.03.01", "2024-03-01"),
        ("202403", "2024-03"),
        ("2024", "2024"),
        ("20240300", "2024-03"),
        ("20240000", "2024"),
        ("", None),
        (" ", None),
    ],
)
def test_a_date_is_as_precise_as_it_was_given(da: str, expected: str | None) -> None:
    assert fhir_date(da, "StudyDate") == expected


@pytest.mark.parametrize("da", ["20240230", "20241301", "17000101", "yesterday", "20240301-20240302", "2024030"])
def test_what_is_no_date_is_named_by_keyword_without_its_value(da: str) -> None:
    with pytest.raises(InvalidDicomValue) as caught:
        fhir_date(da, "StudyDate")
    assert str(caught.value).startswith("StudyDate ")
    assert da not in str(caught.value)


@pytest.mark.parametrize(
    ("tm", "offset", "zone", "expected"),
    [
        ("0915", "", VIENNA, "2024-03-01T09:15:00+01:00"),
        ("09", "+0530", None, "2024-03-01T09:00:00+05:30"),
        ("091530.250000", "-0800", VIENNA, "2024-03-01T09:15:30.25-08:00"),
        ("09:15:30", "+0000", None, "2024-03-01T09:15:30+00:00"),
        ("235960", "+0000", None, "2024-03-01T23:59:60+00:00"),
        ("0915", "", None, "2024-03-01"),
        ("0915", "0100", None, "2024-03-01"),
        ("", "+0100", VIENNA, "2024-03-01"),
        ("246060", "+0100", VIENNA, "2024-03-01"),
    ],
)
def test_a_time_needs_a_zone_and_utc_is_never_assumed(
    tm: str, offset: str, zone: ZoneInfo | None, expected: str
) -> None:
    assert fhir_date_time("20240301", tm, offset, zone, "StudyDate") == expected


def test_the_sites_zone_knows_summer_time() -> None:
    assert fhir_date_time("20240701", "0915", "", VIENNA, "StudyDate") == "2024-07-01T09:15:00+02:00"


def test_a_partial_date_has_no_time() -> None:
    assert fhir_date_time("202407", "0915", "+0100", None, "StudyDate") == "2024-07"


def test_readable_times() -> None:
    assert all(map(readable_time, ("", "09", "0915", "091500.1", "11:20:00")))
    assert not any(map(readable_time, ("24", "0960", "noon", "9")))
