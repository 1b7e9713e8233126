"""A question → the relation of the rows it is about: one for each unit, by semi joins over sets. Pure.

Rows have `_id`, `_patient`, `_day`, `_end` and what they belong to (`_study`, `_series`); with an index event also
`_index_day`, `_index_end`. What is said about the patient comes first: few patients, then only their rows are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from cohort.column_tests import related
from cohort.event_rows import EventRows, Units, links, row_key
from cohort.expression import (
    Aggregate,
    AggregateFunction,
    Column,
    Expression,
    Function,
    Literal,
    Order,
    Window,
    WindowFunction,
    call,
    every,
)
from cohort.kinds import KINDS, LINKED, above, scope
from cohort.question import Age, Combination, Criterion, Event, Question, steps
from cohort.relation import Group, Join, JoinKind, Project, Relation, Shared, Table, Union, Where

_KEYS = {"self": "_id", "study": "_study", "series": "_series", "patient": "_patient"}


@dataclass
class Compiler:
    """Compiles questions, from these rows of events."""

    rows: EventRows
    names: list[str] = field(default_factory=list)

    def units(self, question: Question) -> Units:
        """The rows the question is about."""
        criteria = steps(question)
        first = [c for c in criteria if about_patient(c, question.unit)]
        early = [c for c in first if not refers_to_index(c)]
        people = self.all(self.people(early), [c for c in early if not (isinstance(c, Age) or _plain(c, "patient"))])
        if question.index is not None:
            people = self._indexed(people, question.index)
        people = self.all(people, [c for c in first if refers_to_index(c)])
        if question.unit == "patient":
            return people
        own, study = _own(criteria, question.unit), of_study(question)
        left = [c for c in criteria if c not in first and c not in own and c not in study]
        return self.all(self.belonging(question.unit, own, people, study), left)

    def steps(self, question: Question) -> list[Units]:
        """All rows of the unit, then those left after the index event, then after each criterion."""
        people = self.people(())
        found = [self._shared(self.belonging(question.unit, (), people))]
        if question.index is not None:
            people = self._indexed(people, question.index)
            found.append(self._shared(self.belonging(question.unit, (), people)))
        for criterion in steps(question):
            found.append(self._shared(self.keep(found[-1], criterion)))
        return found

    def people(self, criteria: Iterable[Criterion]) -> Units:
        """The patients, with what is plainly said about them."""
        events = [c for c in criteria if isinstance(c, Event) and _plain(c, "patient")]
        people = self._having(self.rows.rows("patient", events, unit=True), events)
        return self.all(people, [c for c in criteria if isinstance(c, Age)])

    def belonging(self, unit: str, events: Sequence[Event], people: Units, study: Sequence[Event] = ()) -> Units:
        """Rows of the unit that pass what these events say of the row itself, and those of `study` of its study, and
        belong to these patients."""
        if unit == "patient":
            return people
        rows = self._having(self.rows.rows(unit, events, unit=True, study=study), events)
        on = equal("_patient")
        if "_index_day" not in people.columns:
            return rows.of(Join(rows.relation, people.relation, JoinKind.SEMI, on))
        both = (*rows.columns, "_index_day", "_index_end")
        columns = tuple((c, Column(c, "r" if c.startswith("_index") else "l")) for c in both)
        joined: Relation = Join(rows.relation, people.relation, JoinKind.INNER, on, columns=columns)
        if conditions := [c for e in events for c in related(e.relation, ("", ""))]:
            joined = Where(joined, every(*conditions))
        return Units(joined, unit, both)

    def all(self, units: Units, criteria: Iterable[Criterion]) -> Units:
        """Those for which all criteria hold."""
        for criterion in criteria:
            units = self.keep(units, criterion)
        return units

    def keep(self, units: Units, criterion: Criterion, kind: JoinKind = JoinKind.SEMI) -> Units:
        """Those for which the criterion holds; with an anti join those for which it does not."""
        if isinstance(criterion, Age):
            return self._aged(units, criterion, kind)
        if isinstance(criterion, Event):
            return self._with_event(units, criterion, kind)
        if criterion.kind == "not":
            return self.keep(units, criterion.of[0], JoinKind.ANTI if kind is JoinKind.SEMI else JoinKind.SEMI)
        if criterion.kind == "all" and kind is JoinKind.SEMI:
            return self.all(units, criterion.of)
        base = self._shared(units)
        return self._joined(base, self._combined(base, criterion), kind, equal(base.key))

    def _combined(self, base: Units, criterion: Combination) -> Relation:
        if criterion.kind == "all":
            return self.all(base, criterion.of).keys
        together = Union(tuple(self.keep(base, c).keys for c in criterion.of))
        if criterion.kind == "any":
            return together
        enough = call(Function.AT_LEAST, Aggregate(AggregateFunction.COUNT_ROWS), Literal(criterion.count))
        return Group(together, ((base.key, Column(base.key)),), (), enough)

    def _aged(self, units: Units, age: Age, kind: JoinKind) -> Units:
        direct = "_birth" in units.columns
        born = Column("_birth") if direct else Column("birth_date", "r")
        days = {"index": "_index_day", "unit": "_day"}
        day = Column(days[age.at], "" if direct else "l") if age.at in days else Literal(self.rows.today)
        yesterday = call(Function.DAYS_AFTER, day, Literal(-1))
        bounds = ((Function.AT_MOST, yesterday, age.older_than_years), (Function.AT_MOST, day, age.at_least_years),
                  (Function.GREATER, day, age.younger_than_years))  # fmt: skip
        conditions = [call(Function.AT_MOST, born, day)]
        conditions += [
            call(sign, born, call(Function.YEARS_BEFORE, on, Literal(years)))
            for sign, on, years in bounds
            if years is not None
        ]
        if not direct:
            of = call(Function.EQUAL, Column("_patient", "l"), Column("patient_key", "r"))
            return self._joined(units, Table("patient"), kind, every(of, *conditions))
        met = call(Function.COALESCE, every(*conditions), Literal(False))
        return units.of(Where(units.relation, met if kind is JoinKind.SEMI else call(Function.NOT, met)))

    def _with_event(self, units: Units, event: Event, kind: JoinKind) -> Units:
        whose = scope(units.unit, event.kind, event.of)
        if event.take:
            return self._taken(units, event, whose, kind)
        found = self._found(units, event, whose)
        on = every(_linked(units, whose), *related(event.relation))
        if event.times == 1:
            return self._joined(units, found, kind, on)
        base = self._shared(units)
        pairs = Join(base.relation, found, JoinKind.INNER, on, columns=_pair(base.key, row_key(event.kind)))
        enough = call(
            Function.AT_LEAST, Aggregate(AggregateFunction.COUNT_DISTINCT, Column("_id")), Literal(event.times)
        )
        many = Project(Group(pairs, (("_unit", Column("_unit")),), (), enough), ((base.key, Column("_unit")),))
        return self._joined(base, many, kind, equal(base.key))

    def _taken(self, units: Units, event: Event, whose: str, kind: JoinKind) -> Units:
        """Those whose first or last event it is, or passes `then`."""
        base = self._shared(units)
        around = "patient" if whose == "self" else whose
        found = self._found(base, event, around)
        to_unit = event.relation is not None and event.relation.to == "unit"
        part = Column(base.key if to_unit or (around == "study" and units.unit in LINKED) else _KEYS[around], "l")
        columns = (
            *_pair(base.key, "_id"),
            ("_part", part),
            ("_day", Column("_day", "r")),
            ("_then", Column("_then", "r")),
        )
        pairs = Join(base.relation, found, JoinKind.INNER,
                     every(_linked(units, around), *related(event.relation)), columns=columns)  # fmt: skip
        chosen: Relation = Where(
            _ranked(_dated(pairs), event.take, ("_unit", "_id", "_then"), "_part"), Column("_then")
        )
        on = call(Function.EQUAL, Column(base.key, "l"), Column("_unit", "r"))
        return self._joined(base, chosen, kind, every(on, equal("_id")) if whose == "self" else on)

    def _indexed(self, people: Units, event: Event) -> Units:
        rows = _dated(self._having(self.rows.rows(event.kind, [event]), [event]).relation)
        first = _ends_later(rows, event.take) if KINDS[event.kind].end else _ends_that_day(rows, event.take)
        columns = (*((c, Column(c, "l")) for c in people.columns),
                   ("_index_day", Column("_day", "r")), ("_index_end", Column("_end", "r")))  # fmt: skip
        joined = Join(people.relation, first, JoinKind.INNER, equal("_patient"), columns=columns)
        return Units(joined, "patient", tuple(name for name, _ in columns))

    def _found(self, units: Units, event: Event, whose: str) -> Relation:
        """The events, with the column they are joined to the units by."""
        through = units.unit in LINKED and whose == "study"
        rows = self.rows.rows(event.kind, [event], dated=_needs_day(event), of=whose)
        found = self._having(rows, [event])
        if not through:
            return found.relation
        columns = (*((c, Column(c, "l")) for c in found.columns), ("_linked", Column("_linked", "r")))
        named = links(units.unit)
        return Join(found.relation, named, JoinKind.INNER, equal("_study"), columns=columns)

    def facts(self, event: Event, whose: str) -> Relation:
        """The events, dated, with `_id`, `_day` and `_study` or `_patient`, whose they are; one with several codings
        may come several times."""
        return self._having(self.rows.rows(event.kind, [event], of=whose), [event]).relation

    def _having(self, units: Units, events: Sequence[Event]) -> Units:
        """Those of which holds what the events say they have."""
        return self.all(units, [e.having for e in events if e.having is not None])

    def _joined(self, units: Units, other: Relation, kind: JoinKind, on: Expression) -> Units:
        return units.of(Join(units.relation, other, kind, on))

    def _shared(self, units: Units) -> Units:
        if isinstance(units.relation, Shared):
            return units
        self.names.append(f"rows_{len(self.names)}")
        return units.of(Shared(self.names[-1], units.relation))


def of_study(question: Question) -> list[Event]:
    """What is said of the one study that each unit belongs to, by that study's own columns: its rows are joined anyway,
    for the patient and the day. Of several ImagingStudies of a study, those that pass are joined."""
    if "study" not in above(question.unit):
        return []
    return [
        c for c in steps(question)
        if isinstance(c, Event) and c.kind == "study" and _plain(c, "study") and not _needs_day(c)
        and c.times == 1 and scope(question.unit, "study", c.of) == "study"
    ]  # fmt: skip


def about_patient(criterion: Criterion, unit: str) -> bool:
    """Does it speak of the patient alone, whatever the row?"""
    if isinstance(criterion, Combination):
        return all(about_patient(c, unit) for c in criterion.of)
    if isinstance(criterion, Age):
        return criterion.at != "unit" or unit == "patient"
    of_unit = criterion.relation is not None and criterion.relation.to == "unit"
    return unit == "patient" or (scope(unit, criterion.kind, criterion.of) == "patient" and not of_unit)


def refers_to_index(criterion: Criterion) -> bool:
    """Does it need the index event's day?"""
    if isinstance(criterion, Combination):
        return any(map(refers_to_index, criterion.of))
    if isinstance(criterion, Age):
        return criterion.at == "index"
    return criterion.relation is not None and criterion.relation.to == "index"


def _plain(criterion: Criterion, unit: str) -> bool:
    """Does it speak of the row itself, by its own columns and days?"""
    return (
        isinstance(criterion, Event) and not criterion.take and criterion.relation is None
        and scope(unit, criterion.kind, criterion.of) == "self"
    )  # fmt: skip


def _own(criteria: Iterable[Criterion], unit: str) -> list[Event]:
    """What is said of the row itself, by its own columns and days, and by its time from the index event. Where a row is
    one coding of several, the second is said alone: it is about one coding, which need not be that of the others."""
    plain = [c for c in criteria if isinstance(c, Event) and _plain(c, unit)]
    timed = [
        c for c in criteria if isinstance(c, Event) and refers_to_index(c) and _plain(replace(c, relation=None), unit)
    ]
    if KINDS[unit].codings and len(timed) + len(plain) > 1:
        return plain
    return plain + timed


def _needs_day(event: Event) -> bool:
    return bool(event.period or event.relation or event.take or event.having)


def equal(column: str) -> Expression:
    """That a column is the same on both sides of a join."""
    return call(Function.EQUAL, Column(column, "l"), Column(column, "r"))


def _linked(units: Units, whose: str) -> Expression:
    if units.unit in LINKED and whose == "study":
        return call(Function.EQUAL, Column(units.key, "l"), Column("_linked", "r"))
    return equal(_KEYS[whose])


def _pair(left: str, right: str) -> tuple[tuple[str, Expression], ...]:
    return ("_unit", Column(left, "l")), ("_id", Column(right, "r"))


def _dated(relation: Relation) -> Relation:
    return Where(relation, call(Function.NOT, call(Function.IS_NULL, Column("_day"))))


def _ends_that_day(rows: Relation, take: str) -> Relation:
    """`_patient`, `_day` and `_end` of each patient's first or last of these rows: those of a day are alike."""
    edge = Aggregate(AggregateFunction.HIGHEST if take == "last" else AggregateFunction.LOWEST, Column("_day"))
    days = Group(rows, (("_patient", Column("_patient")),), (("_day", edge),))
    return Project(days, (("_patient", Column("_patient")), ("_day", Column("_day")), ("_end", Column("_day"))))


def _ends_later(rows: Relation, take: str) -> Relation:
    """The same of rows that last: of several on a day the one whose id comes first or last."""
    wanted = ("_patient", "_day", "_end")
    ranked = _ranked(rows, take, wanted, "_patient")
    return Project(ranked, tuple((c, Column(c)) for c in wanted), distinct=True)


def _ranked(relation: Relation, take: str, columns: Sequence[str], part: str) -> Relation:
    """The first or last of each part, by day and id; all codings of it."""
    order = tuple(Order(Column(c), descending=take == "last") for c in ("_day", "_id"))
    rank = Window(WindowFunction.RANK, None, (Column(part),), order)
    ranked = Project(relation, (*((c, Column(c)) for c in columns), ("_rank", rank)))
    return Where(ranked, call(Function.EQUAL, Column("_rank"), Literal(1)))
