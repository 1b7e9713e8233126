"""What an attribute decides in the resources of a study: found by translating it without, and with other values. Pure.

A few instances stand for all. What an attribute says may be said by another one as well; then the study is the same
without it, and another value tells whether it is read at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bridge.errors import RejectedInput
from bridge.model import Resource, Row
from bridge.translate.headers import FLOAT_VRS, INTEGER_VRS, WANTED, Headers, PersonName, Value
from bridge.translate.occurrences import Path
from bridge.translate.study import Translator

MAXIMUM_SAMPLE = 24
PER_SERIES = 2

Values = tuple[Value, ...]
Change = Callable[[str, Values], Values]
_SNAPSHOT = "files"
_POSITION = re.compile(r"\[\d+\]$")


@dataclass(frozen=True)
class Effect:
    """What an attribute decided: FHIR elements, columns as `table.column`, and remarks there are because of it."""

    elements: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Made:
    resources: Mapping[str, tuple[Resource, ...]]
    rows: Mapping[str, tuple[Row, ...]]
    remarks: frozenset[tuple[str, str]]
    rejected: bool = False


class Effects:
    """The effects of the attributes of some instances of one study."""

    def __init__(self, translator: Translator, instances: Sequence[Headers]) -> None:
        self._translator, self._instances = translator, sample(instances)
        self._made = self._translated(self._instances)
        self.paths = frozenset(path for headers in self._instances for path in wanted_paths(headers))
        self._columns: dict[Path, list[tuple[str, str]]] = {}
        for column in translator.columns:
            for path in column.paths:
                key = tuple(_POSITION.sub("", path).split("."))
                self._columns.setdefault(key, []).append((column.table, column.column))

    def of(self, path: Path, elements: Iterable[str]) -> Effect:
        """What the attribute at a path decides, of these elements and of the columns that may have it.

        Without some attributes, UIDs above all, there is no study; then only another value tells.
        """
        candidates, columns = tuple(elements), self._columns.get(path, [])
        if not candidates and not columns:
            return Effect()
        without = self._translated([changed(h, path, _nothing) for h in self._instances])
        if not without.rejected:
            remarks = tuple(f"{k} {p}" for k, p in sorted(self._made.remarks - without.remarks) if k == path[-1])
            found = self._difference(without, candidates, columns)
            if found.elements or remarks:
                return Effect(found.elements, found.columns, remarks)
        other = self._translated([changed(h, path, another) for h in self._instances])
        found = self._difference(other, candidates, columns)
        carried = tuple(e for e in found.elements if any(self._at(self._made, e)))
        return Effect(carried, found.columns)

    def _translated(self, instances: Sequence[Headers]) -> _Made:
        uid = next((uid for h in instances if (uid := h.text("StudyInstanceUID"))), "")
        snapshots = {_SNAPSHOT: instances}
        try:
            result = self._translator.translate(uid, snapshots)
            rows = self._translator.rows(uid, snapshots)
        except RejectedInput:
            return _Made({}, {}, frozenset(), rejected=True)
        resources: dict[str, tuple[Resource, ...]] = {}
        for one in (*result.resources, *([result.patient] if result.patient else [])):
            resources[one["resourceType"]] = (*resources.get(one["resourceType"], ()), one)
        return _Made(resources, rows, frozenset((r.keyword, r.problem) for r in result.remarks))

    def _difference(self, other: _Made, elements: Sequence[str], columns: Sequence[tuple[str, str]]) -> Effect:
        if self._made.rejected or other.rejected:
            return Effect()
        return Effect(
            tuple(e for e in elements if self._at(other, e) != self._at(self._made, e)),
            tuple(f"{t}.{c}" for t, c in dict.fromkeys(columns) if _column(other, t, c) != _column(self._made, t, c)),
        )

    @staticmethod
    def _at(made: _Made, element: str) -> list[object]:
        kind, *steps = element.split(".")
        return list(values_at(made.resources.get(kind, ()), steps))


def values_at(holders: Iterable[Resource], steps: Sequence[str]) -> Iterator[object]:
    """Every value at a path below resources, through lists."""
    for holder in holders:
        value = holder.get(steps[0])
        inner = value if isinstance(value, list) else [] if value is None else [value]
        if len(steps) == 1:
            yield from inner
        else:
            yield from values_at(inner, steps[1:])


def sample(instances: Sequence[Headers]) -> tuple[Headers, ...]:
    """Some instances that stand for all: of every series some, and those that have an attribute no other one has."""
    kept: list[Headers] = []
    in_series: dict[str, int] = {}
    seen: set[Path] = set()
    for headers in instances:
        paths, series = set(wanted_paths(headers)), headers.text("SeriesInstanceUID")
        if in_series.get(series, 0) < PER_SERIES or not paths <= seen:
            kept.append(headers)
            in_series[series] = in_series.get(series, 0) + 1
            seen |= paths
        if len(kept) == MAXIMUM_SAMPLE:
            break
    return tuple(kept)


def wanted_paths(headers: Headers, outer: Path = ()) -> Iterator[Path]:
    """The path of every attribute that is kept, sequences themselves among them."""
    for keyword, values in headers.items():
        yield (*outer, keyword)
        for value in values:
            if isinstance(value, Headers):
                yield from wanted_paths(value, (*outer, keyword))


def changed(headers: Headers, path: Path, change: Change) -> Headers:
    """The headers with the attribute at a path changed, in every item that has it; without it for no values."""
    keyword, rest = path[0], path[1:]
    values = headers.get(keyword)
    if not values:
        return headers
    made = dict(headers)
    made[keyword] = (
        tuple(changed(v, rest, change) if isinstance(v, Headers) else v for v in values)
        if rest
        else change(keyword, values)
    )
    if not made[keyword]:
        del made[keyword]
    return Headers(made)


def _nothing(_keyword: str, _values: Values) -> Values:
    return ()


def another(keyword: str, values: Values) -> Values:
    """Other values that the attribute may have."""
    return tuple(_other(keyword, value) for value in values)


def _other(keyword: str, value: Value) -> Value:
    vr = WANTED[keyword]
    if isinstance(value, Headers):
        return value
    if vr in INTEGER_VRS | FLOAT_VRS:
        number = value + 1 if isinstance(value, int | float) and abs(value) < _LARGEST else 1
        return float(number) if vr in FLOAT_VRS else int(number)
    if vr == "UI":
        uid = str(value)
        return f"{uid}.9" if len(uid) < _LONGEST_UID else "2.25.9"
    if vr == "PN":
        first, second = (PersonName(f"{family}^Name") for family in ("Other", "Another"))
    else:
        one, two = _OTHER.get(keyword) or _OTHER_OF_VR.get(vr, ("OTHER", "ANOTHER"))
        return two if value == one else one
    return second if value == first else first


_LARGEST, _LONGEST_UID = 2**30, 62
_OTHER = {
    "Modality": ("CT", "MR"),
    "PatientSex": ("F", "M"),
    "Laterality": ("L", "R"),
    "ImageLaterality": ("L", "R"),
    "FrameLaterality": ("L", "R"),
    "MeasurementLaterality": ("L", "R"),
    "TimezoneOffsetFromUTC": ("+0300", "+0400"),
    "UniversalEntityIDType": ("ISO", "UUID"),
    "CodingSchemeDesignator": ("LN", "SCT"),
}
_OTHER_OF_VR = {
    "DA": ("20200101", "20210101"),
    "TM": ("080000", "090000"),
    "DT": ("20200101080000", "20210101080000"),
    "AS": ("041Y", "042Y"),
}


def _column(made: _Made, table: str, column: str) -> list[object]:
    return [row.get(column) for row in made.rows.get(table, ())]
