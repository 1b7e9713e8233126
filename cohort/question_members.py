"""A question → the patients, studies and series it is about. Pure."""

from __future__ import annotations

from datetime import date

from cohort.event_rows import EventRows, links
from cohort.expression import Column, Function, call
from cohort.kinds import KEYS, LINKED
from cohort.question import Question
from cohort.question_rows import Compiler
from cohort.relation import Join, JoinKind, Project, Relation
from cohort.returns import Columns


def compile_members(question: Question, today: date, columns: Columns) -> tuple[Relation, tuple[str, ...]]:
    """Rows, each once, and their columns, all integer keys: patient_key; study_key where the unit belongs to studies,
    and series_key where it belongs to a series."""
    units = Compiler(EventRows(today, columns)).units(question)
    rows, found = units.relation, units.columns
    if units.unit in LINKED:
        on = call(Function.EQUAL, Column(units.key, "l"), Column("_linked", "r"))
        both = (("_patient", Column("_patient", "l")), ("_study", Column("_study", "r")))
        named = links(units.unit)
        rows, found = Join(rows, named, JoinKind.INNER, on, columns=both), ("_patient", "_study")
    keys = {key: f"_{level}" for level, key in KEYS.items() if f"_{level}" in found}
    return Project(rows, tuple((key, Column(c)) for key, c in keys.items()), distinct=True), tuple(keys)
