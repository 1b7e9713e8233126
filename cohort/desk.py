"""The desk where people ask: every question, SELECT and plot passes here, whatever door it came in by.

It keeps to the policy, logs who asked what, and gives everybody a turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from bridge.config import Cohort
from cohort.answer import Answer
from cohort.catalogue import code_lists
from cohort.disclosure import of_counts, of_rows, views
from cohort.lake import Generation
from cohort.privacy import PATIENTS, Policy
from cohort.pseudonym import Pseudonyms, read_secret
from cohort.query_log import Asked, QueryLog
from cohort.question import Question
from cohort.question_sql import compile_question
from cohort.sandbox import Limits, Task, run
from cohort.schema import TableSchema
from cohort.turns import Turns

QUESTIONS_AT_ONCE, QUESTIONS_EACH = 4, 2
SQL_AT_ONCE, SQL_EACH = 2, 1
SQL_NICE = 10
"""People's SQL stands back for ready questions: beside it these take about the time they take alone."""

_COUNTED = {"patient": (), "study": ("studies",), "series": ("series",)}
_UIDS = {"study": "study_instance_uid", "series": "series_instance_uid"}


@dataclass(frozen=True)
class Caller:
    """Who asks, and by which door: `cli` or `api`."""

    who: str
    door: str


@dataclass(frozen=True)
class Chart:
    """A plot's SELECT of ours: `groups`, `facts` and `patients` are its columns."""

    name: str
    query: str
    groups: tuple[str, ...]
    facts: tuple[str, ...] = ()


def desk_of(settings: Cohort, lake: Path, limits: Limits | None = None) -> Desk:
    """The desk that the settings `[cohort]` describe."""
    policy = Policy(
        small_cells=settings.small_cells,
        line_level=settings.line_level,
        identifiers=settings.identifiers,
        dates=settings.dates,
        free_text=settings.free_text,
        project=settings.project,
    )
    return Desk(lake, policy, limits, settings.log_days)


class Desk:
    """The desk of one lake folder, under one policy."""

    def __init__(
        self, lake: Path, policy: Policy | None = None, limits: Limits | None = None, log_days: float = 365.0
    ) -> None:
        self.policy, self.limits = policy or Policy(), limits or Limits()
        self.log = QueryLog(lake / "log", log_days)
        self._lake = lake
        self._questions = Turns(QUESTIONS_AT_ONCE, QUESTIONS_EACH)
        self._sql = Turns(SQL_AT_ONCE, SQL_EACH)

    def ask(
        self, generation: Generation, question: Question, given: Mapping[str, Any], today: date, caller: Caller
    ) -> Answer:
        """The answer to a question as the policy has it: rows, or counts of patients, studies and series.

        Raises  InvalidQuery for parameters it does not take; Unavailable when it is too busy or cannot log
        """
        asked = self._asked(caller, "question", question.name, dict(given) | {"date": today.isoformat()}, generation)
        with self.log.asking(asked, datetime.now(UTC)) as answers, self._questions.turn(caller.who):
            answers.append(self._answered(generation, question, given, today))
        return answers[0]

    def sql(self, generation: Generation, text: str, caller: Caller) -> Answer:
        """The answer to a person's SELECT: rows where they may be seen, else counts of patients.

        Raises  InvalidQuery when it is not allowed or not right; Unavailable when it is too busy or cannot log
        """
        asked = self._asked(caller, "sql", text, {}, generation)
        with self.log.asking(asked, datetime.now(UTC)) as answers, self._sql.turn(caller.who):
            task = self._rows_task(generation, text) if self.policy.line_level else self._counts_task(text)
            answer = run(generation, replace(task, nice=SQL_NICE), self.limits)
            answers.append(replace(answer, notes=self._notes(rows=self.policy.line_level)))
        return answers[0]

    def chart(self, generation: Generation, chart: Chart, caller: Caller) -> Answer:
        """A plot's rows, as coarse as every count."""
        with self.log.asking(self._asked(caller, "chart", chart.name, {}, generation), datetime.now(UTC)) as answers:
            with self._questions.turn(caller.who):
                answer = run(generation, Task(self.policy.coarse(chart.query, chart.groups, chart.facts)), self.limits)
            answers.append(replace(answer, notes=self._notes(rows=False)))
        return answers[0]

    def export(self, generation: Generation, name: str, task: Task, caller: Caller, *, identifiers: bool) -> Answer:
        """The exact rows of a SELECT of ours that a file is made of.

        Raises  NotAllowed where rows may not be seen or, with `identifiers`, where they may not be named
        """
        asked = self._asked(caller, "export", name, {}, generation)
        with self.log.asking(asked, datetime.now(UTC)) as answers:
            (self.policy.require_identifiers if identifiers else self.policy.require_rows)(name)
            with self._questions.turn(caller.who):
                answers.append(run(generation, task, self.limits))
        return answers[0]

    def _answered(self, generation: Generation, question: Question, given: Mapping[str, Any], today: date) -> Answer:
        rows = bool(question.columns) and self.policy.line_level
        task = self._row_question if rows else self._group_question if question.group_by else self._count_question
        answer = run(generation, task(question, given, today), self.limits)
        if question.columns and not rows:
            answer = self._counted(answer, question)
        return replace(answer, notes=self._notes(rows=rows))

    def _row_question(self, question: Question, given: Mapping[str, Any], today: date) -> Task:
        if not self.policy.pseudonymous:
            sql, bound = compile_question(question, given, today, code_lists())
            return Task(sql, tuple(bound))
        columns = question.columns if "patient_id" in question.columns else (*question.columns, "patient_id")
        sql, bound = compile_question(replace(question, columns=columns), given, today, code_lists())
        made = of_rows(sql, question, self.policy, self._pseudonyms)
        return Task(made, tuple(bound), variables=self._pseudonyms.variables())

    def _group_question(self, question: Question, given: Mapping[str, Any], today: date) -> Task:
        sql, bound = compile_question(question, given, today, code_lists())
        facts = _COUNTED[question.unit]
        made = self.policy.coarse(sql, question.group_by, facts)
        if not self.policy.pseudonymous:
            return Task(made, tuple(bound))
        made = of_counts(made, question.group_by, (*facts, PATIENTS), self._pseudonyms) + " ORDER BY ALL"
        return Task(made, tuple(bound), variables=self._pseudonyms.variables())

    def _count_question(self, question: Question, given: Mapping[str, Any], today: date) -> Task:
        """A question that lists, where rows may not be seen: how many patients, studies and series it finds."""
        columns = ("patient_id", *(uid for unit, uid in _UIDS.items() if unit == question.unit))
        sql, bound = compile_question(replace(question, columns=columns), given, today, code_lists())
        counts = [f"count(DISTINCT patient_id) AS {PATIENTS}"]
        counts += [f"count(DISTINCT {_UIDS[question.unit]}) AS {fact}" for fact in _COUNTED[question.unit]]
        return Task(f"SELECT {', '.join(counts)} FROM ({sql})", tuple(bound))

    def _counted(self, answer: Answer, question: Question) -> Answer:
        ((patients, *facts),) = answer.rows
        shown = (self.policy.count(patients), *(self.policy.facts(n, patients) for n in facts))
        return replace(answer, rows=(shown,))

    def _rows_task(self, generation: Generation, text: str) -> Task:
        if not self.policy.pseudonymous:
            return Task(text, gate="rows")
        tables = {name: TableSchema(name, "", table.columns) for name, table in generation.tables.items()}
        shown = views(tables, self.policy, self._pseudonyms)
        return Task(text, gate="rows", views=shown, variables=self._pseudonyms.variables())

    def _counts_task(self, text: str) -> Task:
        return Task(text, gate="counts", small_cells=self.policy.small_cells)

    def _notes(self, *, rows: bool) -> tuple[str, ...]:
        return self.policy.notes_on_rows() if rows else self.policy.notes_on_counts()

    def _asked(
        self, caller: Caller, kind: str, what: str, parameters: Mapping[str, Any], generation: Generation
    ) -> Asked:
        access = f"{'rows' if self.policy.line_level else 'counts'}, {self.policy.identifiers}"
        return Asked(caller.who, caller.door, kind, what, parameters, generation.id, access)

    @cached_property
    def _pseudonyms(self) -> Pseudonyms:
        return Pseudonyms.of_project(read_secret(self._lake), self.policy.project)
