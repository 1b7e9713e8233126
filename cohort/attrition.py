"""How many remain after each criterion of a question. Pure."""

from __future__ import annotations

from datetime import date

from cohort.event_rows import EventRows, Units
from cohort.expression import Aggregate, AggregateFunction, Column, Literal, Order
from cohort.question import Age, Combination, Criterion, Question, steps
from cohort.question_rows import Compiler
from cohort.relation import Group, Ordered, Project, Relation, Union
from cohort.returns import Columns


def compile_attrition(question: Question, today: date, columns: Columns) -> Relation:
    """Rows in order: `step` (0 is all), `criterion` in words, `units` and `patients` that remain."""
    labels = [f"All: {question.unit}", *(["Index event"] if question.index else []), *map(in_words, steps(question))]
    left = Compiler(EventRows(today, columns)).steps(question)
    counted = (_counted(step, label, units) for step, (label, units) in enumerate(zip(labels, left, strict=True)))
    return Ordered(Union(tuple(counted)), (Order(Column("step")),))


def _counted(step: int, label: str, units: Units) -> Relation:
    totals = Group(units.relation, (), (
        ("units", Aggregate(AggregateFunction.COUNT_DISTINCT, Column("_id"))),
        ("patients", Aggregate(AggregateFunction.COUNT_DISTINCT, Column("_patient"))),
    ))  # fmt: skip
    said = (("step", Literal(step)), ("criterion", Literal(label)))
    return Project(totals, (*said, ("units", Column("units")), ("patients", Column("patients"))))


def in_words(criterion: Criterion) -> str:
    """The criterion's label, else its kind.

    >>> in_words(Combination("not", (Age(younger_than_years=18),)))
    'not (age)'
    """
    if criterion.label:
        return criterion.label
    if isinstance(criterion, Age):
        return "age"
    if not isinstance(criterion, Combination):
        return criterion.kind
    inner = ", ".join(map(in_words, criterion.of))
    kind = f"at least {criterion.count} of" if criterion.kind == "at_least" else criterion.kind
    return f"{kind} ({inner})"
