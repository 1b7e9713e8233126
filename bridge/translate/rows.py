"""A merged study → rows of the lake's `dicom_*` tables: acquisition attributes that FHIR does not carry."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bridge.errors import InvalidDicomValue
from bridge.model import Row
from bridge.translate.dates import fhir_date
from bridge.translate.headers import Headers, PersonName, Value
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
            uid | {"series_instance_uid": s.series_instance_uid} | _instance_row(i, by_table.get("dicom_instance", ()))
            for s in study.series
            for i in s.instances
        ),
    }


def _series_row(series: Series, columns: Sequence[RowColumn]) -> Row:
    counts = {"series_instance_uid": series.series_instance_uid, "number_of_instances": len(series.instances)}
    return counts | _common(series.instances, columns)


def _common(instances: Sequence[Headers], columns: Sequence[RowColumn]) -> Row:
    row: Row = {}
    for column in columns:
        if not column.paths:
            continue
        read = _reader(column)
        values = [(v,) for h in instances if (v := read(h)) is not None]
        if values:
            row[column.column] = most_common(values)[0]
    return row


def _instance_row(headers: Headers, columns: Sequence[RowColumn]) -> Row:
    row: Row = {}
    for column in columns:
        if column.paths and (value := _reader(column)(headers)) is not None:
            row[column.column] = value
    return row


def _reader(column: RowColumn) -> Callable[[Headers], str | int | float | None]:
    found = _READERS.get(column)
    if found is None:
        paths = tuple(_steps(path) for path in column.paths)
        kind = column.type

        def found(headers: Headers) -> str | int | float | None:
            for steps, keyword, position in paths:
                holder = headers
                for step in steps:
                    holder = holder.item(step)
                if keyword in holder and (value := _typed(holder, keyword, position, kind)) is not None:
                    return value
            return None

        _READERS[column] = found
    return found


_READERS: dict[RowColumn, Callable[[Headers], str | int | float | None]] = {}


def _steps(path: str) -> tuple[tuple[str, ...], str, int | None]:
    *steps, last = path.split(".")
    match = _STEP.match(last)
    if match is None:
        raise ValueError(f"{path} is not a path of DICOM keywords")
    return tuple(steps), match.group(1), int(match.group(2)) if match.group(2) else None


def _typed(headers: Headers, keyword: str, position: int | None, kind: str) -> str | int | float | None:
    values = headers[keyword]
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
