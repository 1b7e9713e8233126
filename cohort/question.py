"""A cohort question, read and checked: what `cohort.question_document` makes of a document. Standard library only.

Days are whole days. Every boundary is included unless a word says otherwise (`older`, `younger`, `before`, `after`,
`more`, `less`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

Value = bool | int | float | str | date


@dataclass(frozen=True)
class Parameter:
    """One thing the asker may change: name, type, default, bounds, what it means."""

    name: str
    type: str
    default: Any
    description: str
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True)
class Test:
    """One test of a column: `is` one of the values; `not` one of them (absent passes); `at_least`, `at_most`,
    `more_than`, `less_than`; `contains` or `starts_with` one of them, case aside; `present` or not."""

    column: str
    test: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Period:
    """When, by the calendar: both ends included. `within_*` end on the day asked."""

    within_years: int | None = None
    within_days: int | None = None
    start: date | None = None
    until: date | None = None
    at_least_days_ago: int | None = None


@dataclass(frozen=True)
class TimeRelation:
    """When, by another day: that of the index event or of the unit (`to`).

    Result  `before_days` n: from n days before to the day itself; `after_days` n: from the day itself to n days
            after; both: between; `before`, `after`: not on the day itself; `overlaps`: the two share a day
    """

    to: str
    before_days: int | None = None
    after_days: int | None = None
    before: bool = False
    after: bool = False
    overlaps: bool = False


@dataclass(frozen=True)
class Event:
    """Rows of one kind: with one of these codes, passing these tests, then, and about which criteria hold.

    Result  `codes` None: any; `of` widens what it speaks of to the patient; `times` so many different ones at least;
            `take` first or last by day (then by id), of which `then` must be true; `having` criteria about the row
    """

    kind: str
    codes: tuple[tuple[str, str], ...] | None = None
    where: tuple[Test, ...] = ()
    period: Period | None = None
    relation: TimeRelation | None = None
    of: str = ""
    times: int = 1
    take: str = ""
    then: tuple[Test, ...] = ()
    having: Criterion | None = None
    label: str = ""


@dataclass(frozen=True)
class Age:
    """The patient's true age in whole years: today, on the index event's day or on the unit's. Older than n: the
    n-th birthday lies before that day; at least n: on it or before; younger than n: after it. Of someone born on
    29 February it is 1 March in other years. Never true where the birth date is not known or comes
    after that day."""

    at: str = "today"
    older_than_years: int | None = None
    at_least_years: int | None = None
    younger_than_years: int | None = None
    label: str = ""


@dataclass(frozen=True)
class Combination:
    """`all`, `any`, `not` (of one), or `at_least` so many of the criteria."""

    kind: str
    of: tuple[Criterion, ...]
    count: int = 0
    label: str = ""


Criterion = Event | Age | Combination
EVERYTHING = Combination("all", ())


@dataclass(frozen=True)
class Question:
    """A question with the values of its parameters in place. `group_by` counts instead of listing. `document` is what
    it was read from."""

    name: str
    title: str
    description: str
    parameters: tuple[Parameter, ...]
    index: Event | None
    criteria: Criterion
    unit: str
    columns: tuple[str, ...]
    group_by: tuple[str, ...]
    document: Mapping[str, Any] = field(repr=False, compare=False, default_factory=dict)


def steps(question: Question) -> tuple[Criterion, ...]:
    """The criteria one after another, as an attrition table counts them."""
    top = question.criteria
    return top.of if isinstance(top, Combination) and top.kind == "all" else (top,)
