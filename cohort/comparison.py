"""Two cohorts beside each other: patients by age, gender, modality, scanner and condition. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from cohort.column_tests import age_decade
from cohort.event_rows import EventRows, Units
from cohort.expression import (
    Aggregate,
    AggregateFunction,
    Cast,
    Column,
    Expression,
    Function,
    Literal,
    Order,
    Scalar,
    Window,
    WindowFunction,
    call,
)
from cohort.question import Question
from cohort.question_rows import Compiler
from cohort.relation import Group, Join, JoinKind, Ordered, Project, Relation, Shared, Table, Union, Where
from cohort.returns import Columns

MEASURES = ("patients", "in_both", "age_decade", "gender", "modality", "scanner", "condition")
SHOWN_VALUES = 25
"""Values of one measure, those of most patients."""

UNKNOWN = Literal("unknown")


def compile_comparison(first: Question, second: Question, today: date, columns: Columns) -> Relation:
    """Rows: `measure` (of MEASURES), `value`, and how many patients of the `first` and of the `second` cohort have
    it. Modality and scanner are of the cohort's studies, where its unit belongs to one, else of all available studies
    of its patients; age is on the day asked."""
    names: list[str] = []
    asked = [Compiler(EventRows(today, columns), names).units(q) for q in (first, second)]
    cohorts = [Shared(side, u.relation) for side, u in zip(("first", "second"), asked, strict=True)]
    facts = [
        fact
        for cohort, units, other in zip(cohorts, asked, reversed(cohorts), strict=True)
        for fact in _facts(cohort, units, other, today)
    ]
    counts = tuple((side, _patients(side)) for side in ("first", "second"))
    by = (("measure", Column("measure")), ("value", Column("value")))
    counted = Group(Union(tuple(facts)), by, (*counts, ("_most", Aggregate(AggregateFunction.COUNT_ROWS))))
    order = (Order(Column("_most"), descending=True), Order(Column("value")))
    place = Window(WindowFunction.ROW_NUMBER, None, (Column("measure"),), order)
    names_ = ("measure", "value", "first", "second")
    ranked = Project(counted, (*((n, Column(n)) for n in names_), ("_place", place)))
    shown = Where(ranked, call(Function.AT_MOST, Column("_place"), Literal(SHOWN_VALUES)))
    ordered = Ordered(shown, (Order(Column("measure")), Order(Column("_place"))))
    return Project(ordered, tuple((n, Column(n)) for n in names_))


def _patients(side: str) -> Aggregate:
    of_side = call(Function.EQUAL, Column("side"), Literal(side))
    return Aggregate(AggregateFunction.COUNT_DISTINCT, Column("_patient"), condition=of_side)


def _facts(cohort: Shared, units: Units, other: Shared, today: date) -> Iterator[Relation]:
    """(side, measure, value, _patient), each once."""
    people = Project(cohort, (("_patient", Column("_patient")),), distinct=True)
    both = Join(people, other, JoinKind.SEMI, call(Function.EQUAL, Column("_patient", "l"), Column("_patient", "r")))
    yield _fact(cohort.name, "patients", people, Literal("all"))
    yield _fact(cohort.name, "in_both", both, Literal("all"))
    known = _joined(people, "_patient", "patient", "patient_key", "birth_date", "gender")
    decade = Cast(age_decade(Column("birth_date"), Literal(today)), Scalar.TEXT)
    yield _fact(cohort.name, "age_decade", known, call(Function.COALESCE, decade, UNKNOWN))
    yield _fact(cohort.name, "gender", known, call(Function.COALESCE, Column("gender"), UNKNOWN))
    studies = _studies(cohort, units, people)
    modalities = _joined(studies, "_study", "imaging_study_modality", "study_key", "modality")
    yield _fact(cohort.name, "modality", modalities, Column("modality"))
    named = ("manufacturer", "manufacturer_model_name")
    scanners = _joined(studies, "_study", "dicom_series", "study_key", *named)
    model = call(Function.COALESCE, Column(named[1]), Literal(""))
    scanner = call(Function.CONCAT, call(Function.COALESCE, Column("manufacturer"), UNKNOWN), Literal(" "), model)
    yield _fact(cohort.name, "scanner", scanners, scanner)
    conditions = _joined(people, "_patient", "condition", "patient_key", "code_display", "code")
    shown = call(Function.COALESCE, Column("code_display"), Column("code"), UNKNOWN)
    yield _fact(cohort.name, "condition", conditions, shown)


def _studies(cohort: Shared, units: Units, people: Relation) -> Relation:
    own = (("_patient", Column("_patient")), ("_study", Column("_study")))
    if "_study" in units.columns:
        return Project(cohort, own, distinct=True)
    available = Where(Table("imaging_study"), call(Function.EQUAL, Column("status"), Literal("available")))
    on = call(Function.EQUAL, Column("_patient", "l"), Column("patient_key", "r"))
    columns = (("_patient", Column("_patient", "l")), ("_study", Column("study_key", "r")))
    return Join(people, available, JoinKind.INNER, on, columns=columns)


def _joined(left: Relation, key: str, table: str, other: str, *wanted: str) -> Relation:
    on = call(Function.EQUAL, Column(key, "l"), Column(other, "r"))
    columns = (("_patient", Column("_patient", "l")), *((name, Column(name, "r")) for name in wanted))
    return Join(left, Table(table), JoinKind.INNER, on, columns=columns)


def _fact(side: str, measure: str, rows: Relation, value: Expression) -> Relation:
    columns: tuple[tuple[str, Expression], ...] = (
        ("side", Literal(side)), ("measure", Literal(measure)), ("value", value), ("_patient", Column("_patient")),
    )  # fmt: skip
    return Project(rows, columns, distinct=True)
