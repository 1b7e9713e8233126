from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from bridge.sources.qido_items import EVERYTHING, Study, Window, merged


def item(**attributes: Any) -> dict[str, Any]:
    tags = {"uid": "0020000D", "study_date": "00080020", "instances": "00201208", "patient": "00100020"}
    found = {"uid": "1.2.3", "instances": 2} | attributes
    return {tags[name]: {"vr": "XX", "Value": [value]} for name, value in found.items()}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20240301", date(2024, 3, 1)),
        ("2024.03.01", date(2024, 3, 1)),
        ("2024-03-01", date(2024, 3, 1)),
        (" 20240301 ", date(2024, 3, 1)),
        (20240301, date(2024, 3, 1)),
        ("20240231", None),
        ("2024", None),
        ("", None),
        (None, None),
        ("00000000", None),
    ],
)
def test_a_study_date_is_read_leniently_or_is_none(text: Any, expected: date | None) -> None:
    assert Study.read(item(study_date=text)).study_date == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(3, 3), ("3", 3), (" 3 ", 3), (0, None), ("-1", None), (2.5, None), ("x", None), (None, None), ("9" * 30, None)],
)
def test_a_count_is_a_whole_number_above_zero_or_unknown(value: Any, expected: int | None) -> None:
    assert Study.read(item(instances=value)).instances == expected


@pytest.mark.parametrize("wrong", [None, 7, "text", [], {}, {"0020000D": None}, {"0020000D": {"Value": [{"a": 1}]}}])
def test_what_is_no_study_has_no_uid(wrong: Any) -> None:
    assert Study.read(wrong).uid == ""


def test_bare_values_are_values() -> None:
    bare = {"0020000D": {"vr": "UI", "Value": "1.2.3"}, "00201208": {"vr": "IS", "Value": "4"}, "00080020": "20240301"}
    assert Study.read(bare) == Study("1.2.3", date(2024, 3, 1), 4, Study.read(bare).fingerprint)


def test_the_order_of_modalities_does_not_make_a_study_look_different() -> None:
    one, other = ({**item(), "00080061": {"vr": "CS", "Value": v}} for v in (["CT", "SR"], ["SR", "CT"]))
    assert Study.read(one) == Study.read(other)


def test_addresses_and_availability_do_not_make_a_study_look_different() -> None:
    moved = {**item(), "00081190": {"vr": "UR", "Value": ["http://b"]}, "00080056": {"vr": "CS", "Value": ["NEARLINE"]}}
    assert Study.read(item()) == Study.read(moved)


def test_a_study_held_under_two_patients_is_one_with_the_instances_of_both() -> None:
    one, other = Study.read(item(patient="P1")), Study.read(item(patient="P2", instances=3, study_date="20240301"))
    (found,) = merged([one, other, one]).values()
    assert (found.instances, found.study_date) == (5, date(2024, 3, 1))
    assert found == merged([other, one])["1.2.3"]
    assert found.fingerprint not in {one.fingerprint, other.fingerprint}
    uncounted = Study.read(item(patient="P2", instances=None))
    assert merged([one, uncounted])["1.2.3"].instances is None


def test_of_one_study_answered_twice_the_later_counts() -> None:
    assert merged([Study.read(item(instances=2)), Study.read(item(instances=3))])["1.2.3"].instances == 3


def test_halves_are_the_whole_without_overlap_down_to_a_day() -> None:
    first, second = Window(date(2024, 2, 28), date(2024, 3, 2)).halves() or ()
    assert (first.text, second.text) == ("20240228-20240229", "20240301-20240302")
    assert Window(date(2024, 3, 1), date(2024, 3, 1)).halves() is None


def test_everything_has_open_ends_and_no_text() -> None:
    older, newer = EVERYTHING.halves() or ()
    assert EVERYTHING.text == ""
    assert older.text.startswith("-")
    assert newer.text.endswith("-")
    assert older.holds(date(1, 1, 1))
    assert newer.holds(date(9999, 12, 31))
