"""What belongs to studies, found by patient as well: files are in the order of patients. Pure.

`subject_key` of the tables OF_STUDIES is the patient that their own resource names. It is the study's patient, but in
rows of the studies in `disputed_study`: those are found by study alone.
"""

from __future__ import annotations

from cohort.expression import (
    Aggregate,
    AggregateFunction,
    Column,
    Expression,
    Function,
    Literal,
    Order,
    call,
    every,
)
from cohort.kinds import DISPUTED, MODALITIES, MODALITIES_TEXT, OF_STUDIES
from cohort.relation import Group, Join, JoinKind, Project, Relation, Table, Union, Where
from cohort.returns import Columns

Named = tuple[tuple[str, Expression], ...]


def by_patient(table: str, key: str, columns: Columns) -> bool:
    """Whether rows of a table that belong to units by this key are found by patient as well."""
    return key == "_study" and table in OF_STUDIES and "subject_key" in columns[table]


def of_few(rows: Relation, *keys: tuple[str, Relation, str]) -> Relation:
    """Those of the rows whose integer keys are among those of few others: (column, the others, their column), the key
    that the rows are in the order of first. Said before a join by these keys together: DuckDB reads the other columns
    of only those rows that it finds by one key at a time. The union with nothing keeps it from joining first."""
    found = rows
    for column, few, key in keys:
        on = call(Function.EQUAL, Column(column, "l"), Column(key, "r"))
        found = Join(found, Project(few, ((key, Column(key)),), distinct=True), JoinKind.SEMI, on)
    return Union((found, Where(rows, Literal(False))))


def of_studies(studies: Relation, table: str, columns: Named) -> Relation:
    """Rows of one of OF_STUDIES that belong to studies (`_study`, `_patient`), with columns of both; those of disputed
    studies may come twice."""
    study = call(Function.EQUAL, Column("_study", "l"), Column("study_key", "r"))
    apart = Join(disputed(studies), Table(table), JoinKind.INNER, study, columns=columns)
    return Union((of_their_patients(studies, table, columns), apart))


def of_their_patients(studies: Relation, table: str, columns: Named) -> Relation:
    """The same rows, but those of disputed studies that name another patient."""
    study = call(Function.EQUAL, Column("_study", "l"), Column("study_key", "r"))
    person = call(Function.EQUAL, Column("_patient", "l"), Column("subject_key", "r"))
    theirs = of_few(Table(table), ("subject_key", studies, "_patient"))
    return Join(studies, theirs, JoinKind.INNER, every(study, person), columns=columns)


def with_modalities(columns: Columns) -> Relation:
    """The studies with the text of their modalities: a generation from before that column has them as a list."""
    if MODALITIES_TEXT in columns["imaging_study"]:
        return Table("imaging_study")
    own = tuple((c, Column(c)) for c in columns["imaging_study"])
    between = Literal("\\")
    text = call(Function.CONCAT, between, call(Function.JOIN_TEXTS, Column(MODALITIES), between), between)
    return Project(_with_list(columns), (*own, (MODALITIES_TEXT, text)))


def _with_list(columns: Columns) -> Relation:
    """The studies with the list: a generation from before that column has it in the rows of each study alone."""
    studies = Table("imaging_study")
    if MODALITIES in columns["imaging_study"]:
        return studies
    listed = Aggregate(AggregateFunction.LIST, Column("modality"), (Order(Column("modality")),))
    beside = Group(Table("imaging_study_modality"), (("study_key", Column("study_key")),), ((MODALITIES, listed),))
    on = call(Function.EQUAL, Column("study_key", "l"), Column("study_key", "r"))
    own = tuple((c, Column(c, "l")) for c in columns["imaging_study"])
    return Join(studies, beside, JoinKind.LEFT, on, columns=(*own, (MODALITIES, Column(MODALITIES, "r"))))


def disputed(studies: Relation) -> Relation:
    """Those of the studies about whose patient resources do not agree."""
    study = call(Function.EQUAL, Column("_study", "l"), Column("study_key", "r"))
    return Join(studies, Table(DISPUTED), JoinKind.SEMI, study)
