"""An outcome definition → the relation of its rows: what became of each prediction, as of a day. Pure.

Every rule gives pairs of a prediction and a fact; of all pairs of a prediction one counts, by the stated precedence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date

from bridge.errors import InvalidQuery
from cohort.event_rows import EventRows
from cohort.expression import (
    Aggregate,
    AggregateFunction,
    Case,
    Column,
    Expression,
    Function,
    Literal,
    Null,
    Order,
    Scalar,
    Window,
    WindowFunction,
    call,
    every,
)
from cohort.kinds import KINDS, LINKED
from cohort.outcome import Definition, Evidence, Outcome, Precedence
from cohort.outcome_predictions import COLUMNS, midnight, predictions
from cohort.outcome_readings import readings
from cohort.question import Event
from cohort.question_rows import Compiler
from cohort.relation import Group, Join, JoinKind, Project, Relation, Shared, Table, Union, Where
from cohort.returns import Columns

TYPES: Mapping[str, str] = {
    "prediction_id": "VARCHAR", "patient": "VARCHAR", "study_instance_uid": "VARCHAR", "model": "VARCHAR",
    "model_version": "VARCHAR", "finding_system": "VARCHAR", "finding_code": "VARCHAR", "score": "DOUBLE",
    "threshold": "DOUBLE", "predicted": "BOOLEAN", "outcome": "VARCHAR", "evidence_kind": "VARCHAR",
    "evidence": "VARCHAR", "evidence_date": "DATE", "index_date": "DATE", "predicted_at": "TIMESTAMP WITH TIME ZONE",
    "delay_days": "BIGINT", "reader_agrees": "BOOLEAN", "reader_at": "TIMESTAMP WITH TIME ZONE",
    "modality": "VARCHAR", "manufacturer": "VARCHAR", "model_name": "VARCHAR", "site": "VARCHAR",
    "age_band": "VARCHAR", "sex": "VARCHAR",
}  # fmt: skip
"""The columns of a row of outcomes, in order, with their DuckDB types; `changed` follows where changes are counted."""

ROW = tuple(TYPES)

RESOURCES = {
    "condition": "Condition", "procedure": "Procedure", "observation": "Observation", "report": "DiagnosticReport",
    "finding": "Observation", "medication": "MedicationRequest", "encounter": "Encounter", "implant": "Procedure",
    "death": "Patient",
}  # fmt: skip
"""kind of evidence → the type of the resource that is it."""

CONTACT = ("condition", "procedure", "observation", "report", "medication", "encounter", "study")
"""Kinds whose days show that a patient was seen."""


def compile_outcomes(
    definition: Definition,
    today: date,
    columns: Columns,
    model: str = "",
    version: str | None = None,
    *,
    some: bool = False,
) -> Relation:
    """The rows: the columns of ROW but `evidence`, which are `_evidence_type` (of a resource) and `_evidence_id`; with
    `_person`, whose they are (a `patient_id`), as `patient`. Facts after `today` do not count. With `some`, those
    of the predictions in `outcome_predictions.SOME`."""
    return _Rows(definition, today, columns).relation(model, version, some=some)


def compile_readings(definition: Definition, today: date, columns: Columns, reader: str) -> Relation:
    """The same rows for the reports of a reader that judge the finding, by the definition's rules of `reader`; what
    readers say is no evidence of what a reader says. Raises InvalidQuery where the definition cannot judge readers."""
    decisive = tuple(r for r in definition.evidence if r.event is None or r.event.kind not in LINKED)
    if not decisive or not definition.reader:
        raise InvalidQuery(
            f"the outcome {definition.name} cannot judge readers: it needs rules of `reader`, and evidence besides "
            "reports and findings"
        )
    return _Rows(replace(definition, evidence=decisive, reader=()), today, columns).read(definition.reader, reader)


class _Rows:
    def __init__(self, definition: Definition, today: date, columns: Columns) -> None:
        self._definition, self._today = definition, today
        self._compiler = Compiler(EventRows(today, columns))

    def relation(self, model: str, version: str | None, *, some: bool) -> Relation:
        return self._decided(predictions(self._definition, self._today, model, version, some=some))

    def read(self, rules: tuple[Evidence, ...], reader: str) -> Relation:
        by_reports = [
            (r, self._compiler.facts(r.event, "study")) for r in rules if r.event and r.event.kind == "report"
        ]
        return self._decided(readings(self._definition, self._today, reader, by_reports))

    def _decided(self, rows: Relation) -> Relation:
        predicted = Shared("predictions", rows)
        decided = self._first(predicted, self._definition.evidence, self._definition.precedence, dated=True)
        rows = _beside(predicted, decided, "_prediction", _PAIR, "_")
        rows = _beside(rows, self._contact(predicted), "_patient", ("_last",), "")
        reader = self._reader(predicted)
        if reader is not None:
            rows = _beside(rows, reader, "_prediction", ("_said", "_said_at"), "")
        return self._columns(rows, read=reader is not None)

    def _first(
        self, predicted: Relation, rules: tuple[Evidence, ...], precedence: Precedence, *, dated: bool
    ) -> Relation:
        """Of each prediction the pair that counts; `dated`: of facts within the rule's days."""
        pairs = tuple(self._pairs(predicted, n, rule, dated=dated) for n, rule in enumerate(rules))
        together: Relation = Union(pairs) if len(pairs) > 1 else pairs[0]
        last = precedence is Precedence.LATEST
        rule, day = Order(Column("_rule")), Order(Column("_day"), descending=last)
        first = (rule, day) if precedence is Precedence.LISTED else (day, rule)
        order = (*first, Order(Column("_id")), Order(Column("_outcome")))
        rank = Window(WindowFunction.ROW_NUMBER, None, (Column("_prediction"),), order)
        names = ("_prediction", *_PAIR)
        ranked = Project(together, (*((n, Column(n)) for n in names), ("_rank", rank)))
        return Where(ranked, call(Function.EQUAL, Column("_rank"), Literal(1)))

    def _pairs(self, predicted: Relation, n: int, rule: Evidence, *, dated: bool) -> Relation:
        """A rule's facts with the predictions they speak of."""
        whose, facts = self._facts(rule)
        on = [call(Function.EQUAL, Column(whose, "l"), Column(whose, "r"))]
        if dated:
            start = Column("_index", "l")
            on.append(call(Function.AT_LEAST, Column("_day", "r"), _after(start, -rule.before_days)))
            on.append(call(Function.AT_MOST, Column("_day", "r"), _after(start, rule.after_days)))
            on.append(call(Function.AT_MOST, Column("_day", "r"), Literal(self._today)))
        kind = rule.event.kind if rule.event else "death"
        columns: tuple[tuple[str, Expression], ...] = (
            ("_prediction", Column("_prediction", "l")), ("_rule", Literal(n)), ("_day", Column("_day", "r")),
            ("_id", Column("_id", "r")), ("_kind", Literal(kind)), ("_type", Literal(RESOURCES[kind])),
            ("_outcome", _outcome(rule)),
        )  # fmt: skip
        made: Relation = Join(predicted, facts, JoinKind.INNER, every(*on), columns=columns)
        if rule.agreement:
            made = Where(made, call(Function.NOT, call(Function.IS_NULL, Column("_outcome"))))
        return made

    def _facts(self, rule: Evidence) -> tuple[str, Relation]:
        """What they are joined by, and `_id`, `_day`, `_value` of the rule's facts."""
        if rule.event is None:
            died = (
                ("_id", Column("patient_id")),
                ("_patient", Column("patient_key")),
                ("_day", Column("deceased_date")),
            )
            dead = call(Function.NOT, call(Function.IS_NULL, Column("deceased_date")))
            return "_patient", Project(Where(Table("patient"), dead), died)
        event = rule.event
        whose = "study" if event.kind in LINKED and not event.of else "patient"
        found, key = self._compiler.facts(event, whose), f"_{whose}"
        names = ("_id", key, "_day")
        if rule.agreement is None:
            return key, Project(found, tuple((n, Column(n)) for n in names), distinct=True)
        spec = KINDS[event.kind]
        on = call(Function.EQUAL, Column("_id", "l"), Column(spec.id, "r"))
        columns = (*((n, Column(n, "l")) for n in names), ("_value", Column(rule.agreement.column, "r")))
        fitting = self._compiler.rows.filtered(event.kind, [event])
        return key, Project(Join(found, fitting, JoinKind.INNER, on, columns=columns), _same(names), distinct=True)

    def _contact(self, predicted: Relation) -> Relation:
        """The last day on which each patient was seen, or died."""
        days = [self._compiler.facts(Event(kind), "patient") for kind in CONTACT]
        seen = tuple(Project(d, (("_patient", Column("_patient")), ("_day", Column("_day")))) for d in days)
        died = Project(Table("patient"), (("_patient", Column("patient_key")), ("_day", Column("deceased_date"))))
        known = Where(Union((*seen, died)), call(Function.AT_MOST, Column("_day"), Literal(self._today)))
        wanted = Project(predicted, (("_patient", Column("_patient")),), distinct=True)
        same = call(Function.EQUAL, Column("_patient", "l"), Column("_patient", "r"))
        theirs = Join(known, wanted, JoinKind.SEMI, same)
        last = Aggregate(AggregateFunction.HIGHEST, Column("_day"))
        return Group(theirs, (("_patient", Column("_patient")),), (("_last", last),))

    def _reader(self, predicted: Relation) -> Relation | None:
        """Of each prediction what a reader says is there (`_said`), and when; None where nothing says how to know."""
        if not self._definition.reader:
            return None
        said = self._first(predicted, self._definition.reader, Precedence.LISTED, dated=False)
        issued = Group(Table("diagnostic_report"), (("_report", Column("diagnostic_report_id")),),
                       (("_issued", Aggregate(AggregateFunction.LOWEST, Column("issued_time"))),))  # fmt: skip
        on = every(call(Function.EQUAL, Column("_id", "l"), Column("_report", "r")),
                   call(Function.EQUAL, Column("_kind", "l"), Literal("report")))  # fmt: skip
        at = call(Function.COALESCE, Column("_issued", "r"), midnight(Column("_day", "l")))
        there = call(Function.EQUAL, Column("_outcome", "l"), Literal(Outcome.CONFIRMED.value))
        columns = (("_prediction", Column("_prediction", "l")), ("_said", there), ("_said_at", at))
        return Join(said, issued, JoinKind.LEFT, on, columns=columns)

    def _columns(self, rows: Relation, *, read: bool) -> Relation:
        agrees: Expression = Column("_review")
        at: Expression = Column("_review_at")
        if read:
            agrees = call(Function.COALESCE, agrees, call(Function.EQUAL, Column("_said"), Column("predicted")))
            at = Case(((_known("_review"), at),), Column("_said_at"))
        made: dict[str, Expression] = {
            "prediction_id": Column("_prediction"),
            "patient": Column("_person"),
            "outcome": self._became(),
            "evidence_kind": Column("__kind"),
            "evidence_date": Column("__day"),
            "index_date": Column("_index"),
            "delay_days": call(Function.DAYS_BETWEEN, Column("_index"), Column("__day")),
            "reader_agrees": agrees,
            "reader_at": Case(((call(Function.NOT, call(Function.IS_NULL, agrees)), at),), Null(Scalar.MOMENT)),
        }
        shown = tuple((n, made.get(n, Column(n))) for n in ROW if n != "evidence")
        return Project(rows, (*shown, ("_evidence_type", Column("__type")), ("_evidence_id", Column("__id"))))

    def _became(self) -> Expression:
        d, today = self._definition, Literal(self._today)
        followed = call(Function.AT_LEAST, Column("_last"), _after(Column("_index"), d.follow_up_days))
        running = call(Function.LESS, today, _after(Column("_index"), d.within_days))
        return Case(
            (
                (_known("__outcome"), Column("__outcome")),
                (running, Literal(Outcome.PENDING.value)),
                (followed, Literal(d.without_evidence.value)),
            ),
            Literal(Outcome.CENSORED.value),
        )


_PAIR = ("_rule", "_day", "_id", "_kind", "_type", "_outcome")


def _same(names: tuple[str, ...]) -> tuple[tuple[str, Expression], ...]:
    return tuple((n, Column(n)) for n in (*names, "_value"))


def _outcome(rule: Evidence) -> Expression:
    if rule.agreement is None:
        return Literal(rule.outcome.value)
    more = call(Function.SUBTRACT, Column("_value", "r"), Column("_number", "l"))
    within = Literal(rule.agreement.within)
    alike = every(call(Function.AT_MOST, more, within), call(Function.AT_LEAST, more, call(Function.NEGATE, within)))
    differs = call(Function.NOT, alike)
    return Case(
        ((alike, Literal(Outcome.CONFIRMED.value)), (differs, Literal(Outcome.REFUTED.value))), Null(Scalar.TEXT)
    )


def _beside(rows: Relation, other: Relation, key: str, columns: tuple[str, ...], prefix: str) -> Relation:
    on = call(Function.EQUAL, Column(key, "l"), Column(key, "r"))
    left = COLUMNS if isinstance(rows, Shared) else tuple(n for n, _ in rows.columns) if isinstance(rows, Join) else ()
    kept = tuple((n, Column(n, "l")) for n in left)
    return Join(rows, other, JoinKind.LEFT, on, columns=(*kept, *((f"{prefix}{c}", Column(c, "r")) for c in columns)))


def _after(day: Expression, days: int) -> Expression:
    return call(Function.DAYS_AFTER, day, Literal(days))


def _known(column: str) -> Expression:
    return call(Function.NOT, call(Function.IS_NULL, Column(column)))
