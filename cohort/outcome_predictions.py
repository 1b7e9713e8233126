"""The predictions an outcome definition speaks of, with what is known of study, scanner and model. Pure.

A prediction is an imaging finding asserted by AI. What a reader has changed since is read as the program made it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from cohort.column_tests import age_decade, coded, tested
from cohort.event_rows import rows_of
from cohort.expression import (
    Aggregate,
    AggregateFunction,
    Case,
    Cast,
    Column,
    Expression,
    Function,
    Literal,
    Null,
    OneOf,
    Order,
    Scalar,
    Window,
    WindowFunction,
    call,
    every,
    some,
)
from cohort.outcome import Definition
from cohort.relation import Extend, Group, Join, JoinKind, Project, Relation, Table, Where

PRESENT, ABSENT = ("52101004", "373066001"), ("2667000", "373067005")
"""SNOMED CT: present, yes; absent, no."""

NO_IMAGES = ("SR", "PR", "KO", "SEG", "REG", "DOC", "AU", "RTSTRUCT", "RTPLAN", "RTDOSE", "RTRECORD")
"""Modalities of series that no scanner made."""

OLDEST = 90
"""From this age on all have one age band."""


SOME = "wanted_prediction"
"""The relation with the ids (`prediction`) of the predictions that are wanted, where it is not all of them."""


def predictions(
    definition: Definition, today: date, model: str, version: str | None, *, some: bool = False
) -> Relation:
    """One row for each prediction of a model (of all its versions for None; of all models for "") that was made by
    `today`, with COLUMNS: `_prediction`, `_patient`, `_study`, `_index` (its index date), `_number` (what it measured),
    and what a row of outcomes has that does not depend on facts. With `some`, those that SOME names."""
    found = _found(definition)
    if some:
        same = call(Function.EQUAL, Column("observation_id", "l"), Column("prediction", "r"))
        found = Join(found, Table(SOME), JoinKind.SEMI, same)
    rows = surrounded(_named(_with_device(_once(found)), model, version))
    rows = _beside(rows, _series(), "_series", ("own_modality", "own_manufacturer", "own_model_name"))
    made = _columns(_scored(rows, definition), definition)
    return Where(made, call(Function.AT_MOST, _day("predicted_at"), Literal(today)))


def surrounded(rows: Relation) -> Relation:
    """Rows with `_patient` and `_study`, and what is known of these: `patient_id`, `birth_date`, `gender`,
    `study_instance_uid`, `started_date`, `site`, and the study's first series of images."""
    rows = _beside(rows, _people(), "_patient", ("patient_id", "birth_date", "gender"), JoinKind.INNER)
    rows = _beside(rows, _studies(), "_study", ("study_instance_uid", "started_date"))
    rows = _beside(rows, _sites(), "_study", ("site",))
    return _beside(rows, _first_series(), "_study", ("first_modality", "first_manufacturer", "first_model_name"))


_KEPT = (
    "observation_id", "patient_key", "status", "asserted_by_clinician", "effective_time", "issued_time", "code_system",
    "code", "value_number", "value_code_system", "value_code", "value_boolean", "confidence_percent",
    "confidence_fraction", "made_time", "made_value_code", "made_value_number", "made_confidence_percent", "device",
    "device_id", "series_key",
)  # fmt: skip


def _found(definition: Definition) -> Relation:
    """Rows of the findings asserted by AI, each with one study it is about; without those that never were."""
    event = definition.finding
    in_error = call(Function.EQUAL, Column("status"), Literal("entered-in-error"))
    reviewed = call(Function.NOT, call(Function.IS_NULL, Column("made_time")))
    stands = some(call(Function.NOT, OneOf(Column("status"), _texts("entered-in-error", "cancelled"))),
                  every(in_error, reviewed))  # fmt: skip
    conditions = [call(Function.EQUAL, Column("asserted_by_ai"), Literal(True)), stands]
    conditions += [coded(event.codes, ("code_system", "code"))] if event.codes else []
    rows = Where(rows_of("finding"), every(*conditions, *(tested(t, "finding") for t in event.where)))
    kept = tuple((c, Column(c, "l")) for c in _KEPT)
    by_id = call(Function.EQUAL, Column("imaging_study_id", "l"), Column("imaging_study_id", "r"))
    studies = (("named", Column("study_key", "l")), ("referred", Column("study_key", "r")))
    referred = Join(rows, Table("imaging_study"), JoinKind.LEFT, by_id, columns=(*kept, *studies))
    study = call(Function.COALESCE, Column("referred"), Column("named"))
    return Project(referred, (*((c, Column(c)) for c in _KEPT), ("study_key", study)))


def _once(rows: Relation) -> Relation:
    """Each finding once: of several studies, the one with the lowest key."""
    named = {"observation_id": "_prediction", "patient_key": "_patient", "study_key": "_study", "series_key": "_series"}
    flags = {"asserted_by_clinician", "value_boolean"}
    by = (("_prediction", Column("observation_id")),)
    columns = [
        (named.get(c, c), Aggregate(AggregateFunction.ANY, Column(c)) if c in flags else _lowest(c))
        for c in (*_KEPT[1:], "study_key")
    ]
    return Group(rows, by, tuple(columns))


def _with_device(rows: Relation) -> Relation:
    """`model` and `model_version`: of the Device, else the model as the finding shows it."""
    on = call(Function.EQUAL, Column("device_id", "l"), Column("device_id", "r"))
    of = Group(Table("device"), (("device_id", Column("device_id")),),
               (("model", _lowest("model")), ("version", _lowest("version"))))  # fmt: skip
    kept = tuple((n, Column(n, "l")) for n in names_of(rows))
    model = call(Function.COALESCE, Column("model", "r"), Column("device", "l"))
    return Join(
        rows, of, JoinKind.LEFT, on, columns=(*kept, ("model", model), ("model_version", Column("version", "r")))
    )


def _named(rows: Relation, model: str, version: str | None) -> Relation:
    conditions = [call(Function.EQUAL, Column("model"), Literal(model))] if model else []
    if version is not None:
        conditions.append(call(Function.EQUAL, Column("model_version"), Literal(version)))
    return Where(rows, every(*conditions)) if conditions else rows


def _people() -> Relation:
    return _of("patient", ("patient_key", "_key"), patient_id="patient_id", birth_date="birth_date", gender="gender")


def _studies() -> Relation:
    names = {"study_instance_uid": "study_instance_uid", "started_date": "started_date"}
    return _grouped(Table("imaging_study"), "study_key", names)


def _sites() -> Relation:
    return _grouped(Table("dicom_study"), "study_key", {"institution_name": "site"})


def _series() -> Relation:
    return _grouped(Table("dicom_series"), "series_key", {c: f"own_{n}" for c, n in _SCANNER.items()})


_SCANNER = {"modality": "modality", "manufacturer": "manufacturer", "manufacturer_model_name": "model_name"}


def _first_series() -> Relation:
    """Of each study the first series that a scanner made: by its number, then by its UID."""
    made = call(Function.NOT, call(Function.COALESCE, OneOf(Column("modality"), _texts(*NO_IMAGES)), Literal(False)))
    order = (Order(Column("series_number")), Order(Column("series_instance_uid")))
    rank = Window(WindowFunction.ROW_NUMBER, None, (Column("study_key"),), order)
    names = tuple((f"first_{n}", Column(c)) for c, n in _SCANNER.items())
    ranked = Project(Where(Table("dicom_series"), made), (("_key", Column("study_key")), *names, ("_rank", rank)))
    return Where(ranked, call(Function.EQUAL, Column("_rank"), Literal(1)))


def _of(table: str, key: tuple[str, str], **names: str) -> Relation:
    return Project(Table(table), ((key[1], Column(key[0])), *((n, Column(c)) for n, c in names.items())))


def _grouped(table: Relation, key: str, names: Mapping[str, str]) -> Relation:
    return Group(table, (("_key", Column(key)),), tuple((made, _lowest(column)) for column, made in names.items()))


def _beside(
    rows: Relation, other: Relation, key: str, columns: tuple[str, ...], kind: JoinKind = JoinKind.LEFT
) -> Relation:
    """The rows with these columns of another relation with the same key."""
    on = call(Function.EQUAL, Column(key, "l"), Column("_key", "r"))
    kept = tuple((n, Column(n, "l")) for n in names_of(rows))
    return Join(rows, other, kind, on, columns=(*kept, *((c, Column(c, "r")) for c in columns)))


def names_of(rows: Relation) -> tuple[str, ...]:
    """The columns of a relation made here."""
    if isinstance(rows, Where):
        return names_of(rows.source)
    if isinstance(rows, Extend):
        return (*names_of(rows.source), *(n for n, _ in rows.columns))
    if isinstance(rows, Group):
        return tuple(n for n, _ in (*rows.by, *rows.columns))
    return tuple(n for n, _ in rows.columns) if isinstance(rows, Join | Project) else ()


def _scored(rows: Relation, definition: Definition) -> Relation:
    """`_answer`: what the program itself said is there; `score`: its probability that the finding is there, 0 to 1."""
    reviewed = call(Function.NOT, call(Function.IS_NULL, Column("made_time")))
    code = Case(((reviewed, Column("made_value_code")),), Column("value_code"))
    fraction = call(Function.COALESCE, call(Function.DIVIDE, Column("confidence_percent"), Literal(100.0)),
                    Column("confidence_fraction"))  # fmt: skip
    made = call(Function.DIVIDE, Column("made_confidence_percent"), Literal(100.0))
    certain = Case(((reviewed, made),), fraction)
    rows = Extend(rows, (("_reviewed", reviewed), ("_code", code), ("_certain", certain)))
    answered = Extend(rows, (("_answer", _answer(definition)),))
    score: Expression = Column("_certain")
    if definition.certain_of_answer:
        absent = call(Function.EQUAL, Column("_answer"), Literal(False))
        score = Case(((absent, call(Function.SUBTRACT, Literal(1.0), score)),), score)
    within = every(call(Function.AT_LEAST, score, Literal(0.0)), call(Function.AT_MOST, score, Literal(1.0)))
    return Extend(answered, (("_score", Case(((within, score),), Null(Scalar.DOUBLE))),))


def _answer(definition: Definition) -> Expression:
    branches: list[tuple[Expression, Expression]] = []
    if definition.positive:
        codes = _texts(*(code for _, code in definition.positive))
        known = call(Function.NOT, call(Function.IS_NULL, Column("_code")))
        branches.append((known, OneOf(Column("_code"), codes)))
    branches.append((OneOf(Column("_code"), _texts(*PRESENT)), Literal(True)))
    branches.append((OneOf(Column("_code"), _texts(*ABSENT)), Literal(False)))
    return Case(tuple(branches), Column("value_boolean"))


def _columns(rows: Relation, definition: Definition) -> Relation:
    made_at = call(Function.COALESCE, Column("made_time"), Column("issued_time"), Column("effective_time"))
    rows = Extend(rows, (("_made_at", made_at),))
    seen = call(Function.COALESCE, Column("started_date"), _day("effective_time"), _day("issued_time"))
    rows = Extend(rows, (("_index", seen if definition.index == "study" else _day("_made_at")),))
    rows = Extend(rows, (("_decade", age_decade(Column("birth_date"), Column("_index"))),))
    score = Column("_score")
    over = call(Function.AT_LEAST, score, Literal(definition.threshold))
    predicted = Case(((call(Function.NOT, call(Function.IS_NULL, score)), over),), Column("_answer"))
    number = Case(((Column("_reviewed"), Column("made_value_number")),), Column("value_number"))
    made: dict[str, Expression] = {
        "_number": number, "_person": Column("patient_id"), "finding_system": Column("code_system"),
        "finding_code": Column("code"), "score": score, "threshold": Literal(definition.threshold),
        "predicted": predicted, "predicted_at": Column("_made_at"), "_review": _review(),
        "_review_at": Column("issued_time"), "age_band": age_band(), "sex": Column("gender"),
    }  # fmt: skip
    made |= {n: call(Function.COALESCE, Column(f"own_{n}"), Column(f"first_{n}")) for n in _SCANNER.values()}
    return Project(rows, tuple((n, made.get(n, Column(n))) for n in COLUMNS))


COLUMNS = (
    "_prediction", "_patient", "_study", "_index", "_number", "_person", "study_instance_uid", "model", "model_version",
    "finding_system", "finding_code", "score", "threshold", "predicted", "predicted_at", "_review", "_review_at",
    "modality", "manufacturer", "model_name", "site", "age_band", "sex",
)  # fmt: skip
"""The columns of a prediction."""


def _review() -> Expression:
    """Whether the reader who reviewed the result itself agreed with the program; NULL: nobody has."""
    rejected = call(Function.EQUAL, Column("status"), Literal("entered-in-error"))
    changed = every(Column("_reviewed"), call(Function.UNEQUAL, Column("made_value_code"), Column("value_code")))
    branches = ((some(rejected, changed), Literal(False)), (Column("asserted_by_clinician"), Literal(True)))
    return Case(branches, Null(Scalar.BOOLEAN))


def age_band() -> Expression:
    """The true age on the index date by tens (`_decade`), such as 60-69; 90+ for the oldest."""
    decade = Column("_decade")
    last = Cast(call(Function.ADD, decade, Literal(9)), Scalar.TEXT)
    old = call(Function.AT_LEAST, decade, Literal(OLDEST))
    return Case(((old, Literal(f"{OLDEST}+")),), call(Function.CONCAT, Cast(decade, Scalar.TEXT), Literal("-"), last))


def midnight(day: Expression) -> Expression:
    """The moment at which a day begins in UTC, whatever the engine's zone."""
    return Cast(call(Function.CONCAT, Cast(day, Scalar.TEXT), Literal(" 00:00:00+00:00")), Scalar.MOMENT)


def _day(column: str) -> Expression:
    return call(Function.DAY, Column(column))


def _lowest(column: str) -> Aggregate:
    return Aggregate(AggregateFunction.LOWEST, Column(column))


def _texts(*values: str) -> tuple[Expression, ...]:
    return tuple(Literal(v) for v in values)
