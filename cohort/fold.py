"""Folds delta files into the tables of the next generation. What is written is what changed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from bridge.errors import SinkUnavailable
from cohort import flatten, identity, report_links, study_modalities
from cohort.arrivals import choose, take
from cohort.delta import Parked
from cohort.keys import KEYS, key_sql
from cohort.kinds import BY_CODE
from cohort.schema import ViewTable, dicom_tables, view_tables
from cohort.stored import LINK, OWN_IDENTIFIER, OWN_REPORT_STUDY, ROWS_REVISION, columns_of
from cohort.tables import Tables

_OWN = {"patient_identifier": OWN_IDENTIFIER, "diagnostic_report_study": OWN_REPORT_STUDY}
_KNOWN_BY = {"patient": "patient_id", "imaging_study": "study_instance_uid"}

Line = Mapping[str, Any]


class Fold:
    """One fold into `tables`; `parked` are the lines and rows that could not be used."""

    def __init__(self, tables: Tables) -> None:
        self._tables, self.parked = tables, list[Parked]()
        with _files_can_be_made():
            self._rebuild_changed_schemas()

    def run(self, batch: Sequence[Path]) -> None:
        """Takes in a batch of delta files. Raises SinkUnavailable when a file cannot be made."""
        with _files_can_be_made():
            self._run(batch)

    def _run(self, batch: Sequence[Path]) -> None:
        newest = take(self._tables, batch)
        self.parked += newest.parked
        report_links.begin(self._tables)
        kinds = [
            kind
            for (kind,) in self._tables.db.execute(
                "SELECT DISTINCT type FROM arrived WHERE type IS NOT NULL ORDER BY 1"
            ).fetchall()
        ]
        for kind in sorted(kinds, key=lambda k: k != "Patient"):  # who is who comes first
            if choose(self._tables, kind, self.parked):
                self._tables.replace(f"resource_{kind}", "SELECT _hash, _key FROM won", "SELECT * FROM won")
                self._views(kind, "won")
        for table in dicom_tables():
            lines: list[Line] = [line for (name, _), line in sorted(newest.rows.items()) if name == table]
            if lines:
                self._rows(table, lines)
        report_links.finish(self._tables)

    def _views(self, kind: str, source: str, only: Collection[str] = ()) -> None:
        """The rows of every view over a type, of the resources in `source`; with `only`, of the views whose rows are in
        these tables. What patients say hangs together."""
        tables, views = self._tables, [n for n, t in view_tables().items() if t.view.resource == kind]
        views = [name for name in views if not only or kind == "Patient" or _OWN.get(name, name) in only]
        if not views:
            return
        tables.make("keys", f"SELECT _hash, _key FROM {source}")
        tables.show(flatten.SOURCE, f"SELECT * FROM {source}")
        flatten.begin(tables, kind)
        if kind == "Patient":
            self._people(source)
            return
        for view in views:
            self._fresh(view)
            rows = self._linked(view_tables()[view])
            self._replace(_OWN.get(view, view), study_modalities.own(rows) if view == "imaging_study" else rows)

    def _people(self, source: str) -> None:
        """Identifiers first: they tell which imaging patients are clinical ones. Whoever moved is made anew, too."""
        tables = self._tables
        self._fresh("patient_identifier")
        identity.relink(tables)
        if tables.count("SELECT count(*) FROM moved"):
            columns = "_hash, _key, origin, deleted, json"
            held = tables.scan("resource_Patient", columns.split(", "))
            tables.make("moved_people", f"SELECT {columns} FROM {held} SEMI JOIN moved USING (_hash, _key) "
                        "ANTI JOIN keys USING (_key) WHERE NOT deleted")  # fmt: skip
            tables.show(flatten.SOURCE, f"SELECT {columns} FROM {source} UNION ALL SELECT * FROM moved_people")
            tables.make("keys", "SELECT _hash, _key FROM keys UNION SELECT _hash, _key FROM moved")
            flatten.begin(tables, "Patient")
        self._fresh("patient")
        self._replace("patient", identity.PATIENTS)

    def _fresh(self, view: str) -> None:
        flatten.rows(self._tables, view, self.parked)
        if view in _KNOWN_BY:
            self._refuse_shared_keys(view, _KNOWN_BY[view])

    def _refuse_shared_keys(self, table: str, column: str) -> None:
        """Two people, or two studies, must never have one integer key (cohort.keys)."""
        key = KEYS[column]
        self._tables.make(
            "shared",
            f"WITH held AS (SELECT {key}, min({column}) AS id FROM {self._tables.scan(table, [column, key])} "
            f"SEMI JOIN fresh USING ({key}) GROUP BY {key}), "
            f"first AS (SELECT {key}, coalesce(min(held.id), min(fresh.{column})) AS id "
            f"FROM fresh LEFT JOIN held USING ({key}) GROUP BY {key}) "
            f"SELECT DISTINCT _key FROM fresh JOIN first USING ({key}) WHERE {column} <> id",
        )
        for (shared,) in self._tables.db.execute("SELECT _key FROM shared ORDER BY 1").fetchall():
            self.parked.append((shared, 0, f"table {table}: {key} is that of another {column}: give it another id"))
        self._tables.make("fresh", "SELECT * FROM fresh ANTI JOIN shared USING (_key)")

    def _linked(self, table: ViewTable) -> str:
        """The rows of `fresh`, those of imaging patients under the clinical patient they are."""
        fresh = self._tables.halves("fresh")
        if not any(c.name == "patient_id" for c in table.schema.columns):
            return f"SELECT * FROM {fresh}"
        linked = (
            "SELECT f.* REPLACE (coalesce(l.clinical_id, f.patient_id) AS patient_id, "
            f"{key_sql('coalesce(l.clinical_id, f.patient_id)')} AS patient_key), "
            "CASE WHEN _origin = 'bridge' THEN f.patient_id END AS _own_patient_id, "
            "CASE WHEN _origin = 'bridge' THEN f.patient_key END AS _own_patient_key "
            f"FROM {fresh} f LEFT JOIN {self._tables.scan(LINK, ['imaging_id', 'clinical_id'])} l "
            "ON f._origin = 'bridge' AND l.imaging_id = f.patient_id"
        )
        return f"SELECT *, patient_key AS subject_key FROM ({linked})"

    def _replace(self, table: str, rows: str) -> None:
        report_links.watch(self._tables, table, "keys", replaced=False)
        self._tables.replace(table, "SELECT _hash, _key FROM keys", rows)
        report_links.watch(self._tables, table, "keys", replaced=True)

    def _rows(self, table: str, lines: list[Line]) -> None:
        """Rows from DICOM headers: a study's as a whole."""
        tables = self._tables
        keys = ({"uid": line["key"], "_key": f"{table}/{line['key']}", "_revision": line["revision"]} for line in lines)
        tables.load("changed", keys, {"uid": "VARCHAR", "_key": "VARCHAR", "_revision": "BIGINT"})
        tables.make("changed", f"SELECT *, {key_sql('_key')} AS _hash FROM changed")
        held = tables.scan(ROWS_REVISION)
        tables.make("newer", f"SELECT _key FROM {held} o JOIN changed c USING (_hash, _key) "
                    "WHERE o._revision > c._revision")  # fmt: skip
        tables.make("rows_won", "SELECT * FROM changed ANTI JOIN newer USING (_key)")
        tables.replace(ROWS_REVISION, "SELECT _hash, _key FROM rows_won", "SELECT * FROM rows_won")
        columns = {"_key": "VARCHAR"} | {c.name: c.type for c in dicom_tables()[table].columns}
        rows = ({"_key": str(x["key"])} | row for x in lines for row in x["rows"] if isinstance(row, dict))
        tables.load("fresh", rows, columns)
        tables.make("keys", f"SELECT uid AS _key, {key_sql('uid')} AS _hash FROM rows_won")
        tables.make("fresh", f"SELECT *, {key_sql('_key')} AS _hash {_id_keys(columns)} FROM fresh")
        self._replace(table, "SELECT * FROM fresh SEMI JOIN keys USING (_key)")

    def _rebuild_changed_schemas(self) -> None:
        """A table whose columns are others than its files have: views anew from the resources, DICOM rows filled up,
        part by part."""
        tables = self._tables
        changed = {name for name, held in tables.held_columns.items() if held != list(_expected(name))}
        for table in changed & set(dicom_tables()):
            self._fill_up(table)
        for table, copy in BY_CODE.items():
            if table in changed:
                tables.layers[copy] = []  # what makes the table anew fills it
            elif copy in changed or (table in tables.held_columns and copy not in tables.held_columns):
                tables.layers[copy] = []
                for part in tables.parts(table):
                    tables.add(copy, f"SELECT * FROM {tables.scan(table)} WHERE {part}")
        views = {name: t for name, t in view_tables().items() if {name, _OWN.get(name, name)} & changed}
        anew = {_OWN.get(name, name) for name in views}
        for table in anew:
            tables.layers[table] = []
        kinds = {t.view.resource for t in views.values()} | ({"Patient"} if LINK in changed else set())
        for kind in sorted(kinds, key=lambda k: k != "Patient"):
            resources = f"resource_{kind}"
            for part in ["true"] if kind == "Patient" else tables.parts(resources):
                report_links.begin(tables)  # what was touched before is decided below
                tables.show("held", f"SELECT * FROM {tables.scan(resources)} WHERE NOT deleted AND {part}")
                self._views(kind, "held", anew)
        if kinds & {"Patient", "ImagingStudy", "DiagnosticReport"}:
            report_links.decide_all(tables)

    def _fill_up(self, table: str) -> None:
        """A table of DICOM columns, with NULL in the columns that its files do not have."""
        tables, held = self._tables, self._tables.held_columns[table]
        columns = ", ".join(
            f'"{c}"' if c in held else f'NULL::{kind} AS "{c}"' for c, kind in columns_of(table).items()
        )
        rows, parts = tables.scan(table, held), tables.parts(table)
        tables.layers[table] = []
        for part in parts:
            tables.add(table, f"SELECT {columns} FROM {rows} WHERE {part}")


@contextmanager
def _files_can_be_made() -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        raise SinkUnavailable(f"lake: a generation cannot be made ({type(error).__name__})") from None


def _expected(table: str) -> Iterable[str]:
    try:
        return columns_of(table)
    except KeyError:
        return ()


def _id_keys(columns: Mapping[str, str]) -> str:
    return "".join(f", {key_sql(name)} AS {made}" for name, made in KEYS.items() if name in columns)
