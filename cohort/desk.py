"""The desk where people ask: every question, SELECT and plot passes here, whatever door it came in by.

It keeps to the policy, logs who asked what, and gives everybody a turn.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bridge.config import Cohort
from cohort import question_shown
from cohort.answer import Answer
from cohort.catalogue import questions, read_question
from cohort.disclosure import PERSON, stored_patient, views
from cohort.engine import spark
from cohort.feedback import Feedback, Showing, Wanted, definitions_of, feedback, readings
from cohort.feedback_scores import scores
from cohort.generation import Generation
from cohort.privacy import Policy, Readers
from cohort.pseudonym import Pseudonyms, read_secret
from cohort.query_log import Asked, QueryLog
from cohort.question import Question
from cohort.question_answer import texts_of
from cohort.sandbox import Limits, Run, Task, attrition, compare, run
from cohort.schema import TableSchema
from cohort.scores.asked import Asked as ScoresAsked
from cohort.selection import EXPORT_LIMITS, Selection
from cohort.similar import Alike, similar
from cohort.timeline import Timeline, timeline
from cohort.turns import Turns

if TYPE_CHECKING:
    from cohort.scores.report import Report

QUESTIONS_AT_ONCE, QUESTIONS_EACH = 4, 2
SQL_AT_ONCE, SQL_EACH = 2, 1
SQL_NICE = 10
"""People's SQL stands back for ready questions: beside it these take about the time they take alone."""

ENGINES = ("duckdb", "spark")


@dataclass(frozen=True)
class Caller:
    """Who asks, and by which door: `cli`, `api` or `python`."""

    who: str
    door: str

    @classmethod
    def here(cls, door: str) -> Caller:
        """The user of the operating system whose process this is."""
        return cls(pwd.getpwuid(os.getuid()).pw_name, door)


@dataclass(frozen=True)
class Chart:
    """A plot's SELECT of ours: `groups`, `facts` and `patients` are its columns."""

    name: str
    query: str
    groups: tuple[str, ...]
    facts: tuple[str, ...] = ()


def policy_of(settings: Cohort) -> Policy:
    """What the settings `[cohort]` let people see."""
    return Policy(
        small_cells=settings.small_cells,
        line_level=settings.line_level,
        identifiers=settings.identifiers,
        dates=settings.dates,
        free_text=settings.free_text,
        project=settings.project,
    )


def desk_of(settings: Cohort, lake: Path, limits: Limits | None = None) -> Desk:
    """The desk that the settings `[cohort]` describe."""
    readers = Readers(settings.readers, settings.reader_reviewers)
    return Desk(lake, policy_of(settings), limits, settings.log_days, readers)


class Desk:
    """The desk of one lake folder, under one policy."""

    def __init__(
        self,
        lake: Path,
        policy: Policy | None = None,
        limits: Limits | None = None,
        log_days: float = 365.0,
        readers: Readers | None = None,
    ) -> None:
        self.policy, self.limits, self.readers = policy or Policy(), limits or Limits(), readers or Readers()
        self.log = QueryLog(lake / "log", log_days)
        self._lake = lake
        self._questions = Turns(QUESTIONS_AT_ONCE, QUESTIONS_EACH)
        self._sql = Turns(SQL_AT_ONCE, SQL_EACH)

    def ask(
        self,
        generation: Generation,
        question: Question,
        given: Mapping[str, Any],
        today: date,
        caller: Caller,
        limits: Limits | None = None,
        engine: str = "duckdb",
    ) -> Answer:
        """The answer to a question as the policy has it: rows, or counts of patients and units.

        Raises  InvalidQuery for parameters it does not take; NotAllowed where it tests what people may not see, and for
                Spark, which answers exactly; Unavailable when it is too busy or cannot log
        """
        limits = limits or self.limits
        asked = self._asked(caller, "question", question.name, dict(given) | {"date": today.isoformat()}, generation)
        with self._asking(asked, engine, question) as answers:
            if engine == "spark":
                answers.append(spark.ask(generation, question, given, today, limits))
            else:
                answers.append(self._answered(generation, read_question(question.document, given), today, limits))
        return answers[0]

    def attrition(
        self,
        generation: Generation,
        question: Question,
        given: Mapping[str, Any],
        today: date,
        caller: Caller,
        limits: Limits | None = None,
        engine: str = "duckdb",
    ) -> Answer:
        """How many remain after each criterion, as coarse as every count. Raises as `ask` does."""
        limits = limits or self.limits
        asked = self._asked(caller, "attrition", question.name, dict(given) | {"date": today.isoformat()}, generation)
        with self._asking(asked, engine, question) as answers:
            exact = spark.attrition if engine == "spark" else attrition
            found = exact(generation, question, given, today, limits)
            answers.append(replace(question_shown.attrition(found, self.policy), notes=self._notes(rows=False)))
        return answers[0]

    def compare(self, generation: Generation, first: Question, second: Question, today: date, caller: Caller) -> Answer:
        """Two cohorts beside each other, as coarse as every count; the questions have their values. Raises as `ask`
        does."""
        parameters = {"first": first.name, "second": second.name, "date": today.isoformat()}
        asked = self._asked(caller, "comparison", "comparison", parameters, generation)
        with self._asking(asked, "duckdb", first, second) as answers:
            found = compare(generation, first, second, today, self.limits)
            answers.append(replace(question_shown.comparison(found, self.policy), notes=self._notes(rows=False)))
        return answers[0]

    def sql(self, generation: Generation, text: str, caller: Caller, limits: Limits | None = None) -> Answer:
        """The answer to a person's SELECT: rows where they may be seen, else counts of patients.

        Raises  InvalidQuery when it is not allowed or not right; Unavailable when it is too busy or cannot log
        """
        with self._answering(self._asked(caller, "sql", text, {}, generation), self._sql) as answers:
            task = self._rows_task(generation, text) if self.policy.line_level else self._counts_task(text)
            answer = run(generation, replace(task, nice=SQL_NICE), limits or self.limits)
            answers.append(replace(answer, notes=self._notes(rows=self.policy.line_level)))
        return answers[0]

    def view(self, generation: Generation, name: str, query: str, caller: Caller, limits: Limits) -> Answer:
        """The rows of a table as they may be shown; `query` is its SELECT. Raises NotAllowed, and as `sql` does."""
        asked = self._asked(caller, "view", name, {}, generation)
        with self._answering(asked, self._sql, self.policy.require_rows, f"the view {name}") as answers:
            answer = run(generation, replace(self._rows_task(generation, query), nice=SQL_NICE), limits)
            answers.append(replace(answer, notes=self._notes(rows=True)))
        return answers[0]

    def chart(self, generation: Generation, chart: Chart, caller: Caller) -> Answer:
        """A plot's rows, as coarse as every count."""
        with self._answering(self._asked(caller, "chart", chart.name, {}, generation), self._questions) as answers:
            answer = run(generation, Task(self.policy.coarse(chart.query, chart.groups, chart.facts)), self.limits)
            answers.append(replace(answer, notes=self._notes(rows=False)))
        return answers[0]

    @contextmanager
    def export(
        self,
        name: str,
        generation: Generation,
        question: Question,
        given: Mapping[str, Any],
        today: date,
        caller: Caller,
        limits: Limits = EXPORT_LIMITS,
    ) -> Iterator[Selection]:
        """What a question selects, for the export `name`: it names patients and studies as archives and servers do.

        Raises  NotAllowed where they may not be named; InvalidQuery, Unavailable as `ask` does
        """
        asked = {"question": question.name, **given, "date": today.isoformat()}
        exported = self._asked(caller, "export", name, asked, generation)
        with self._answering(exported, self._questions, self.policy.require_identifiers, name) as answers:
            yield Selection(generation, question, given, today, _noting(answers), limits)

    def timeline(self, generation: Generation, patient: str, caller: Caller, limits: Limits | None = None) -> Timeline:
        """One patient's events. Under pseudonyms the patient is named by the pseudonym, and so is all that is shown.

        Raises  NotAllowed where rows may not be seen; InvalidQuery when nobody, or more than one patient, is meant
        """
        asked = self._asked(caller, "timeline", "timeline", {"patient": patient}, generation)
        with self._answering(asked, self._questions, self.policy.require_rows, "a timeline") as answers:
            shown = self._of_one(generation, patient, limits or self.limits)
            return timeline(generation, patient, _noting(answers, shown), limits or self.limits)

    def outcomes(self, generation: Generation, wanted: Wanted, caller: Caller, cursor: str | None = None) -> Feedback:
        """What became of a model's predictions: one row for each that is new or has changed since the cursor.

        Raises  NotAllowed where rows may not be seen, or a document of somebody's own tests what people may not see;
                InvalidQuery for a cursor that is not known any more, and as `ask` does; Unavailable
        """
        today = wanted.on or datetime.now(UTC).date()
        asked = {"model": wanted.model, "version": wanted.version or "", **wanted.given, "date": today.isoformat()}
        logged = self._asked(caller, "outcomes", wanted.definition.name, asked, generation)
        with self._answering(logged, self._questions, self.policy.require_rows, "a row for each prediction") as answers:
            found = feedback(generation, wanted, today, cursor, self._showing(wanted))
            answers.append(found.answer)
        return replace(found, answer=replace(found.answer, notes=self._notes(rows=True)))

    def definitions_of(self, generation: Generation, model: str, caller: Caller) -> tuple[str, ...]:
        """The ready outcome definitions that speak of findings which the model made. Raises as `outcomes` does."""
        logged = self._asked(caller, "outcomes", "definitions", {"model": model}, generation)
        with self._answering(logged, self._questions, self.policy.require_rows, "what a model found"):
            return definitions_of(generation, model, run)

    def readings(self, generation: Generation, wanted: Wanted, reader: str, caller: Caller) -> tuple[Answer, str]:
        """What became of a reader's reports: for that reader, and for those who may see every reader's.

        Result  a row for each report, none where rows may not be seen; the numbers of them in a sentence
        Raises  NotAllowed for everybody else; InvalidQuery where the definition cannot judge readers, and as `ask` does
        """
        today = wanted.on or datetime.now(UTC).date()
        asked = {"reader": reader, **wanted.given, "date": today.isoformat()}
        logged = self._asked(caller, "readings", wanted.definition.name, asked, generation)
        allowed = partial(self.readers.require, caller.who if caller.door == "cli" else "", reader)
        with self._answering(logged, self._questions, allowed, "what became of a reader's reports") as answers:
            answer, told = readings(generation, wanted, reader, today, self._showing(wanted))
            answers.append(answer)
        return replace(answer, notes=self._notes(rows=True) if answer.rows else ()), told

    def similar(self, generation: Generation, alike: Alike, caller: Caller) -> Answer:
        """How many patients are like a patient or a study, what they were treated with and what became of them: coarse
        counts, since nobody alike is to be known.

        Raises  NotAllowed where single patients may not be asked about; InvalidQuery when nobody is meant; Unavailable
        """
        today = datetime.now(UTC).date()
        by = alike.outcome.name if alike.outcome else ""
        asked = {"whom": alike.whom, "features": ",".join(alike.features), "years": alike.years, "outcome": by}
        logged = self._asked(caller, "similar", "similar", asked, generation)
        with self._answering(logged, self._questions, self.policy.require_rows, "a patient others are like") as answers:
            pseudonyms = self._pseudonyms if self.policy.pseudonymous else None
            answers.append(similar(generation, alike, today, self.policy, pseudonyms, run))
        return replace(answers[0], notes=self._notes(rows=False))

    def scores(self, generation: Generation, wanted: Wanted, asked: ScoresAsked, caller: Caller) -> Report:
        """How well a model's predictions agree with what became of the patients; as coarse as every count.

        Raises  ConfigError without the extra `scores`; NotAllowed for a document of somebody's own that tests what
                people may not see; InvalidQuery where there are no predictions, and as `ask` does; Unavailable
        """
        today = wanted.on or datetime.now(UTC).date()
        given = {"model": wanted.model, "version": wanted.version or "", **wanted.given, "date": today.isoformat()}
        logged = self._asked(caller, "scores", wanted.definition.name, given, generation)
        with self._answering(logged, self._questions) as answers:
            found, answer = scores(generation, wanted, asked, today, self._showing(wanted))
            answers.append(replace(answer, rows=()))
        return found

    def _showing(self, wanted: Wanted) -> Showing:
        """What shows outcomes. Raises NotAllowed for documents of people's own that test what they may not see."""
        if not wanted.ready:
            question_shown.check_events(wanted.definition.events, self.policy)
        pseudonyms = self._pseudonyms if self.policy.pseudonymous else None
        return Showing(self.policy, pseudonyms, run, self._lake, EXPORT_LIMITS)

    @contextmanager
    def turn(self, caller: Caller) -> Iterator[None]:
        """A turn for what people bring themselves and run without the lake. Raises Unavailable."""
        with self._sql.turn(caller.who):
            yield

    @contextmanager
    def _answering(
        self, asked: Asked, turns: Turns, require: Callable[[str], None] | None = None, what: str = ""
    ) -> Iterator[list[Answer]]:
        """Logs, refuses what is not allowed, waits for a turn."""
        with self.log.asking(asked, datetime.now(UTC)) as answers:
            if require is not None:
                require(what)
            with turns.turn(asked.who):
                yield answers

    @contextmanager
    def _asking(self, asked: Asked, engine: str, *wanted: Question) -> Iterator[list[Answer]]:
        """As `_answering`; refuses documents of people's own that test what they may not see."""
        exact = self.policy.require_exact if engine == "spark" else None
        with self._answering(asked, self._questions, exact, "Spark") as answers:
            for one in wanted:
                ready = questions().get(one.name)
                if ready is None or ready.document != one.document:
                    question_shown.check(one, self.policy)
            yield answers

    def _answered(self, generation: Generation, question: Question, today: date, limits: Limits) -> Answer:
        columns, pseudonyms = generation.column_types, self._pseudonyms if self.policy.pseudonymous else None
        variables = pseudonyms.variables() if pseudonyms else {}
        rows = bool(question.columns) and self.policy.line_level
        if question.columns and not rows:
            answer = run(generation, Task(question_shown.totals_sql(question, today, columns)), limits)
            return replace(question_shown.totals(answer, self.policy), notes=self._notes(rows=False))
        asked = question, today, columns, self.policy, pseudonyms
        sql = question_shown.rows_sql(*asked, limits.rows + 1) if rows else question_shown.groups_sql(*asked)
        task = Task(sql, variables=variables, columns=texts_of(question, columns, as_json=pseudonyms is None))
        return replace(run(generation, task, limits), notes=self._notes(rows=rows))

    def _rows_task(self, generation: Generation, text: str) -> Task:
        if not self.policy.pseudonymous:
            return Task(text, gate="rows")
        return Task(text, gate="rows", views=self._views(generation), variables=self._pseudonyms.variables())

    def _of_one(self, generation: Generation, patient: str, limits: Limits) -> Task:
        """What a task over one patient's rows sees, where they are found by the pseudonym; else all rows."""
        shown = self._rows_task(generation, "")
        if not self.policy.pseudonymous:
            return shown
        asked = Task(stored_patient(self._pseudonyms), (patient,), variables=shown.variables)
        found = run(generation, asked, limits).rows
        if len(found) != 1:
            return shown
        variables = {**shown.variables, PERSON: str(found[0][0]).encode().hex()}
        return replace(shown, views=self._views(generation, one=True), variables=variables)

    def _views(self, generation: Generation, *, one: bool = False) -> dict[str, str]:
        tables = {name: TableSchema(name, "", table.columns) for name, table in generation.tables.items()}
        return views(tables, self.policy, self._pseudonyms, one=one)

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


def _noting(answers: list[Answer], shown: Task | None = None) -> Run:
    """Runs tasks, over the views of `shown` where there is one; keeps the answers for the log."""

    def noting(generation: Generation, task: Task, limits: Limits | None) -> Answer:
        if shown is not None:
            task = replace(task, views=shown.views, variables=shown.variables)
        answers.append(run(generation, task, limits))
        return answers[-1]

    return noting
