"""How many remain after each criterion of a question. Pure."""

from __future__ import annotations

from datetime import date

from cohort.event_rows import EventRows, Units
from cohort.expression import Aggregate, AggregateFunction, Column, Literal, Order
from cohort.question import Question, steps
from cohort.question_rows import Compiler
from cohort.question_words import in_words
from cohort.relation import Group, Ordered, Project, Relation, Union
from cohort.returns import Columns


def compile_attrition(question: Question, today: date, columns: Columns) -> Relation:
    """Rows in order: `step` (0 is all), `criterion` in words, `units` and `patients` that remain."""
    index = [f"Index event: {in_words(question.index)}"] if question.index else []
    labels = [f"All: {question.unit}", *index, *map(in_words, steps(question))]
    left = Compiler(EventRows(today, columns)).steps(question)
    counted = (_counted(step, label, units) for step, (label, units) in enumerate(zip(labels, left, strict=True)))
    return Ordered(Union(tuple(counted)), (Order(Column("step")),))


def _counted(step: int, label: str, units: Units) -> Relation:
    totals = Group(units.relation, (), (
        ("units", Aggregate(AggregateFunction.COUNT_DISTINCT, Column(units.key))),
        ("patients", Aggregate(AggregateFunction.COUNT_DISTINCT, Column("_patient"))),
    ))  # fmt: skip
    said = (("step", Literal(step)), ("criterion", Literal(label)))
    return Project(totals, (*said, ("units", Column("units")), ("patients", Column("patients"))))
