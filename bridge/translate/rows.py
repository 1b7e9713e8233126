"""A merged study → rows of the lake's `dicom_*` tables: acquisition attributes that FHIR does not carry."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from bridge.errors import InvalidDicomValue
from bridge.model import Row
from bridge.translate.dates import fhir_date
from bridge.translate.headers import Headers, PersonName, Value
from bridge.translate.headers import columns as held_by
from bridge.translate.merge import Series, Study, most_common

_STEP = re.compile(r"^(\w+)(?:\[(\d+)\])?$")


@dataclass(frozen=True)
class RowColumn:
    """One column of a `dicom_*` table (`mappings/codes/dicom_columns.csv`).

    Result  `paths` are tried in order; a path is DICOM keywords divided by dots through sequences (first item),
            `[n]` at its end takes one value of several; no path: the column is computed here.
    """

    table: str
    column: str
    type: str
    unit: str
    paths: tuple[str, ...]
    source: str


def rows(study: Study, columns: Sequence[RowColumn]) -> Mapping[str, tuple[Row, ...]]:
    """table → rows. Study and series columns take the value most of their instances have.

    Result  dicom_study one row, dicom_series one for each series, dicom_instance one for each instance; dates as
            YYYY-MM-DD, numbers in the column's unit, absent values left out
    """
    by_table: dict[str, list[RowColumn]] = {}
    for column in columns:
        by_table.setdefault(column.table, []).append(column)
    uid = {"study_instance_uid": study.study_instance_uid}
    instances = study.instances
    modalities = sorted({s.instances[0].text("Modality") for s in study.series if s.instances} - {""})
    study_row = uid | _common(instances, by_table.get("dicom_study", ())) | {
        "sources": ",".join(study.sources),
        "modalities": ",".join(modalities),
        "number_of_series": len(study.series),
        "number_of_instances": len(instances),
    }  # fmt: skip
    return {
        "dicom_study": (study_row,) if instances else (),
        "dicom_series": tuple(uid | _series_row(s, by_table.get("dicom_series", ())) for s in study.series),
        "dicom_instance": tuple(
            uid | {"series_instance_uid": s.series_instance_uid} | row
            for s in study.series
            for row in _instance_rows(s.instances, by_table.get("dicom_instance", ()))
        ),
    }


def _series_row(series: Series, columns: Sequence[RowColumn]) -> Row:
    counts = {"series_instance_uid": series.series_instance_uid, "number_of_instances": len(series.instances)}
    return counts | _common(series.instances, columns)


def _common(instances: Sequence[Headers], columns: Sequence[RowColumn]) -> Row:
    row: Row = {}
    for column in columns:
        values = [(v,) for v in _column(instances, column) if v is not None]
        if values:
            row[column.column] = most_common(values)[0]
    return row


def _instance_rows(instances: Sequence[Headers], columns: Sequence[RowColumn]) -> list[Row]:
    made: list[Row] = [{} for _ in instances]
    for column in columns:
        for row, value in zip(made, _column(instances, column), strict=True):
            if value is not None:
                row[column.column] = value
    return made


def _column(instances: Sequence[Headers], column: RowColumn) -> list[str | int | float | None]:
    """What each of the instances has in a column. What none of them has, as most attributes, costs one look at each."""
    found: list[str | int | float | None] = [None] * len(instances)
    for path in column.paths:
        steps, keyword, position = _steps(path)
        (held,) = held_by(instances, ((*steps, keyword)[0],))
        for n, values in enumerate(held):
            if not values or found[n] is not None:
                continue
            if steps:
                holder = instances[n]
                for step in steps:
                    holder = holder.item(step)
                values = holder.values_of(keyword)
            found[n] = _typed(values, keyword, position, column.type)
    return found


@cache
def _steps(path: str) -> tuple[tuple[str, ...], str, int | None]:
    *steps, last = path.split(".")
    match = _STEP.match(last)
    if match is None:
        raise ValueError(f"{path} is not a path of DICOM keywords")
    return tuple(steps), match.group(1), int(match.group(2)) if match.group(2) else None


def _typed(values: tuple[Value, ...], keyword: str, position: int | None, kind: str) -> str | int | float | None:
    if position is not None:
        values = values[position : position + 1]
    if not values:
        return None
    value = values[0]
    if kind == "DOUBLE":
        return float(value) if isinstance(value, int | float) else None
    if kind == "INTEGER":
        return value if isinstance(value, int) and abs(value) < 2**31 else None
    if kind == "DATE":
        return _date(str(value), keyword)
    return _text(values)


def _date(value: str, keyword: str) -> str | None:
    try:
        found = fhir_date(value, keyword)
    except InvalidDicomValue:
        return None
    return found if found and len(found) == 10 else None


def _text(values: tuple[Value, ...]) -> str | None:
    shown = [v.alphabetic if isinstance(v, PersonName) else str(v) for v in values if not isinstance(v, Headers)]
    return "\\".join(shown).strip("\\ ") or None
