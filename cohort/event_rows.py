"""Rows of one kind, found by what a question says about them alone, with uniform columns. Pure.

`_id`, `_patient`, `_day`, `_end` (NEVER where it has not ended), and what they belong to: `_study`, `_series`; of
reports `_report`, their key; of patients `_birth`; of units `_person`, the patient's id. All that is belonged to is an
integer key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date

from cohort.column_tests import coded, in_period, is_modality, tested
from cohort.expression import Column, Expression, Function, Literal, call, every
from cohort.kinds import ABOUT_STUDY, BY_CODE, DERIVED, KEYS, KINDS, LINKED, key_column
from cohort.question import Event
from cohort.relation import Join, JoinKind, Project, Relation, Table, Union, Where
from cohort.returns import Columns
from cohort.study_rows import with_modalities

_STUDIES, _LINKS = Table("imaging_study"), "diagnostic_report_study"
NEVER = Literal(date(9999, 12, 31))
"""The end of what has not ended."""


def row_key(kind: str) -> str:
    """The column of rows of a kind that tells them apart: an integer key where there is one."""
    return f"_{kind}" if kind in KEYS else "_id"


@dataclass(frozen=True)
class Units:
    """Rows of one kind, each once, with the names of their columns."""

    relation: Relation
    unit: str
    columns: tuple[str, ...]

    def of(self, relation: Relation) -> Units:
        """Some of these rows."""
        return replace(self, relation=relation)

    @property
    def key(self) -> str:
        """The column that tells them apart."""
        return row_key(self.unit)

    @property
    def keys(self) -> Relation:
        """Their `key` alone."""
        return Project(self.relation, ((self.key, Column(self.key)),), distinct=True)


@dataclass
class EventRows:
    """Makes them, over tables with these columns, for questions asked on a day. `carried`: kind → columns that units
    shall have, named KIND.COLUMN, where their own rows and joins give them."""

    today: date
    columns: Columns
    carried: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def rows(
        self,
        kind: str,
        events: Sequence[Event],
        *,
        unit: bool = False,
        dated: bool = True,
        of: str = "patient",
        study: Sequence[Event] = (),
    ) -> Units:
        """Rows of a kind that pass everything the events say about them alone. Without `dated`, and about a study or
        series, the patient and the day may be missing. For a `unit` each comes once; else one with several codings
        comes several times. Of a series or an acquisition, `study` is what is said about its study alone."""
        if kind == "report" and of == "study" and not (dated or unit) and self._links_say(events):
            return self._linked_reports(events)
        beside = _beside(kind, dated=dated, of=of)
        if beside and study:
            beside = replace(beside, table=self.filtered("study", study))
        relation = self.filtered(kind, events)
        columns = self._columns(kind, beside, of=of)
        if unit:
            person = ("_person", Column("patient_id", "r" if "series" in KINDS[kind].levels else "l" if beside else ""))
            columns = (*columns, person, *self._carried(kind, beside))
        if any(e.take for e in events):
            then = every(*(tested(t, kind) for e in events for t in e.then))
            own = tuple((c, Column(c)) for c in self.columns[KINDS[kind].table])
            relation = Project(relation, (*own, ("_then", then)))
            columns = (*columns, ("_then", Column("_then", "l" if beside else "")))
        if beside:
            on = call(Function.EQUAL, Column(beside.left, "l"), Column(beside.right, "r"))
            relation = Join(relation, beside.table, JoinKind.INNER, on, columns=columns)
        if not beside or (unit and KINDS[kind].codings):
            kept = tuple((n, Column(n)) for n, _ in columns) if beside else columns
            relation = Project(relation, kept, distinct=unit and KINDS[kind].codings)
        units = Units(relation, kind, tuple(name for name, _ in columns))
        for event in events:
            if event.period is not None:
                units = units.of(Where(units.relation, in_period(event.period, self.today)))
        return units

    def _links_say(self, events: Sequence[Event]) -> bool:
        """Whether the rows of the links say all that is asked of the reports."""
        asked = {t.column for e in events for t in e.where}
        return asked <= set(ABOUT_STUDY) & self.columns[_LINKS].keys() and not any(e.codes or e.take for e in events)

    def _linked_reports(self, events: Sequence[Event]) -> Units:
        tests = every(*(tested(t, "report") for e in events for t in e.where))
        columns = (("_id", Column(KINDS["report"].id)), ("_study", Column("study_key")),
                   ("_report", Column("report_key")), ("_patient", Column("subject_key")))  # fmt: skip
        rows: Relation = Where(Table(_LINKS), tests)
        return Units(Project(rows, columns), "report", tuple(name for name, _ in columns))

    def _columns(self, kind: str, beside: _Beside | None, *, of: str) -> tuple[tuple[str, Expression], ...]:
        spec, left = KINDS[kind], "l" if beside else ""
        columns: list[tuple[str, Expression]] = [("_id", Column(spec.id, left))]
        if "series" in spec.levels:
            columns += [
                ("_study", Column("study_key", left)),
                ("_series", Column("series_key", left)),
            ]
        elif kind in LINKED and beside:
            columns.append(("_study", Column("_study", "r")))
        elif kind == "study":
            columns.append(("_study", Column("study_key")))
        if "series" not in spec.levels or beside:
            columns.append(("_patient", Column("patient_key", "r" if "series" in spec.levels else left)))
            columns += self._days(kind, left)
        if kind == "report":
            columns.append(("_report", Column("report_key", left)))
        if kind == "patient":
            columns.append(("_birth", Column("birth_date")))
        return tuple(columns)

    def _carried(self, kind: str, beside: _Beside | None) -> tuple[tuple[str, Expression], ...]:
        """The columns that shall be carried and are at hand."""
        left = () if KINDS[kind].codings else self.carried.get(kind, ())
        right = self.carried.get("study", ()) if beside and "series" in KINDS[kind].levels else ()
        return (
            *((f"{kind}.{c}", Column(c, "l" if beside else "")) for c in left),
            *((f"study.{c}", Column(c, "r")) for c in right),
        )

    def filtered(self, kind: str, events: Sequence[Event]) -> Relation:
        """The kind's rows that have the codes and pass the tests, one for each coding."""
        spec = KINDS[kind]
        conditions = [coded(e.codes, spec.codes) for e in events if e.codes is not None and spec.codes]
        conditions += [tested(t, kind) for e in events for t in e.where]
        if any(e.codes for e in events) and BY_CODE.get(spec.table) in self.columns:
            return Where(Table(BY_CODE[spec.table]), every(*conditions))
        about = any(is_modality(kind, t) for e in events for t in (*e.where, *e.then))
        rows = with_modalities(self.columns) if about else rows_of(kind)
        return Where(rows, every(*conditions)) if conditions else rows

    def _days(self, kind: str, left: str) -> list[tuple[str, Expression]]:
        """`_day` and `_end`: NULL where nothing says a day."""
        spec = KINDS[kind]
        if not spec.day:
            return []
        types = self.columns[spec.table]

        def first(names: Sequence[str]) -> Expression:
            return call(Function.COALESCE, *(_as_day(n, types.get(n), left) for n in names))

        day = first(spec.day)
        return [("_day", day), ("_end", call(Function.COALESCE, first(spec.end), NEVER) if spec.end else day)]


def _as_day(column: str, kind: str | None, left: str) -> Expression:
    """A column as a day; one that the table does not have is the study's beside it."""
    if kind is None:
        return Column(column, "r")
    return call(Function.DAY, Column(column, left)) if kind.startswith("TIMESTAMP") else Column(column, left)


@dataclass(frozen=True)
class _Beside:
    """What knows what the kind's own table does not, and the columns of both that are the same."""

    table: Relation
    left: str
    right: str


def _beside(kind: str, *, dated: bool, of: str) -> _Beside | None:
    if kind in ("series", "acquisition") and (dated or of == "patient"):
        return _Beside(_STUDIES, "study_key", "study_key")
    if kind in LINKED and of == "study":
        return _Beside(links(kind), key_column(kind), "_linked")
    return None


def rows_of(kind: str) -> Relation:
    """The kind's rows, as its table has them: a finding's where they name a study, an implant's with its device's."""
    table = Table(KINDS[kind].table)
    if kind == "implant":
        return _implants(table)
    if kind != "finding":
        return table
    absent = [call(Function.IS_NULL, Column(c)) for c in ("imaging_study_id", "study_instance_uid")]
    return Where(table, call(Function.NOT, every(*absent)))


_IMPLANT = ("procedure_id", "patient_id", "status", "performed_date", "performed_start_date", "action_system",
            "action_code", "device_id", "device_display", "patient_key")  # fmt: skip


def _implants(table: Table) -> Relation:
    on = call(Function.EQUAL, Column("device_id", "l"), Column("device_id", "r"))
    columns = (*((c, Column(c, "l")) for c in _IMPLANT), *((c, Column(c, "r")) for c in DERIVED["implant"]))
    return Join(table, Table("device"), JoinKind.LEFT, on, columns=columns)


def links(kind: str) -> Relation:
    """`_linked` (a row's integer key, or its id where it has none) and `_study`, for each study a report or a finding
    is about."""
    key = key_column(kind)
    if kind == "report":
        return _pairs(Table(_LINKS), Column(key), Column("study_key"))
    findings = Table(KINDS[kind].table)
    same = call(Function.EQUAL, Column("imaging_study_id", "l"), Column("imaging_study_id", "r"))
    pair = (("_linked", Column(key, "l")), ("_study", Column("study_key", "r")))
    named = Where(findings, call(Function.NOT, call(Function.IS_NULL, Column("study_key"))))
    by_reference = Join(findings, _STUDIES, JoinKind.INNER, same, columns=pair)
    return Union((by_reference, _pairs(named, Column(key), Column("study_key"))))


def _pairs(relation: Relation, linked: Column, study: Column) -> Relation:
    return Project(relation, (("_linked", linked), ("_study", study)))
