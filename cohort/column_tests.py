"""Tests of columns, codes and days as expressions. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

from cohort.expression import Case, Column, Expression, Function, Literal, Null, OneOf, Scalar, call, every, some
from cohort.kinds import DERIVED, MODALITIES_TEXT
from cohort.question import Period, Test, TimeRelation

_SIGNS: Mapping[str, Function] = {
    "at_least": Function.AT_LEAST, "at_most": Function.AT_MOST, "more_than": Function.GREATER,
    "less_than": Function.LESS,
}  # fmt: skip

_EITHER = {"i": "[iI\u0130]", "k": "[kK\u212a]"}
"""Letters that are the small letter of another one as well: dotted capital I, Kelvin's sign."""


def tested(test: Test, kind: str) -> Expression:
    """The test of a column of the kind's table, never NULL where absence passes it."""
    column: Expression = Column(test.column)
    words = [str(v) for v in test.values]
    if kind == "report" and test.column in DERIVED["report"]:
        parts = [Column(c) for c in ("report_text", "conclusion")]
        if test.test == "contains" and all(w and " " not in w for w in words):  # none lies in both
            return some(*(_mentions(part, words) for part in parts))
        texts = [call(Function.COALESCE, part, Literal("")) for part in parts]
        column = call(Function.CONCAT, texts[0], Literal(" "), texts[1])
    values = [Literal(v) for v in test.values]
    if test.test in ("is", "not"):
        among: Expression = OneOf(column, tuple(values))
        if is_modality(kind, test):
            stated = Column(MODALITIES_TEXT)
            among = some(*(call(Function.CONTAINS, stated, Literal(f"\\{w}\\")) for w in words))
        return among if test.test == "is" else call(Function.NOT, call(Function.COALESCE, among, Literal(False)))
    if test.test == "present":
        absent = call(Function.IS_NULL, column)
        return call(Function.NOT, absent) if test.values[0] else absent
    if test.test == "contains":
        return _mentions(column, words)
    if test.test == "starts_with":
        lower = call(Function.LOWER, column)
        return some(*(call(Function.STARTS_WITH, lower, call(Function.LOWER, v)) for v in values))
    return call(_SIGNS[test.test], column, values[0])


def _mentions(column: Expression, values: Sequence[str]) -> Expression:
    """Does the text have one of these in it, whatever the case? One pattern reads it once, and makes no copy of it."""
    plain = [v for v in values if v.isascii()]
    found = [call(Function.MATCHES, column, Literal("|".join(map(_in_any_case, plain))))] if plain else []
    lower = call(Function.LOWER, column)
    found += [call(Function.CONTAINS, lower, call(Function.LOWER, Literal(v))) for v in values if v not in plain]
    return some(*found)


def _in_any_case(text: str) -> str:
    """A pattern for an ASCII text, alike in RE2 and Java."""
    return "".join(_EITHER.get(c.lower(), f"[{c.lower()}{c.upper()}]") if c.isalpha() else _itself(c) for c in text)


def _itself(character: str) -> str:
    return f"\\{character}" if character in r"\.+*?()|[]{}^$" else character


def is_modality(kind: str, test: Test) -> bool:
    """Is it a test of the modalities of a study?"""
    return kind == "study" and test.column == "modality"


def coded(codes: tuple[tuple[str, str], ...], columns: tuple[str, str]) -> Expression:
    """Is the code among these?"""
    by_system: dict[str, list[Expression]] = {}
    for system, code in codes:
        by_system.setdefault(system, []).append(Literal(code))
    return some(
        *(
            every(call(Function.EQUAL, Column(columns[0]), Literal(system)), OneOf(Column(columns[1]), tuple(found)))
            for system, found in by_system.items()
        )
    )


def in_period(period: Period, today: date) -> Expression:
    """Does `_day` lie in the period, both ends included?"""
    now, day = Literal(today), Column("_day")
    first: list[Expression] = []
    if period.within_years is not None:
        first.append(call(Function.YEARS_BEFORE, now, Literal(period.within_years)))
    if period.within_days is not None:
        first.append(call(Function.DAYS_AFTER, now, Literal(-period.within_days)))
    conditions = [call(Function.AT_MOST, day, now)] if first else []
    conditions += [call(Function.AT_LEAST, day, start) for start in first]
    if period.start is not None:
        conditions.append(call(Function.AT_LEAST, day, Literal(period.start)))
    if period.until is not None:
        conditions.append(call(Function.AT_MOST, day, Literal(period.until)))
    if period.at_least_days_ago is not None:
        conditions.append(
            call(Function.AT_MOST, day, call(Function.DAYS_AFTER, now, Literal(-period.at_least_days_ago)))
        )
    return every(*conditions)


def related(relation: TimeRelation | None, sides: tuple[str, str] = ("l", "r")) -> list[Expression]:
    """What the event must be to the day of the index event or of the unit, which are the left and the right side of a
    join, or with ("", "") one row."""
    if relation is None:
        return []
    names = ("_index_day", "_index_end") if relation.to == "index" else ("_day", "_end")
    start, end = (Column(name, sides[0]) for name in names)
    day = Column("_day", sides[1])
    conditions: list[Expression] = []
    before, after = relation.before_days, relation.after_days
    if before is not None or after is not None:
        conditions.append(call(Function.AT_LEAST, day, call(Function.DAYS_AFTER, start, Literal(-(before or 0)))))
        conditions.append(call(Function.AT_MOST, day, call(Function.DAYS_AFTER, start, Literal(after or 0))))
    if relation.before:
        conditions.append(call(Function.LESS, day, start))
    if relation.after:
        conditions.append(call(Function.GREATER, day, start))
    if relation.overlaps:
        conditions.append(call(Function.AT_MOST, day, end))
        conditions.append(call(Function.AT_LEAST, Column("_end", sides[1]), start))
    return conditions


def age_in_years(born: Expression, day: Expression) -> Expression:
    """The true age in whole years on a day; NULL where either is not known, or the birth comes after it."""
    years = call(Function.SUBTRACT, call(Function.YEAR, day), call(Function.YEAR, born))
    reached = call(Function.AT_MOST, born, call(Function.YEARS_BEFORE, day, years))
    before = call(Function.AT_MOST, born, day)
    last = call(Function.SUBTRACT, years, Literal(1))
    return Case(((every(before, reached), years), (before, last)), Null(Scalar.INTEGER))


def age_decade(born: Expression, day: Expression) -> Expression:
    """The true age on a day rounded down to tens."""
    age = age_in_years(born, day)
    return call(Function.SUBTRACT, age, call(Function.MODULO, age, Literal(10)))
