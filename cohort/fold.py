"""Folds delta files into the tables of the next generation. What is written is what changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import orjson

from bridge.errors import InvalidQuery, SinkUnavailable
from cohort import identity, report_links
from cohort.delta import Parked, read
from cohort.keys import KEYS, key_sql
from cohort.schema import ViewTable, dicom_tables, view_tables
from cohort.stored import LINK, OWN_IDENTIFIER, OWN_REPORT_STUDY, RESOURCE, ROWS_REVISION, columns_of
from cohort.tables import Tables

REBUILD_RESOURCES = 20_000
"""Resources of one step when a table is made anew from the resources that are held: bounds memory."""

_OWN = {"patient_identifier": OWN_IDENTIFIER, "diagnostic_report_study": OWN_REPORT_STUDY}
_LOADED = {"_key": "VARCHAR", "_origin": "VARCHAR"}
_KNOWN_BY = {"patient": "patient_id", "imaging_study": "study_instance_uid"}

Line = Mapping[str, Any]


class Fold:
    """One fold into `tables`; `parked` are the lines and rows that could not be used."""

    def __init__(self, tables: Tables) -> None:
        self._tables, self.parked = tables, list[Parked]()
        with _files_can_be_made():
            self._rebuild_changed_schemas()

    def run(self, batch: Iterable[Path]) -> None:
        """Takes in a batch of delta files. Raises SinkUnavailable when a file cannot be made."""
        with _files_can_be_made():
            self._run(batch)

    def _run(self, batch: Iterable[Path]) -> None:
        newest = read(batch)
        self.parked += newest.parked
        by_type: dict[str, list[Line]] = {}
        for (_, kind, _), line in sorted(newest.resources.items()):
            by_type.setdefault(kind, []).append(line)
        report_links.begin(self._tables)
        for kind in sorted(by_type, key=lambda k: k != "Patient"):  # who is who comes first
            won = self._resources(kind, by_type[kind])
            if won:
                self._views(kind, won)
        for table in dicom_tables():
            lines: list[Line] = [line for (name, _), line in sorted(newest.rows.items()) if name == table]
            if lines:
                self._rows(table, lines)
        report_links.finish(self._tables)

    def _resources(self, kind: str, lines: list[Line]) -> list[Line]:
        """The raw resources of one type. Result: the lines newer than what is held."""
        tables, name = self._tables, f"resource_{kind}"
        rows = (
            {
                "_key": _key(line), "_revision": line["revision"], "origin": line["origin"], "id": line["id"],
                "deleted": line["deleted"],
                "json": None if line["deleted"] else orjson.dumps(line["resource"]).decode(),
            }
            for line in lines
        )  # fmt: skip
        tables.load("changed", rows, {c: kind for c, kind in RESOURCE.items() if c != "_hash"})
        tables.make("changed", f"SELECT {key_sql('_key')} AS _hash, * FROM changed")
        held = tables.scan(name, ["_hash", "_key", "_revision"])
        tables.make("newer", f"SELECT _key FROM {held} o JOIN changed c USING (_hash, _key) "
                    "WHERE o._revision > c._revision")  # fmt: skip
        tables.make("won", "SELECT * FROM changed ANTI JOIN newer USING (_key)")
        tables.replace(name, "SELECT _hash, _key FROM won", "SELECT * FROM won")
        won = {row[0] for row in tables.db.execute("SELECT _key FROM won").fetchall()}
        return [line for line in lines if _key(line) in won]

    def _views(self, kind: str, lines: list[Line]) -> None:
        """The rows of every view over a type. The table `won` holds the keys of the lines."""
        self._tables.make("keys", "SELECT _hash, _key FROM won")
        if kind == "Patient":
            self._load_view("patient_identifier", lines)
            identity.relink(self._tables)
            lines = [*lines, *self._held("Patient", "SELECT _hash, _key FROM moved ANTI JOIN keys USING (_key)")]
            self._tables.make("keys", "SELECT _hash, _key FROM keys UNION SELECT _hash, _key FROM moved")
            self._load_view("patient", lines)
            self._replace("patient", identity.PATIENTS)
            return
        for view, table in view_tables().items():
            if table.view.resource == kind:
                self._load_view(view, lines)
                self._replace(_OWN.get(view, view), self._linked(table))

    def _load_view(self, view: str, lines: list[Line]) -> None:
        """The table `fresh`: a view's rows of resources, with the keys of their ids."""
        table = view_tables()[view]
        columns = _LOADED | {c.name: c.type for c in table.schema.columns}
        rows = (row for line in lines if not line["deleted"] for row in self._view_rows(view, table, line))
        self._tables.load("fresh", rows, columns)
        self._tables.make("fresh", f"SELECT *, {key_sql('_key')} AS _hash {_id_keys(columns)} FROM fresh")
        if view in _KNOWN_BY:
            self._refuse_shared_keys(view, _KNOWN_BY[view])

    def _view_rows(self, view: str, table: ViewTable, line: Line) -> list[dict[str, Any]]:
        try:
            rows = table.rows(line["resource"])
        except (InvalidQuery, RecursionError, TypeError, AttributeError, KeyError, ValueError) as error:
            reason = str(error) if isinstance(error, InvalidQuery) else "the resource is malformed"
            self.parked.append((f"{line['type']}/{line['id']}", 0, f"table {view}: {reason}"))
            return []
        head = {"_key": _key(line), "_origin": line["origin"]}
        return [head | row for row in rows]

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
        if not any(c.name == "patient_id" for c in table.schema.columns):
            return "SELECT * FROM fresh"
        return (
            "SELECT f.* REPLACE (coalesce(l.clinical_id, f.patient_id) AS patient_id, "
            f"{key_sql('coalesce(l.clinical_id, f.patient_id)')} AS patient_key), "
            "CASE WHEN _origin = 'bridge' THEN f.patient_id END AS _own_patient_id, "
            "CASE WHEN _origin = 'bridge' THEN f.patient_key END AS _own_patient_key "
            f"FROM fresh f LEFT JOIN {self._tables.scan(LINK, ['imaging_id', 'clinical_id'])} l "
            "ON f._origin = 'bridge' AND l.imaging_id = f.patient_id"
        )

    def _replace(self, table: str, rows: str) -> None:
        report_links.watch(self._tables, table, "keys")
        self._tables.replace(table, "SELECT _hash, _key FROM keys", rows)
        report_links.watch(self._tables, table, "keys")

    def _held(self, kind: str, keys: str) -> list[Line]:
        """The held resources with these keys, as lines."""
        raw = self._tables.scan(f"resource_{kind}", ["_hash", "_key", "_revision", "origin", "id", "deleted", "json"])
        query = (
            f"SELECT origin, id, _revision, json FROM {raw} SEMI JOIN ({keys}) USING (_hash, _key) WHERE NOT deleted"
        )
        return [_line(kind, row) for row in self._tables.db.execute(query).fetchall()]

    def _rows(self, table: str, lines: list[Line]) -> None:
        """Rows from DICOM headers: a study's as a whole."""
        tables = self._tables
        keys = ({"uid": line["key"], "_key": f"{table}/{line['key']}", "_revision": line["revision"]} for line in lines)
        tables.load("changed", keys, {"uid": "VARCHAR", "_key": "VARCHAR", "_revision": "BIGINT"})
        tables.make("changed", f"SELECT *, {key_sql('_key')} AS _hash FROM changed")
        held = tables.scan(ROWS_REVISION)
        tables.make("newer", f"SELECT _key FROM {held} o JOIN changed c USING (_hash, _key) "
                    "WHERE o._revision > c._revision")  # fmt: skip
        tables.make("won", "SELECT * FROM changed ANTI JOIN newer USING (_key)")
        tables.replace(ROWS_REVISION, "SELECT _hash, _key FROM won", "SELECT * FROM won")
        columns = {"_key": "VARCHAR"} | {c.name: c.type for c in dicom_tables()[table].columns}
        rows = ({"_key": str(x["key"])} | row for x in lines for row in x["rows"] if isinstance(row, dict))
        tables.load("fresh", rows, columns)
        tables.make("keys", f"SELECT uid AS _key, {key_sql('uid')} AS _hash FROM won")
        tables.make("fresh", f"SELECT *, {key_sql('_key')} AS _hash {_id_keys(columns)} FROM fresh")
        self._replace(table, "SELECT * FROM fresh SEMI JOIN keys USING (_key)")

    def _rebuild_changed_schemas(self) -> None:
        """A table whose columns are others than its files have: views anew from the resources, DICOM rows filled up."""
        changed = {name for name, held in self._tables.held_columns.items() if held != list(_expected(name))}
        for table in changed & set(dicom_tables()):
            held = self._tables.held_columns[table]
            columns = ", ".join(
                f'"{c}"' if c in held else f'NULL::{kind} AS "{c}"' for c, kind in columns_of(table).items()
            )
            rows = self._tables.scan(table, held)
            self._tables.make("refilled", f"SELECT {columns} FROM {rows}")
            self._tables.layers[table] = []
            self._tables.replace(table, "SELECT _hash, _key FROM refilled", "SELECT * FROM refilled")
        kinds = {t.view.resource for name, t in view_tables().items() if {name, _OWN.get(name, name)} & changed}
        kinds |= {"Patient"} if changed & {LINK} else set()
        if not kinds:
            return
        report_links.begin(self._tables)
        for kind in sorted(kinds, key=lambda k: k != "Patient"):
            for table in {_OWN.get(n, n) for n, t in view_tables().items() if t.view.resource == kind} & changed:
                self._tables.layers[table] = []
            for lines in self._all(kind):
                keys = [{"_key": _key(line)} for line in lines]
                self._tables.load("won", keys, {"_key": "VARCHAR"})
                self._tables.make("won", f"SELECT {key_sql('_key')} AS _hash, _key FROM won")
                self._views(kind, lines)
        report_links.finish(self._tables)

    def _all(self, kind: str) -> Iterator[list[Line]]:
        raw = self._tables.scan(f"resource_{kind}", ["origin", "id", "_revision", "json", "deleted"])
        cursor = self._tables.db.cursor()
        cursor.execute(f"SELECT origin, id, _revision, json FROM {raw} WHERE NOT deleted")
        while rows := cursor.fetchmany(REBUILD_RESOURCES):
            yield [_line(kind, row) for row in rows]


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


def _line(kind: str, row: tuple[Any, ...]) -> Line:
    origin, id_, revision, json = row
    return {
        "origin": origin, "type": kind, "id": id_, "revision": revision, "deleted": False,
        "resource": orjson.loads(json),
    }  # fmt: skip


def _key(line: Line) -> str:
    return f"{line['origin']}/{line['id']}"
