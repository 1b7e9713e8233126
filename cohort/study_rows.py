"""What belongs to studies, found by patient as well: files are in the order of patients. Pure.

`subject_key` of the tables OF_STUDIES is the patient that their own resource names. It is the study's patient, but in
rows of the studies in `disputed_study`: those are found by study alone.
"""

from __future__ import annotations

from cohort.expression import Column, Expression, Function, call, every
from cohort.kinds import DISPUTED, OF_STUDIES
from cohort.relation import Join, JoinKind, Project, Relation, Table, Union, Where
from cohort.returns import Columns

Named = tuple[tuple[str, Expression], ...]


def by_patient(table: str, key: str, columns: Columns) -> bool:
    """Whether rows of a table that belong to units by this key are found by patient as well."""
    return key == "_study" and table in OF_STUDIES and "subject_key" in columns[table]


def of_studies(studies: Relation, table: str, columns: Named) -> Relation:
    """Rows of one of OF_STUDIES that belong to studies (`_study`, `_patient`), with columns of both; those of disputed
    studies may come twice."""
    study = call(Function.EQUAL, Column("_study", "l"), Column("study_key", "r"))
    person = call(Function.EQUAL, Column("_patient", "l"), Column("subject_key", "r"))
    agreed = Join(studies, Table(table), JoinKind.INNER, every(study, person), columns=columns)
    return Union((agreed, Join(disputed(studies), Table(table), JoinKind.INNER, study, columns=columns)))


def with_patient(table: str, conditions: Expression) -> Relation:
    """`study_key` and `subject_key`, the study's patient, of the rows of one of OF_STUDIES that meet conditions: for a
    disputed study, every patient that it has. Rows may come twice."""
    rows = Where(Table(table), conditions)
    agreed = Project(rows, (("study_key", Column("study_key")), ("subject_key", Column("subject_key"))))
    study = call(Function.EQUAL, Column("study_key", "l"), Column("study_key", "r"))
    studies = Join(Table("imaging_study"), Table(DISPUTED), JoinKind.SEMI, study)
    whose = (("study_key", Column("study_key", "l")), ("subject_key", Column("patient_key", "l")))
    return Union((agreed, Join(studies, rows, JoinKind.INNER, study, columns=whose)))


def disputed(studies: Relation) -> Relation:
    """Those of the studies about whose patient resources do not agree."""
    study = call(Function.EQUAL, Column("_study", "l"), Column("study_key", "r"))
    return Join(studies, Table(DISPUTED), JoinKind.SEMI, study)
