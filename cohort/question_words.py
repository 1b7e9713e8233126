"""Criteria in plain words, for people: attrition tables, summaries of a cohort. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cohort.question import Age, Criterion, Event, Period, Test, TimeRelation

SHOWN_CODES = 5

_TESTS = {
    "is": "", "not": "not ", "at_least": "at least ", "at_most": "at most ", "more_than": "more than ",
    "less_than": "less than ", "contains": "contains ", "starts_with": "starts with ",
}  # fmt: skip


def in_words(criterion: Criterion) -> str:
    """The criterion's label, else what it says."""
    return criterion.label or said(criterion)


def said(criterion: Criterion) -> str:
    """What the criterion says, with its values.

    >>> said(Combination("not", (Age(younger_than_years=18),)))
    'not (age today: younger than 18 years)'
    >>> said(Event("study", where=(Test("modality", "is", ("CT", "MR")),), period=Period(within_years=2), times=2))
    'study: modality CT or MR; within 2 years; at least 2'
    """
    if isinstance(criterion, Age):
        bounds = (("older than", criterion.older_than_years), ("at least", criterion.at_least_years),
                  ("younger than", criterion.younger_than_years))  # fmt: skip
        at = {"today": "today", "index": "at the index event", "unit": "on the day"}[criterion.at]
        return f"age {at}: " + ", ".join(f"{word} {years} years" for word, years in bounds if years is not None)
    if isinstance(criterion, Event):
        return f"{criterion.kind}: " + ("; ".join(_settings(criterion)) or "any")
    if criterion.kind == "not":
        return f"not ({in_words(criterion.of[0])})"
    kind = f"at least {criterion.count}" if criterion.kind == "at_least" else criterion.kind
    return f"{kind} of: " + ", ".join(f"({in_words(c)})" for c in criterion.of)


def _settings(event: Event) -> Iterator[str]:
    if event.of:
        yield "any of the patient's"
    if event.codes is not None:
        codes = list(dict.fromkeys(code for _, code in event.codes))
        more = f" and {len(codes) - SHOWN_CODES} more" if len(codes) > SHOWN_CODES else ""
        yield f"code {', '.join(codes[:SHOWN_CODES])}{more}"
    yield from map(_tested, event.where)
    if event.period is not None:
        yield from _period(event.period)
    if event.relation is not None:
        yield _related(event.relation)
    if event.having is not None:
        yield f"with ({in_words(event.having)})"
    if event.times > 1:
        yield f"at least {event.times}"
    if event.take:
        yield f"the {event.take}"
    yield from (f"it has {_tested(test)}" for test in event.then)


def _tested(test: Test) -> str:
    name = test.column.replace("_", " ")
    if test.test == "present":
        return name if test.values[0] else f"no {name}"
    return f"{name} {_TESTS[test.test]}{_any(test.values)}"


def _any(values: Sequence[object]) -> str:
    return " or ".join(str(v).lower() if isinstance(v, bool) else str(v) for v in values)


def _period(period: Period) -> Iterator[str]:
    if period.within_years is not None:
        yield f"within {period.within_years} years"
    if period.within_days is not None:
        yield f"within {period.within_days} days"
    if period.at_least_days_ago is not None:
        yield f"at least {period.at_least_days_ago} days ago"
    if period.start is not None:
        yield f"from {period.start}"
    if period.until is not None:
        yield f"until {period.until}"


def _related(relation: TimeRelation) -> str:
    parts = []
    if relation.before_days is not None or relation.after_days is not None:
        parts.append(f"{relation.before_days or 0} days before to {relation.after_days or 0} days after")
    parts += [word for word in ("before", "after") if getattr(relation, word)]
    parts += ["overlapping"] if relation.overlaps else []
    return f"{', '.join(parts)} the {'index event' if relation.to == 'index' else 'day of the row'}"
