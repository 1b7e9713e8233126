"""A question → the relation of its answer: the columns asked for, in order, or counts. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

from cohort.column_tests import age_decade, age_in_years
from cohort.event_rows import EventRows, Units, row_key, rows_of
from cohort.expression import (
    Aggregate,
    AggregateFunction,
    Case,
    Cast,
    Column,
    Expression,
    Function,
    Literal,
    MakeList,
    Null,
    OneOf,
    Order,
    Scalar,
    call,
    every,
)
from cohort.kinds import KEYS, KINDS, above, key_column
from cohort.question import Event, Question
from cohort.question_rows import Compiler, equal, of_study
from cohort.relation import Group, Join, JoinKind, Limit, Ordered, Project, Relation, Shared, Table, Union
from cohort.returns import FOUND_UNITS, JSON, SHOWN_PEOPLE, TEXTS, Columns, Form, Returned, returned
from cohort.study_rows import Named, by_patient, disputed, of_few, of_studies, of_their_patients

PRESCRIBED_NOT = ("entered-in-error", "cancelled", "draft")
PRESCRIBED_INTENT = ("order", "original-order", "reflex-order", "filler-order", "instance-order")
REPORT_NOT = ("entered-in-error", "cancelled")
_REPORTS, _LINKS = "diagnostic_report", "diagnostic_report_study"
COUNTED = {"study": "studies", "series": "series"}
_REPORTED: Mapping[str, Expression] = {
    "reports": call(Function.COALESCE, Column("report_text", "r"), Column("conclusion", "r")),
    "report_ids": Column("diagnostic_report_id", "r"),
}
_SCALARS: Mapping[str, Scalar] = {
    "VARCHAR": Scalar.TEXT, "DATE": Scalar.DATE, "DOUBLE": Scalar.DOUBLE, "INTEGER": Scalar.INTEGER,
    "BIGINT": Scalar.INTEGER, "BOOLEAN": Scalar.BOOLEAN,
}  # fmt: skip


def compile_question(
    question: Question,
    today: date,
    columns: Columns,
    most: int | None = None,
    *,
    of_people: bool = False,
    as_json: bool = False,
) -> Relation:
    """The answer to a question asked on a day: one row for each unit (for each coding of it, where codes are among
    the columns) with the columns asked for, by patient and day; or the counts of each group. With `most`, so many rows
    at most, of the patients (series and acquisitions: of the studies) whose keys come first: files are in this order,
    so that little of them is read for what these rows show. With `of_people`, the rows of the people in SHOWN_PEOPLE,
    of the units in FOUND_UNITS: tables that the statement has around it. `as_json`: lists of texts are JSON texts, made
    once for each patient or study, however many rows show them."""
    carried = {kind: needed(question, kind, columns) for kind in (question.unit, *above(question.unit))}
    rows, study = EventRows(today, columns, carried), of_study(question)
    if of_people:
        units = Compiler(EventRows(today, columns)).units(question)
        first: Relation = Join(Table(FOUND_UNITS), Table(SHOWN_PEOPLE), JoinKind.SEMI, equal("_patient"))
        units = _whole(units, Shared("first_units", first), rows, study)
        units = units.of(Shared("units", units.relation))
    elif most is None or question.group_by:
        units = Compiler(rows).units(question)
        units = units.of(Shared("units", units.relation))
    else:
        units = Compiler(EventRows(today, columns)).units(question)
        order = tuple(Order(Column(c)) for c in _keys(units, columns))
        first = Limit(Ordered(_by_key(units, columns), order), most)
        units = _whole(units, Shared("first_units", first), rows, study)
    return _Answer(question, today, columns, units, most, as_json).relation()


def found_units(question: Question, today: date, columns: Columns) -> Relation:
    """All units a question finds, each once: what tells them apart, `_patient`, and `_person`, that patient's id."""
    return _by_key(Compiler(EventRows(today, columns)).units(question), columns, "_person")


def _keys(units: Units, columns: Columns) -> list[str]:
    """What tells units apart, first what the files of their table are in the order of: the patient, or the study where
    it does not name patients."""
    ordered = "_patient" if "patient_key" in columns[KINDS[units.unit].table] else "_study"
    return list(dict.fromkeys((ordered, "_patient", units.key)))


def _by_key(units: Units, columns: Columns, *more: str) -> Relation:
    """The units by their keys alone; those without an integer key with all their columns."""
    own = units.columns if units.key == "_id" else (*_keys(units, columns), *_of_index(units))
    return Project(units.relation, _same(*dict.fromkeys((*own, *more))), distinct=True)


def _of_index(units: Units) -> list[str]:
    return [c for c in units.columns if c.startswith("_index")]


def _whole(units: Units, first: Relation, rows: EventRows, study: Sequence[Event]) -> Units:
    """Units that were found by their keys alone, with all columns of these rows."""
    if units.key == "_id":
        return units.of(first)
    keys, whole = _keys(units, rows.columns), rows.rows(units.unit, (), unit=True, study=study)
    whole = whole.of(of_few(whole.relation, *((key, first, key) for key in dict.fromkeys((keys[0], units.key)))))
    columns = {c: Column(c, "l") for c in whole.columns} | {c: Column(c, "r") for c in _of_index(units)}
    joined = Join(whole.relation, first, JoinKind.INNER, every(*map(equal, keys)), columns=tuple(columns.items()))
    return Units(joined, units.unit, tuple(columns))


def result_columns(question: Question) -> tuple[str, ...]:
    """The names of the answer's columns, in order."""
    if question.columns:
        return question.columns
    return (*question.group_by, counted(question.unit), *(("patients",) if question.unit != "patient" else ()))


def texts_of(question: Question, columns: Columns, *, as_json: bool = False) -> tuple[tuple[str, str], ...]:
    """The columns of an answer of rows, and of each what it is: TEXTS, a list of texts; JSON, where the statement gives
    that as JSON; else "". () of an answer that counts."""

    def texts(wanted: Returned) -> str:
        if wanted.form is Form.PLAIN:
            return TEXTS if columns[KINDS[wanted.kind].table].get(wanted.column) == TEXTS else ""
        if wanted.form is Form.NAMED or (
            wanted.form is Form.LIST and columns[wanted.table][wanted.column] == "VARCHAR"
        ):
            return JSON if as_json else TEXTS
        return ""

    return tuple((name, texts(returned(question.unit, name, columns))) for name in question.columns)


def needed(question: Question, kind: str, columns: Columns) -> list[str]:
    """The columns of a kind that the answer needs."""
    wanted = [returned(question.unit, n, columns) for n in question.columns or question.group_by]
    found = [w.column for w in wanted if w.form is Form.PLAIN and w.kind == kind]
    names = {w.name for w in wanted}
    if kind == "patient" and any(n.startswith("age_") for n in names):
        found.append("birth_date")
    if kind == "study" and names & {"started_month", "started_year"}:
        found.append("started_date")
    return list(dict.fromkeys(found))


def counted(unit: str) -> str:
    """The name of the column that counts a unit.

    >>> counted("study"), counted("report")
    ('studies', 'reports')
    """
    return COUNTED.get(unit, f"{unit}s")


class _Answer:
    def __init__(
        self, question: Question, today: date, columns: Columns, units: Units, most: int | None, as_json: bool
    ) -> None:
        self._question, self._today, self._columns, self._units = question, today, columns, units
        self._most, self._as_json = most, as_json
        self._wanted = [returned(question.unit, n, columns) for n in question.columns or question.group_by]

    def relation(self) -> Relation:
        rows = self._beside()
        lists = [w for w in self._wanted if w.form in (Form.LIST, Form.NAMED)]
        values = [(w.name, self._value(w)) for w in self._wanted]
        if self._question.group_by:
            return self._first(self._counts(rows, values))
        kept = ("_id", "_person", *(("_day",) if "_day" in self._units.columns else ()))
        carried = {f"_{w.level}" for w in lists} | set(kept)
        carried |= {"_patient"} if "_study" in carried else set()
        plain = [(name, e) for (name, e), w in zip(values, self._wanted, strict=True) if w not in lists]
        rows = Project(rows, (*((c, Column(c)) for c in sorted(carried)), *plain), distinct=True)
        by = [Column("_person"), *([Column("_day")] if "_day" in kept else []), Column("_id")]
        by += [Column(name) for name, _ in plain] if KINDS[self._question.unit].codings else []
        order = tuple(map(Order, by))
        of = self._units.relation
        if self._most is not None and lists:
            rows = of = Shared("shown", Limit(Ordered(rows, order), self._most))
        for wanted in lists:
            rows = self._with_list(rows, wanted, of)
        return Project(self._first(Ordered(rows, order)), tuple((w.name, Column(w.name)) for w in self._wanted))

    def _first(self, rows: Ordered) -> Relation:
        return rows if self._most is None else Limit(rows, self._most)

    def _beside(self) -> Relation:
        """The units with the columns that are wanted of them and of what they belong to, named KIND.COLUMN."""
        rows, names = self._units.relation, list(self._units.columns)
        for kind in (self._question.unit, *above(self._question.unit)):
            wanted = needed(self._question, kind, self._columns)
            if all(f"{kind}.{c}" in names for c in wanted):
                continue
            columns = tuple((f"{kind}.{c}", Column(c, "r")) for c in wanted)
            rows = Join(rows, rows_of(kind), JoinKind.INNER, self._on(kind), columns=columns, extend=True)
            names += [name for name, _ in columns]
        return rows

    def _on(self, kind: str) -> Expression:
        column = key_column(kind)
        on = [call(Function.EQUAL, Column(row_key(kind), "l"), Column(column, "r"))]
        known = self._columns[KINDS[kind].table]
        for level, key in KEYS.items():  # said again, since files are in order of patients and studies
            if key in known and key != column and f"_{level}" in self._units.columns:
                on.append(call(Function.EQUAL, Column(f"_{level}", "l"), Column(key, "r")))
        return every(*on)

    def _value(self, wanted: Returned) -> Expression:
        born, started = Column("patient.birth_date"), Column("study.started_date")
        if wanted.form is Form.PLAIN:
            return Column(f"{wanted.kind}.{wanted.column}")
        if wanted.form is not Form.COMPUTED:
            return Column(wanted.name)
        return {
            "age_years": age_in_years(born, Literal(self._today)),
            "age_decade": age_decade(born, Literal(self._today)),
            "age_at_day_years": age_in_years(born, Column("_day")),
            "age_at_index_years": age_in_years(born, Column("_index_day")),
            "index_date": Column("_index_day"),
            "day": Column("_day"),
            "started_month": call(Function.MONTH_START, started),
            "started_year": call(Function.YEAR, started),
        }[wanted.name]

    def _counts(self, rows: Relation, values: Sequence[tuple[str, Expression]]) -> Ordered:
        unit = self._question.unit
        of = tuple((c, Column(c)) for c in dict.fromkeys((self._units.key, "_patient")))
        grouped = Project(rows, (*of, *values))
        by = tuple((name, Column(name)) for name, _ in values)
        counts = [(counted(unit), Aggregate(AggregateFunction.COUNT_DISTINCT, Column(self._units.key)))]
        if unit != "patient":
            counts.append(("patients", Aggregate(AggregateFunction.COUNT_DISTINCT, Column("_patient"))))
        return Ordered(Group(grouped, by, tuple(counts)), tuple(Order(e) for _, e in by))

    def _with_list(self, rows: Relation, wanted: Returned, of: Relation) -> Relation:
        """The rows with a list beside each; `of` are the units whose lists can be wanted."""
        key = f"_{wanted.level}"
        kept = ["_study", "_patient"] if key == "_study" else [key]
        if wanted.name == "endpoints" and self._question.unit == "study":
            kept.append("_id")
        facts, kind = self._facts(Project(of, _same(*kept), distinct=True), key, wanted)
        order = (Order(Column("_at")), Order(Column("_by"))) if wanted.name in _REPORTED else (
            Order(Column("_value")),)  # fmt: skip
        listed: Relation = Group(
            facts, (("_key", Column("_key")),), (("_list", Aggregate(AggregateFunction.LIST, Column("_value"), order)),)
        )
        none: Expression = MakeList((), kind)
        if self._as_json and kind is Scalar.TEXT:
            listed = Project(listed, (*_same("_key"), ("_list", call(Function.AS_JSON, Column("_list")))))
            none = Literal("[]")
        found = call(Function.COALESCE, Column("_list", "r"), none)
        on = call(Function.EQUAL, Column(key, "l"), Column("_key", "r"))
        return Join(rows, listed, JoinKind.LEFT, on, columns=((wanted.name, found),), extend=True)

    def _facts(self, of: Relation, key: str, wanted: Returned) -> tuple[Relation, Scalar]:
        """`_key`, `_value` (and the order `_at`, `_by`) of what is listed, each once."""
        if wanted.name in _REPORTED:
            return self._reports(of, key, wanted.name), Scalar.TEXT
        if wanted.form is Form.NAMED:
            return (self._endpoints(of) if wanted.name == "endpoints" else _medications(of, key)), Scalar.TEXT
        columns: Named = (("_key", Column(key, "l")), ("_value", Column(wanted.column, "r")))
        if by_patient(wanted.table, key, self._columns):
            facts = of_studies(of, wanted.table, columns)
        else:
            on = call(Function.EQUAL, Column(key, "l"), Column(wanted.key, "r"))
            facts = Join(of, Table(wanted.table), JoinKind.INNER, on, columns=columns)
        return _once(facts, "_key", "_value"), _SCALARS[self._columns[wanted.table][wanted.column]]

    def _reports(self, of: Relation, key: str, name: str) -> Relation:
        """Both lists of reports come of one scan."""
        wanted = [n for n in _REPORTED if any(w.name == n for w in self._wanted)]
        standing = call(Function.NOT, OneOf(Column("status", "r"), tuple(map(Literal, REPORT_NOT))))
        # no filter of the scan: it misleads DuckDB's join order
        values = tuple((n, Case(((standing, _REPORTED[n]),), Null(Scalar.TEXT))) for n in wanted)
        columns: Named = (("_key", Column(key if key == "_patient" else "_key", "l")), *values,
                          ("_at", Column("issued_time", "r")), ("_by", _REPORTED["report_ids"]))  # fmt: skip
        if key == "_patient":
            on = call(Function.EQUAL, Column(key, "l"), Column("patient_key", "r"))
            found: Relation = Join(of, Table(_REPORTS), JoinKind.INNER, on, columns=columns)
        else:
            found = self._linked_reports(of, columns)
        shared = Shared("unit_reports", _once(found, "_key", *wanted, "_at", "_by"))
        return Project(shared, (("_key", Column("_key")), ("_value", Column(name)), *_same("_at", "_by")))

    def _linked_reports(self, of: Relation, columns: Named) -> Relation:
        """Reports about studies, with these columns (of the link, `_key`, and the report)."""
        study = call(Function.EQUAL, Column("_study", "l"), Column("study_key", "r"))
        report = call(Function.EQUAL, Column("_report", "l"), Column("report_key", "r"))
        person = call(Function.EQUAL, Column("_patient", "l"), Column("patient_key", "r"))
        pair: Named = (("_key", Column("_study", "l")), ("_report", Column("report_key", "r")))
        whose: Named = (*pair, ("_patient", Column("_patient", "l")))

        def reports(linked: Relation, on: Expression, rows: Relation) -> Relation:
            return Join(linked, rows, JoinKind.INNER, on, columns=columns)

        def links(studies: Relation) -> Relation:
            return Join(studies, Table(_LINKS), JoinKind.INNER, study, columns=pair)

        if not by_patient(_LINKS, "_study", self._columns):
            return reports(links(of), report, Table(_REPORTS))
        theirs = Shared("unit_links", of_their_patients(of, _LINKS, whose))
        own = of_few(Table(_REPORTS), ("patient_key", theirs, "_patient"), ("report_key", theirs, "_report"))
        agreed = reports(theirs, every(report, person), own)
        return Union((agreed, reports(links(disputed(of)), report, Table(_REPORTS))))

    def _endpoints(self, of: Relation) -> Relation:
        study = call(Function.EQUAL, Column("_study", "l"), Column("study_key", "r"))
        uid = Column("_id", "l") if self._question.unit == "study" else Column("study_instance_uid", "r")
        columns: Named = (("_key", Column("_study", "l")), ("_uid", uid), ("_endpoint", Column("endpoint_id", "r")))
        if by_patient("imaging_endpoint", "_study", self._columns):
            held = of_studies(of, "imaging_endpoint", columns)
        else:
            held = Join(of, Table("imaging_endpoint"), JoinKind.INNER, study, columns=columns)
        place = call(Function.CONCAT, Column("address", "r"), Literal("/studies/"), Column("_uid", "l"))
        on = call(Function.EQUAL, Column("_endpoint", "l"), Column("endpoint_id", "r"))
        found = (("_key", Column("_key", "l")), ("_value", place))
        return _once(Join(held, Table("endpoint"), JoinKind.INNER, on, columns=found), "_key", "_value")


def _once(facts: Relation, *columns: str) -> Relation:
    return Project(facts, _same(*columns), distinct=True)


def _same(*columns: str) -> Named:
    return tuple((c, Column(c)) for c in columns)


def _medications(of: Relation, key: str) -> Relation:
    shown = call(Function.COALESCE, *(Column(f"medication_{c}", "r") for c in ("display", "text", "code")))
    day = call(Function.CONCAT, Literal(" ("), Cast(Column("authored_date", "r"), Scalar.TEXT), Literal(")"))
    value = call(Function.CONCAT, shown, call(Function.COALESCE, day, Literal("")))
    on = every(
        call(Function.EQUAL, Column(key, "l"), Column("patient_key", "r")),
        call(Function.NOT, OneOf(Column("status", "r"), tuple(map(Literal, PRESCRIBED_NOT)))),
        OneOf(Column("intent", "r"), tuple(map(Literal, PRESCRIBED_INTENT))),
    )
    columns = (("_key", Column(key, "l")), ("_value", value))
    return _once(Join(of, Table("medication_request"), JoinKind.INNER, on, columns=columns), "_key", "_value")
