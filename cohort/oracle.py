"""The judge of questions: evaluates one row by row in plain Python, slowly. Shares no code with the compiler. Pure.

For small data: tests hold DuckDB and Spark to it.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from cohort.kinds import DERIVED, KINDS, LEVELS, above, scope
from cohort.question import Age, Criterion, Event, Period, Question, Test, TimeRelation
from cohort.returns import Columns, Form, Returned, returned

Tables = Mapping[str, Sequence[Mapping[str, Any]]]
"""table → rows: column → value; dates as date, moments as aware datetime, absence as None."""

_NEVER = date(9999, 12, 31)


@dataclass(frozen=True)
class _Row:
    """One row of a kind, with the table's rows for it (one for each coding)."""

    kind: str
    id: Any
    patient: Any
    day: date | None
    end: date | None
    studies: frozenset[Any]
    series: Any
    cells: Sequence[Mapping[str, Any]]


@dataclass
class _World:
    tables: Tables
    today: date
    rows: dict[str, list[_Row]] = field(default_factory=dict)

    def of(self, kind: str) -> list[_Row]:
        if kind not in self.rows:
            self.rows[kind] = list(self._made(kind))
        return self.rows[kind]

    def _made(self, kind: str) -> Iterable[_Row]:
        spec = KINDS[kind]
        by_id: dict[Any, list[Mapping[str, Any]]] = {}
        for cells in self.tables.get(spec.table, ()):
            if kind == "finding" and cells["imaging_study_id"] is None and cells["study_instance_uid"] is None:
                continue
            if kind == "implant":
                cells = self._implanted(cells)
            by_id.setdefault(cells[spec.id], []).append(cells)
        for key, found in by_id.items():
            if (row := self._row(kind, key, found)) is not None:
                yield row

    def _row(self, kind: str, key: Any, cells: Sequence[Mapping[str, Any]]) -> _Row | None:
        first, spec = cells[0], KINDS[kind]
        studies: list[Mapping[str, Any]] = []
        if kind in ("series", "acquisition"):
            studies = self._studies("study_instance_uid", first["study_instance_uid"])
            if not studies:
                return None
        uids = [s["study_instance_uid"] for s in studies]
        if kind == "finding":
            named = [s for c in cells for s in self._studies("imaging_study_id", c["imaging_study_id"])]
            uids = [row["study_instance_uid"] for row in (*named, *cells)]
        if kind == "study":
            uids = [first["study_instance_uid"]]
        if kind == "report":
            links = self.tables.get("diagnostic_report_study", ())
            uids = [link["study_instance_uid"] for link in links if link["diagnostic_report_id"] == key]
        with_study = {**(studies[0] if studies else {}), **first}
        day = _first_day(with_study, spec.day)
        end = (_first_day(with_study, spec.end) or _NEVER) if spec.end else day
        series = first.get("series_instance_uid") if "series" in spec.levels else None
        return _Row(kind, key, with_study["patient_id"], day, end, frozenset(u for u in uids if u), series, cells)

    def _implanted(self, cells: Mapping[str, Any]) -> Mapping[str, Any]:
        known = cells["device_id"]
        same = [d for d in self.tables.get("device", ()) if known is not None and d["device_id"] == known]
        return {c: same[0][c] if same else None for c in DERIVED["implant"]} | dict(cells)

    def _studies(self, column: str, value: Any) -> list[Mapping[str, Any]]:
        return [s for s in self.tables.get("imaging_study", ()) if value is not None and s[column] == value]

    def modalities(self, study: Any) -> set[Any]:
        rows = self.tables.get("imaging_study_modality", ())
        return {m["modality"] for m in rows if m["study_instance_uid"] == study}

    def patients(self) -> set[Any]:
        return {p["patient_id"] for p in self.tables.get("patient", ())}

    def birth(self, patient: Any) -> date | None:
        return next((p["birth_date"] for p in self.tables["patient"] if p["patient_id"] == patient), None)


def units(question: Question, tables: Tables, today: date) -> list[tuple[Any, Any]]:
    """(id, patient) of the rows the question is about, in order of patient, day, id."""
    return [(row.id, row.patient) for row, _ in _chosen(question, _World(tables, today))]


def answer(question: Question, tables: Tables, today: date, columns: Columns) -> list[tuple[Any, ...]]:
    """The rows of the answer, as `cohort.question_answer` defines them."""
    world = _World(tables, today)
    chosen = _chosen(question, world)
    wanted = [returned(question.unit, name, columns) for name in question.columns or question.group_by]
    if question.columns:
        return [values for row, index in chosen for values in _listed(world, row, index, wanted)]
    groups: dict[tuple[Any, ...], tuple[set[Any], set[Any]]] = {}
    for row, index in chosen:
        for values in _listed(world, row, index, wanted):
            units_, patients = groups.setdefault(values, (set(), set()))
            units_.add(row.id)
            patients.add(row.patient)
    counts = {v: (len(u), len(p)) if question.unit != "patient" else (len(u),) for v, (u, p) in groups.items()}
    return [(*values, *counts[values]) for values in sorted(groups, key=_nulls_last)]


Happened = tuple[Any, Any, date | None, frozenset[Any], Sequence[Mapping[str, Any]]]


def events(event: Event, tables: Tables, today: date) -> list[Happened]:
    """(id, patient, day, studies, the table's rows that fit) of what an event speaks of, without its relation to
    others."""
    world = _World(tables, today)
    found = [row for row in world.of(event.kind) if _matches(event, row, None, None, world)]
    return [(r.id, r.patient, r.day, r.studies, list(_coded(event, r, world))) for r in found]


def _chosen(question: Question, world: _World) -> list[tuple[_Row, _Row | None]]:
    known, found = world.patients(), []
    for row in world.of(question.unit):
        index = _index(question.index, row.patient, world) if question.index else None
        if row.patient in known and (index or not question.index) and _holds(question.criteria, row, index, world):
            found.append((row, index))
    return sorted(found, key=lambda pair: _nulls_last((pair[0].patient, pair[0].day, pair[0].id)))


def _index(event: Event, patient: Any, world: _World) -> _Row | None:
    rows = [r for r in world.of(event.kind) if r.patient == patient and _matches(event, r, None, None, world)]
    return _take(rows, event.take)


def _take(rows: Iterable[_Row], take: str) -> _Row | None:
    dated = sorted((r for r in rows if r.day is not None), key=lambda r: (r.day, r.id))
    return (dated[0] if take == "first" else dated[-1]) if dated else None


def _holds(criterion: Criterion, row: _Row, index: _Row | None, world: _World) -> bool:
    if isinstance(criterion, Age):
        return _aged(criterion, row, index, world)
    if isinstance(criterion, Event):
        return _happened(criterion, row, index, world)
    held = [_holds(c, row, index, world) for c in criterion.of]
    if criterion.kind == "not":
        return not held[0]
    return sum(held) >= {"all": len(held), "any": 1}.get(criterion.kind, criterion.count)


def _aged(age: Age, row: _Row, index: _Row | None, world: _World) -> bool:
    born = world.birth(row.patient)
    day = {"today": world.today, "index": index.day if index else None, "unit": row.day}[age.at]
    if born is None or day is None or born > day:
        return False
    return (
        (age.older_than_years is None or _years(born, day - timedelta(days=1)) >= age.older_than_years)
        and (age.at_least_years is None or _years(born, day) >= age.at_least_years)
        and (age.younger_than_years is None or _years(born, day) < age.younger_than_years)
    )


def _happened(event: Event, row: _Row, index: _Row | None, world: _World) -> bool:
    whose = scope(row.kind, event.kind, event.of)
    if not event.take:
        found = [e for e in world.of(event.kind) if _belongs(e, row, whose)]
        return sum(_matches(event, e, row, index, world) for e in found) >= event.times
    around = "patient" if whose == "self" else whose
    among = [e for e in world.of(event.kind) if _belongs(e, row, around)]
    one = _take([e for e in among if _matches(event, e, row, index, world)], event.take)
    if one is None or (whose == "self" and one.id != row.id):
        return False
    return any(_passes(event.then, cells, one, world) for cells in _coded(event, one, world))


def _belongs(event: _Row, row: _Row, whose: str) -> bool:
    if whose == "self":
        return bool(event.id == row.id)
    if whose == "study":
        return bool(event.studies & row.studies)
    return bool(event.series == row.series) if whose == "series" else bool(event.patient == row.patient)


def _matches(event: Event, found: _Row, row: _Row | None, index: _Row | None, world: _World) -> bool:
    if not list(_coded(event, found, world)):
        return False
    if event.period is not None and not _within(event.period, found.day, world.today):
        return False
    if event.relation is not None:
        other = index if event.relation.to == "index" else row
        if other is None or not _related(event.relation, found, other):
            return False
    return event.having is None or _holds(event.having, found, None, world)


def _coded(event: Event, found: _Row, world: _World) -> Iterable[Mapping[str, Any]]:
    """The table's rows that have one of the codes and pass the tests."""
    columns = KINDS[event.kind].codes
    for cells in found.cells:
        right = event.codes is None or columns is None or (cells[columns[0]], cells[columns[1]]) in event.codes
        if right and _passes(event.where, cells, found, world):
            yield cells


def _passes(tests: Iterable[Test], cells: Mapping[str, Any], row: _Row, world: _World) -> bool:
    return all(_passed(test, cells, row, world) for test in tests)


def _passed(test: Test, cells: Mapping[str, Any], row: _Row, world: _World) -> bool:
    if row.kind == "study" and test.column == "modality":
        has = bool(world.modalities(row.id) & set(test.values))
        return has if test.test == "is" else not has
    value = cells.get(test.column)
    if row.kind == "report" and test.column == "text":
        value = f"{cells.get('report_text') or ''} {cells.get('conclusion') or ''}"
    wanted: Any = test.values[0]
    if test.test == "present":
        return bool(wanted) is (value is not None)
    if test.test == "not":
        return value not in test.values
    if value is None:
        return False
    if test.test == "is":
        return value in test.values
    if test.test in ("contains", "starts_with"):
        text, parts = value.lower(), [str(v).lower() for v in test.values]
        return any(part in text if test.test == "contains" else text.startswith(part) for part in parts)
    compared: Mapping[str, Any] = {
        "at_least": operator.ge, "at_most": operator.le, "more_than": operator.gt, "less_than": operator.lt,
    }  # fmt: skip
    return bool(compared[test.test](value, wanted))


def _within(period: Period, day: date | None, today: date) -> bool:
    if day is None:
        return False
    starts = [period.start] if period.start else []
    if period.within_years is not None:
        starts.append(_years_before(today, period.within_years))
    if period.within_days is not None:
        starts.append(today - timedelta(days=period.within_days))
    ends = [period.until] if period.until else []
    ends += [today] if period.within_years is not None or period.within_days is not None else []
    ends += [today - timedelta(days=period.at_least_days_ago)] if period.at_least_days_ago is not None else []
    return all(day >= start for start in starts) and all(day <= end for end in ends)


def _related(relation: TimeRelation, event: _Row, other: _Row) -> bool:
    if event.day is None or other.day is None or event.end is None or other.end is None:
        return False
    apart = (event.day - other.day).days
    window = relation.before_days is not None or relation.after_days is not None
    return (
        (not window or -(relation.before_days or 0) <= apart <= (relation.after_days or 0))
        and (not relation.before or apart < 0)
        and (not relation.after or apart > 0)
        and (not relation.overlaps or (event.day <= other.end and event.end >= other.day))
    )


def _listed(world: _World, row: _Row, index: _Row | None, wanted: Sequence[Returned]) -> list[tuple[Any, ...]]:
    """The answer's rows of one unit: one for each different combination of its codings' columns."""
    rows = [tuple(_value(world, row, index, cells, w) for w in wanted) for cells in row.cells]
    lists = [n for n, w in enumerate(wanted) if w.form in (Form.LIST, Form.NAMED)]
    different: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for values in rows:
        own = (tuple(v) if isinstance(v, list) else v for n, v in enumerate(values) if n not in lists)
        different.setdefault(tuple(own), values)
    return [different[key] for key in sorted(different, key=_nulls_last)]


def _value(world: _World, row: _Row, index: _Row | None, cells: Mapping[str, Any], wanted: Returned) -> Any:
    if wanted.form is Form.PLAIN:
        return cells.get(wanted.column) if wanted.kind == row.kind else _beside(world, row, wanted)
    if wanted.form is Form.COMPUTED:
        return _computed(world, row, index, wanted.name)
    key = {
        "id": row.id,
        "report": row.id,
        "series": row.series,
        "study": next(iter(row.studies), None),
        "patient": row.patient,
    }
    if wanted.form is Form.NAMED:
        return _named(world, wanted, key[wanted.level])
    by = LEVELS.get(wanted.level, wanted.key)  # by the id itself, where the others go by its integer key
    found = [r[wanted.column] for r in world.tables.get(wanted.table, ()) if r[by] == key[wanted.level]]
    return sorted({v for v in found if v is not None})


def _beside(world: _World, row: _Row, wanted: Returned) -> Any:
    key = {"patient": row.patient, "series": row.series, "study": next(iter(row.studies), None)}[wanted.kind]
    column = LEVELS[wanted.kind]
    return next((r[wanted.column] for r in world.tables[KINDS[wanted.kind].table] if r[column] == key), None)


def _computed(world: _World, row: _Row, index: _Row | None, name: str) -> Any:
    born, indexed = world.birth(row.patient), index.day if index else None
    study = Returned("", Form.PLAIN, kind="study", column="started_date")
    started = row.day if row.kind == "study" else _beside(world, row, study) if "study" in above(row.kind) else None
    days = {"age_years": world.today, "age_decade": world.today, "age_at_day_years": row.day,
            "age_at_index_years": indexed}  # fmt: skip
    if name in days:
        day = days[name]
        age = _years(born, day) if born and day and born <= day else None
        return age - age % 10 if name == "age_decade" and age is not None else age
    return {"index_date": indexed, "day": row.day, "started_month": started and started.replace(day=1),
            "started_year": started and started.year}[name]  # fmt: skip


def _named(world: _World, wanted: Returned, key: Any) -> list[str]:
    tables = world.tables
    if wanted.name == "medications":
        return sorted(
            {
                shown + (f" ({m['authored_date']})" if m["authored_date"] else "")
                for m in tables.get("medication_request", ())
                if m["patient_id"] == key and m["status"] and m["intent"]
                and m["status"] not in ("entered-in-error", "cancelled", "draft")
                and (m["intent"] == "order" or m["intent"].endswith("-order"))
                and (shown := m["medication_display"] or m["medication_text"] or m["medication_code"])
            }
        )  # fmt: skip
    if wanted.name == "endpoints":
        held = {e["endpoint_id"] for e in tables.get("imaging_endpoint", ()) if e["study_instance_uid"] == key}
        return sorted(f"{e['address']}/studies/{key}" for e in tables.get("endpoint", ()) if e["endpoint_id"] in held)
    reports = [r for r in world.of("report") if key in r.studies or (wanted.level == "patient" and r.patient == key)]
    standing = [r.cells[0] for r in reports if r.cells[0]["status"] not in (None, "entered-in-error", "cancelled")]
    standing.sort(key=lambda c: _nulls_last((c["issued_time"], c["diagnostic_report_id"])))
    if wanted.name == "report_ids":
        return [c["diagnostic_report_id"] for c in standing]
    texts = [c["report_text"] if c["report_text"] is not None else c["conclusion"] for c in standing]
    return [t for t in texts if t is not None]


def _first_day(cells: Mapping[str, Any], names: Sequence[str]) -> date | None:
    for name in names:
        value = cells.get(name)
        if isinstance(value, datetime):
            return value.astimezone(UTC).date()
        if value is not None:
            return value  # type: ignore[no-any-return]
    return None


def _years(born: date, day: date) -> int:
    return day.year - born.year - ((day.month, day.day) < (born.month, born.day))


def _years_before(day: date, years: int) -> date:
    try:
        return day.replace(year=day.year - years)
    except ValueError:
        return day.replace(year=day.year - years, day=28)


def _nulls_last(values: Sequence[Any]) -> tuple[tuple[bool, Any], ...]:
    return tuple((v is None, 0 if v is None else v) for v in values)
