"""The lake's tables: what the views and the table of DICOM columns say they hold. Shown by `cohort tables`."""

from __future__ import annotations

import base64
import binascii
import csv
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import lru_cache, partial
from importlib.resources import files
from typing import Any

import orjson

from cohort.keys import KEYS
from cohort.kinds import BY_CODE, DISPUTED, MODALITIES_TEXT, OF_STUDIES
from cohort.view import Row, View, ViewColumn

_SQL_TYPES = {
    "boolean": "BOOLEAN",
    "integer": "INTEGER",
    "positiveInt": "INTEGER",
    "unsignedInt": "INTEGER",
    "integer64": "BIGINT",
}
_PARTIAL = re.compile(r"^[0-9]{4}(-[0-9]{2}){0,2}")
_URN_OID = "urn:oid:"


@dataclass(frozen=True)
class Column:
    """One column: name, DuckDB type, what it holds, unit ("" = none), where it comes from."""

    name: str
    type: str
    description: str = ""
    unit: str = ""
    source: str = ""


@dataclass(frozen=True)
class TableSchema:
    """One table that questions see, with its columns in order."""

    name: str
    title: str
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class ViewTable:
    """A view with the types of its columns and how a row's values become those types."""

    definition: Mapping[str, Any]
    view: View
    schema: TableSchema
    convert: tuple[tuple[str, Callable[[Any], Any]], ...]

    def rows(self, resource: Mapping[str, Any]) -> list[Row]:
        """The table's rows of one resource. Raises InvalidQuery as View.rows does."""
        rows = self.view.rows(resource)
        for row in rows:
            for name, conversion in self.convert:
                if row[name] is not None:
                    row[name] = conversion(row[name])
        return rows


@lru_cache(maxsize=1)
def view_tables() -> Mapping[str, ViewTable]:
    """table → its view, for every ViewDefinition in mappings/views."""
    folder = files("mappings") / "views"
    loaded = [orjson.loads(f.read_bytes()) for f in folder.iterdir() if f.name.endswith(".json")]
    return {d["name"]: _view_table(d) for d in sorted(loaded, key=lambda d: str(d["name"]))}


@lru_cache(maxsize=1)
def dicom_tables() -> Mapping[str, TableSchema]:
    """table → schema, for mappings/codes/dicom_columns.csv."""
    titles = {
        "dicom_study": "One row for each study, from its DICOM headers",
        "dicom_series": "One row for each series, from its DICOM headers; values most of its instances have",
        "dicom_instance": "One row for each instance, from its DICOM header",
    }
    columns: dict[str, list[Column]] = {name: [] for name in titles}
    text = (files("mappings") / "codes" / "dicom_columns.csv").read_text("utf-8")
    for row in csv.DictReader(text.splitlines()):
        described = row["keyword"].split("|")[0] or "computed by the bridge"
        columns[row["table"]].append(Column(row["column"], row["type"], described, row["unit"], row["source"]))
    return {name: TableSchema(name, title, tuple(columns[name])) for name, title in titles.items()}


@lru_cache(maxsize=1)
def catalogue() -> Mapping[str, TableSchema]:
    """Every table that questions see, by name."""
    found = {name: table.schema for name, table in view_tables().items()}
    patient = found["patient"]
    origin = Column("origin", "VARCHAR", "clinical, or imaging when only the archives know the person", "", "the lake")
    found["patient"] = TableSchema(patient.name, patient.title, (*patient.columns, origin))
    study = found["imaging_study"]
    text = Column(
        MODALITIES_TEXT, "VARCHAR",
        "modalities with a backslash before and after each (\\CT\\PT\\): several times faster to test than the list",
        "", "DICOM (0008,0061)",
    )  # fmt: skip
    found["imaging_study"] = TableSchema(study.name, study.title, (*study.columns, text))
    links = found["diagnostic_report_study"]
    kept = tuple(c for c in links.columns if c.name != "accession_system")
    found["diagnostic_report_study"] = TableSchema(
        links.name,
        "One row for each study a report is about, resolved by reference, Study Instance UID or accession number",
        kept,
    )
    found[DISPUTED] = TableSchema(
        DISPUTED,
        "One row for each study of which ImagingStudies or reports name several patients, or none",
        (Column("study_instance_uid", "VARCHAR", "Study Instance UID", "", "the lake"),),
    )
    found |= {name: _of_study(found[name]) for name in OF_STUDIES}
    for name, copy in BY_CODE.items():
        found[copy] = TableSchema(copy, f"The rows of {name}, in the order of their codes", found[name].columns)
    return {name: _with_keys(table) for name, table in sorted((found | dict(dicom_tables())).items())}


def _of_study(table: TableSchema) -> TableSchema:
    """With `subject_key` in the place of the patient, whose columns would be ambiguous beside the study's."""
    subject = Column("subject_key", "BIGINT", "patient_key of whom its resource is about", "", "the lake")
    kept = tuple(c for c in table.columns if c.name != "patient_id")
    return TableSchema(table.name, table.title, (*kept, subject))


def _with_keys(table: TableSchema) -> TableSchema:
    names = [c.name for c in table.columns]
    keys = (
        Column(made, "BIGINT", f"{name} as a number: the same wherever the id is the same; for joins", "", "the lake")
        for name, made in KEYS.items()
        if name in names
    )
    return TableSchema(table.name, table.title, (*table.columns, *keys))


def _view_table(definition: Mapping[str, Any]) -> ViewTable:
    view = View(definition)
    types = dict(_ansi_types(definition.get("select", [])))
    resource = str(definition["resource"])
    columns = tuple(_column(c, types.get(c.name), resource) for c in view.columns)
    schema = TableSchema(str(definition["name"]), str(definition.get("title", "")), columns)
    conversions = ((c.name, _conversion(c, column.type)) for c, column in zip(view.columns, columns, strict=True))
    return ViewTable(definition, view, schema, tuple((name, made) for name, made in conversions if made is not None))


def _column(column: ViewColumn, ansi: str | None, resource: str) -> Column:
    kind = ansi or _SQL_TYPES.get(column.type, "VARCHAR")
    return Column(
        column.name, f"{kind}[]" if column.collection else kind, column.description, "", f"FHIR R4 {resource}"
    )


def _ansi_types(selects: Any) -> list[tuple[str, str]]:
    found = []
    for select in selects:
        for column in select.get("column", []):
            found += [(column["name"], t["value"]) for t in column.get("tag", []) if t["name"] == "ansi/type"]
        found += _ansi_types(select.get("select", [])) + _ansi_types(select.get("unionAll", []))
    return found


def _conversion(column: ViewColumn, kind: str) -> Callable[[Any], Any] | None:
    """What makes a value fit the column's type, or None of it: one malformed value must not stop a whole load."""
    known: dict[str, Callable[[Any], Any]] = {
        "DATE": first_day,
        "TIMESTAMP WITH TIME ZONE": first_moment,
        "DOUBLE": _number,
        "INTEGER": partial(_whole, limit=2**31),
        "BIGINT": partial(_whole, limit=2**63),
        "BOOLEAN": lambda value: value if isinstance(value, bool) else None,
        "VARCHAR[]": lambda value: [_text(item) for item in value],
    }
    if kind in known:
        return known[kind]
    if column.type == "base64Binary":
        return _decoded
    if column.name in ("study_instance_uid", "series_instance_uid"):
        return lambda value: str(value).removeprefix(_URN_OID)
    return _text if kind == "VARCHAR" else None


def first_day(value: Any) -> str | None:
    """A FHIR date or dateTime as YYYY-MM-DD, a partial one by its first day; None if it is none.

    >>> first_day("2024-03")
    '2024-03-01'
    """
    match = _PARTIAL.match(str(value))
    if match is None:
        return None
    day = match.group()
    day = {4: f"{day}-01-01", 7: f"{day}-01"}.get(len(day), day)
    try:
        return date.fromisoformat(day).isoformat()
    except ValueError:
        return None


def first_moment(value: Any) -> str | None:
    """A FHIR dateTime as a moment in UTC; one without a time or zone counts in UTC; None if it is none."""
    text = str(value)
    if "T" not in text:
        day = first_day(value)
        return f"{day}T00:00:00Z" if day else None
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
    except (ValueError, OverflowError):
        return None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(value: Any, limit: int) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and -limit <= value < limit else None


def _text(value: Any) -> str | None:
    return (value if isinstance(value, str) else orjson.dumps(value).decode()).replace("\0", "")


def _decoded(value: Any) -> str | None:
    try:
        return base64.b64decode(str(value), validate=True).decode("utf-8", "replace").replace("\0", "")
    except (binascii.Error, ValueError):
        return None
