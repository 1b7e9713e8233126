from __future__ import annotations

import pytest

from bridge.web.scopes import not_given

ASKED = "system/Patient.rs system/ImagingStudy.cruds"


@pytest.mark.parametrize(
    "given",
    [
        ASKED,
        "system/ImagingStudy.cruds system/Patient.cruds launch",
        "system/*.cruds",
        "system/*.*",
        "system/*.read system/ImagingStudy.write",
        "system/Patient.rs system/ImagingStudy.cud system/ImagingStudy.rs",
    ],
)
def test_what_was_given_in_other_words_was_given(given: str) -> None:
    assert not_given(ASKED, given) == ()


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ("", ("system/Patient.rs", "system/ImagingStudy.cruds")),
        ("system/Patient.rs", ("system/ImagingStudy.cruds",)),
        ("system/*.rs", ("system/ImagingStudy.cruds",)),
        ("user/*.cruds", ("system/Patient.rs", "system/ImagingStudy.cruds")),
        ("system/ImagingStudy.cruds system/Patient.r", ("system/Patient.rs",)),
        ("system/ImagingStudy.cruds system/Patient.rs?active=true", ("system/Patient.rs",)),
    ],
)
def test_what_was_not_given_is_told_in_the_words_of_the_question(given: str, missing: tuple[str, ...]) -> None:
    assert not_given(ASKED, given) == missing


def test_a_part_of_a_resource_type_is_covered_by_the_same_part_or_by_all_of_it() -> None:
    asked = "system/Observation.rs?category=imaging"
    assert not_given(asked, "system/Observation.rs?category=imaging") == ()
    assert not_given(asked, "system/Observation.rs") == ()
    assert not_given(asked, "system/Observation.rs?category=laboratory") == (asked,)


def test_other_scopes_are_compared_word_for_word() -> None:
    assert not_given("openid custom", "custom") == ("openid",)
