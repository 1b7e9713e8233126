"""What people see of a question: its answer, attrition and comparison as the policy has them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import date

from bridge.errors import NotAllowed
from cohort.answer import Answer
from cohort.comparison import MEASURES
from cohort.dialects import duckdb
from cohort.disclosure import IDENTIFYING, PERSON_COLUMN, of_counts, of_rows, shown
from cohort.event_rows import EventRows
from cohort.expression import Aggregate, AggregateFunction, Column
from cohort.kinds import DERIVED, KINDS
from cohort.privacy import PATIENTS, Policy
from cohort.pseudonym import Pseudonyms
from cohort.question import Combination, Criterion, Event, Question
from cohort.question_answer import compile_question, counted, found_units
from cohort.question_rows import Compiler
from cohort.relation import Group
from cohort.returns import Columns, returned

_ALWAYS = MEASURES[:2]
"""Measures of a comparison that are told even where neither count may be shown."""


def rows_sql(
    question: Question, today: date, columns: Columns, policy: Policy, pseudonyms: Pseudonyms | None, most: int
) -> str:
    """SQL: the rows of a question that lists, the first so many or some more; `pseudonyms` None shows them as they are
    stored, lists as JSON. Under pseudonyms they are in the order of these."""
    if pseudonyms is None:
        return duckdb.sql(compile_question(question, today, columns, most, as_json=True))
    more = () if PERSON_COLUMN in question.columns else (PERSON_COLUMN,)
    asked = replace(question, columns=(*question.columns, *more))
    made = duckdb.sql(compile_question(asked, today, columns, of_people=True))
    wanted = [returned(question.unit, name, columns) for name in question.columns]
    return of_rows(made, duckdb.sql(found_units(asked, today, columns)), wanted, policy, pseudonyms, most)


def groups_sql(question: Question, today: date, columns: Columns, policy: Policy, pseudonyms: Pseudonyms | None) -> str:
    """SQL: the groups of a question that counts, coarse; without what identifies, or as they are stored."""
    facts = () if question.unit == "patient" else (counted(question.unit),)
    made = policy.coarse(duckdb.sql(compile_question(question, today, columns)), question.group_by, facts)
    if pseudonyms is None:
        return made
    wanted = [returned(question.unit, name, columns) for name in question.group_by]
    return of_counts(made, wanted, (*facts, PATIENTS), pseudonyms) + " ORDER BY ALL"


def totals_sql(question: Question, today: date, columns: Columns) -> str:
    """SQL: how many patients, and units of another kind, a question finds; exactly. See `totals`."""
    units = Compiler(EventRows(today, columns)).units(question)
    counts = [(PATIENTS, Aggregate(AggregateFunction.COUNT_DISTINCT, Column("_patient")))]
    if question.unit != "patient":
        counts.append((counted(question.unit), Aggregate(AggregateFunction.COUNT_DISTINCT, Column(units.key))))
    return duckdb.sql(Group(units.relation, (), tuple(counts)))


def totals(answer: Answer, policy: Policy) -> Answer:
    """The answer of `totals_sql` as it may be shown."""
    ((patients, *facts),) = answer.rows
    return replace(answer, rows=((policy.count(patients), *(policy.facts(n, patients) for n in facts)),))


def attrition(answer: Answer, policy: Policy) -> Answer:
    """How many remain after each criterion, as it may be shown: None where fewer than the threshold do."""
    rows = ((*head, policy.facts(units, patients), policy.count(patients)) for *head, units, patients in answer.rows)
    return replace(answer, rows=tuple(rows))


def comparison(answer: Answer, policy: Policy) -> Answer:
    """Two cohorts beside each other as they may be shown. Values of which neither count may be shown are left out; the
    others stand in the order of what is shown."""
    rows = [(m, value, policy.count(first), policy.count(second)) for m, value, first, second in answer.rows]
    kept = [r for r in rows if r[0] in _ALWAYS or r[2] is not None or r[3] is not None]
    if policy.small_cells > 1:
        kept.sort(key=lambda r: (MEASURES.index(r[0]), -((r[2] or 0) + (r[3] or 0)), str(r[1])))
    return replace(answer, rows=tuple(kept))


def check(question: Question, policy: Policy) -> None:
    """Raises NotAllowed where a document of somebody's own tests what singles a person out, but people may not see it.

    A count of nine known people and one more would tell of that one; a row found by a number would tell whose
    pseudonym it shows.
    """
    if policy.line_level and not policy.pseudonymous:
        return
    check_events(_events(question.criteria, *([question.index] if question.index else [])), policy)


def check_events(events: Iterable[Event], policy: Policy) -> None:
    """The same of what these events test, and of criteria within them."""
    if policy.line_level and not policy.pseudonymous:
        return
    for event in _events(*events):
        for test in (*event.where, *event.then):
            how = _how(event.kind, test.column)
            seen = how == "text" and policy.line_level and policy.free_text == "shown"
            if how in IDENTIFYING and test.test != "present" and not seen:
                raise NotAllowed(
                    f"question: {event.kind}.{test.column} singles people out; only `present` can be asked of it "
                    'without line_level = true and identifiers = "identifiers" in [cohort]'
                )


def _how(kind: str, column: str) -> str:
    if column in DERIVED.get(kind, {}):
        return "text" if column == "text" else "as_is"
    return shown(KINDS[kind].table, column).how


def _events(*criteria: Criterion) -> Iterator[Event]:
    left = list(criteria)
    while left:
        one = left.pop()
        if isinstance(one, Combination):
            left += one.of
        elif isinstance(one, Event):
            yield one
            left += [one.having] if one.having else []
