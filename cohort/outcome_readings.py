"""The reports of a reader that judge a finding, as predictions: what the reader said is there, and when. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from cohort.column_tests import age_decade
from cohort.expression import (
    Aggregate,
    AggregateFunction,
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
    some,
)
from cohort.outcome import Definition, Evidence, Outcome
from cohort.outcome_predictions import COLUMNS, age_band, midnight, surrounded
from cohort.relation import Extend, Group, Join, JoinKind, Project, Relation, Table, Union, Where


def readings(
    definition: Definition, today: date, reader: str, by_reports: Sequence[tuple[Evidence, Relation]]
) -> Relation:
    """One row for each report of the reader (a practitioner's identifier or id) that one of the rules finds, with the
    columns of a prediction. `by_reports`: rules in their order, each with its reports (`_id`, `_study`, `_patient`)."""
    rows = surrounded(_of_reader(_first(by_reports), reader))
    made_at = call(Function.COALESCE, Column("_issued"), midnight(Column("_effective")))
    rows = Extend(rows, (("_made_at", made_at),))
    seen = call(Function.COALESCE, Column("started_date"), call(Function.DAY, Column("_made_at")))
    rows = Extend(rows, (("_index", seen if definition.index == "study" else call(Function.DAY, Column("_made_at"))),))
    rows = Extend(rows, (("_decade", age_decade(Column("birth_date"), Column("_index"))),))
    system, code = (definition.finding.codes or (("", ""),))[0]
    made: dict[str, Expression] = {
        "_number": Null(Scalar.DOUBLE), "_person": Column("patient_id"), "model": Null(Scalar.TEXT),
        "model_version": Null(Scalar.TEXT), "finding_system": Literal(system), "finding_code": Literal(code),
        "score": Null(Scalar.DOUBLE), "threshold": Literal(definition.threshold), "predicted": Column("_said"),
        "predicted_at": Column("_made_at"), "_review": Null(Scalar.BOOLEAN), "_review_at": Null(Scalar.MOMENT),
        "age_band": age_band(), "sex": Column("gender"),
    }  # fmt: skip
    made |= {n: Column(f"first_{n}") for n in ("modality", "manufacturer", "model_name")}
    columns = Project(rows, tuple((n, made.get(n, Column(n))) for n in COLUMNS))
    return Where(columns, call(Function.AT_MOST, call(Function.DAY, Column("predicted_at")), Literal(today)))


def _first(by_reports: Sequence[tuple[Evidence, Relation]]) -> Relation:
    """Each report once, with its study of the lowest key, and what the first rule that finds it says."""
    found = []
    for n, (rule, reports) in enumerate(by_reports):
        said = Literal(rule.outcome is Outcome.CONFIRMED)
        names = tuple((c, Column(c)) for c in ("_id", "_study", "_patient"))
        found.append(Project(reports, (*names, ("_rule", Literal(n)), ("_said", said))))
    together: Relation = Union(tuple(found)) if len(found) > 1 else found[0]
    order = (Order(Column("_rule")), Order(Column("_study")))
    rank = Window(WindowFunction.ROW_NUMBER, None, (Column("_id"),), order)
    kept = tuple((c, Column(c)) for c in ("_id", "_study", "_patient", "_said"))
    return Where(Project(together, (*kept, ("_rank", rank))), call(Function.EQUAL, Column("_rank"), Literal(1)))


def _of_reader(rows: Relation, reader: str) -> Relation:
    mine = some(*(call(Function.EQUAL, Column(c), Literal(reader)) for c in ("reader", "reader_id")))
    lowest = AggregateFunction.LOWEST
    reports = Group(
        Where(Table("diagnostic_report"), mine),
        (("_report", Column("diagnostic_report_id")),),
        (
            ("_issued", Aggregate(lowest, Column("issued_time"))),
            ("_effective", Aggregate(lowest, Column("effective_date"))),
        ),
    )
    columns = (
        ("_prediction", Column("_id", "l")), ("_patient", Column("_patient", "l")), ("_study", Column("_study", "l")),
        ("_said", Column("_said", "l")), ("_issued", Column("_issued", "r")), ("_effective", Column("_effective", "r")),
    )  # fmt: skip
    on = call(Function.EQUAL, Column("_id", "l"), Column("_report", "r"))
    return Join(rows, reports, JoinKind.INNER, on, columns=columns)
