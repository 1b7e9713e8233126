"""Folds delta files into the next generation's files. Only what changed is written anew."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb
import orjson

from bridge.errors import InvalidQuery, SinkUnavailable
from cohort.schema import ViewTable, catalogue, dicom_tables, view_tables

Key = tuple[str, str, str]
"""origin, resource type, id."""

_RESOURCE_COLUMNS = {
    "_key": "VARCHAR",
    "_revision": "BIGINT",
    "origin": "VARCHAR",
    "id": "VARCHAR",
    "deleted": "BOOLEAN",
    "json": "VARCHAR",
}
_DERIVED = ("patient", "patient_identifier", "imaging_study", "diagnostic_report_study")
_IDENTITY_INPUTS = {"Patient", "ImagingStudy", "DiagnosticReport"}


@dataclass
class FoldResult:
    """tables: name → {file, rows} that questions see; files: internal name → {file, rows}; parked delta lines."""

    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    parked: list[tuple[str, int, str]] = field(default_factory=list)


@dataclass
class _Newest:
    """The newest line for every key in a batch of delta files."""

    resources: dict[Key, dict[str, Any]] = field(default_factory=dict)
    rows: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)


class Fold:
    """One fold, with its own DuckDB and scratch folder. `before` names the files of the generation before."""

    def __init__(self, files: Path, generation: str, before: Mapping[str, Any]) -> None:
        self._files, self._generation, self._before = files, generation, before
        self._scratch = Path(tempfile.mkdtemp(prefix="fold-", dir=files.parent))
        self._db = duckdb.connect(":memory:", config={"threads": 2, "preserve_insertion_order": False})
        self._db.execute("SET TimeZone = 'UTC'")
        self._result = FoldResult()

    def __enter__(self) -> Fold:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def run(self, batch: Iterable[Path]) -> FoldResult:
        """The next generation's files, on disk when this returns. Raises SinkUnavailable when they cannot be made."""
        try:
            return self._run(batch)
        except duckdb.Error as error:
            raise SinkUnavailable(f"lake: a generation cannot be made ({type(error).__name__})") from None

    def _run(self, batch: Iterable[Path]) -> FoldResult:
        newest = self._read(batch)
        self._result.files |= dict(self._before)
        by_type: dict[str, list[dict[str, Any]]] = {}
        for (_, kind, _), line in sorted(newest.resources.items()):
            by_type.setdefault(kind, []).append(line)
        for kind, lines in by_type.items():
            self._fold_type(kind, lines)
        for table in dicom_tables():
            self._fold_rows(table, [line for (name, _), line in sorted(newest.rows.items()) if name == table])
        for view in view_tables():
            self._ensure(view, _internal(view), _view_columns(view_tables()[view]))
        self._derive(bool(_IDENTITY_INPUTS & by_type.keys()) or not self._before)
        return self._result

    def _read(self, batch: Iterable[Path]) -> _Newest:
        newest = _Newest()
        for path in batch:
            with path.open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    try:
                        self._take(newest, orjson.loads(line))
                    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
                        self._result.parked.append((path.name, number, "not a line of the delta's format"))
        return newest

    def _take(self, newest: _Newest, line: dict[str, Any]) -> None:
        revision = int(line["revision"])
        if line["kind"] == "resource":
            key = (str(line["origin"]), str(line["type"]), str(line["id"]))
            if not key[1].isalpha() or not (line["deleted"] or isinstance(line["resource"], dict)):
                raise ValueError
            held = newest.resources.get(key)
            if held is None or revision >= held["revision"]:
                newest.resources[key] = line
        elif line["kind"] == "rows":
            place = (str(line["table"]), str(line["key"]))
            kept = newest.rows.get(place)
            if kept is None or revision >= kept["revision"]:
                newest.rows[place] = line | {"rows": list(line["rows"])}
        else:
            raise ValueError

    def _fold_type(self, kind: str, lines: list[dict[str, Any]]) -> None:
        """Raw resources of one type, then the rows of every view over it."""
        resources = [
            {
                "_key": _key(line), "_revision": line["revision"], "origin": line["origin"], "id": line["id"],
                "deleted": line["deleted"],
                "json": None if line["deleted"] else orjson.dumps(line["resource"]).decode(),
            }
            for line in lines
        ]  # fmt: skip
        name = f"resource_{kind}"
        self._ensure(name, name, _RESOURCE_COLUMNS)
        self._load("changed", resources, _RESOURCE_COLUMNS)
        self._db.execute(
            "CREATE OR REPLACE TEMP TABLE won AS "
            f"SELECT c.* FROM changed c LEFT JOIN {self._scan(name)} o USING (_key) "
            "WHERE o._revision IS NULL OR c._revision >= o._revision"
        )
        won = {row[0] for row in self._db.execute("SELECT _key FROM won").fetchall()}
        if not won:
            return
        self._write(name, f"SELECT * FROM {self._scan(name)} ANTI JOIN won USING (_key) UNION ALL SELECT * FROM won")
        for view, table in view_tables().items():
            if table.view.resource == kind:
                self._fold_view(view, table, [line for line in lines if _key(line) in won])

    def _fold_view(self, view: str, table: ViewTable, lines: list[dict[str, Any]]) -> None:
        rows = [row for line in lines if not line["deleted"] for row in self._view_rows(view, table, line)]
        columns = _view_columns(table)
        name = _internal(view)
        self._ensure(view, name, columns)
        self._load("fresh", rows, columns)
        order = "ORDER BY patient_id" if "patient_id" in columns else ""
        self._write(
            name,
            f"SELECT * FROM (SELECT * FROM {self._scan(name)} ANTI JOIN won USING (_key) "
            f"UNION ALL SELECT * FROM fresh) {order}",
        )

    def _view_rows(self, view: str, table: ViewTable, line: dict[str, Any]) -> list[dict[str, Any]]:
        try:
            rows = table.rows(line["resource"])
        except (InvalidQuery, RecursionError, TypeError, AttributeError, KeyError, ValueError) as error:
            reason = str(error) if isinstance(error, InvalidQuery) else "the resource is malformed"
            self._result.parked.append((f"{line['type']}/{line['id']}", 0, f"table {view}: {reason}"))
            return []
        head = {"_key": _key(line), "_origin": line["origin"]}
        return [head | row for row in rows]

    def _fold_rows(self, table: str, lines: list[dict[str, Any]]) -> None:
        columns = {"_key": "VARCHAR", "_revision": "BIGINT"} | {c.name: c.type for c in dicom_tables()[table].columns}
        name = _internal(table)
        self._ensure(table, name, columns)
        if lines:
            keys = [{"_key": str(line["key"]), "_revision": line["revision"]} for line in lines]
            self._load("keys", keys, {"_key": "VARCHAR", "_revision": "BIGINT"})
            rows = [
                {"_key": str(line["key"]), "_revision": line["revision"]} | row
                for line in lines
                for row in line["rows"]
                if isinstance(row, dict)
            ]
            self._load("fresh", rows, columns)
            held = self._scan(name)
            older = f"SELECT DISTINCT _key FROM {held} o JOIN keys k USING (_key) WHERE o._revision > k._revision"
            self._db.execute(f"CREATE OR REPLACE TEMP TABLE stale AS {older}")
            self._write(
                name,
                f"SELECT * FROM {self._scan(name)} ANTI JOIN (SELECT _key FROM keys ANTI JOIN stale USING (_key)) "
                "USING (_key) UNION ALL SELECT * FROM fresh ANTI JOIN stale USING (_key)",
            )
        self._show(table, name)

    def _derive(self, changed: bool) -> None:
        """The tables that need several resources: who is the same person, which study a report is about."""
        for table in catalogue():
            if table not in _DERIVED and table not in dicom_tables():
                self._show(table, _internal(table))
        if changed or any(f"derived_{t}" not in self._result.files for t in _DERIVED):
            self._db.execute(_LINK.format(p=self._scan("view_patient_identifier")))
            for table, query in _QUERIES.items():
                scans = {n: self._scan(f"view_{n}") for n in _DERIVED}
                self._write(f"derived_{table}", query.format(**scans))
        for table in _DERIVED:
            self._show(table, f"derived_{table}")

    def _show(self, table: str, name: str) -> None:
        self._result.tables[table] = self._result.files[name]

    def _ensure(self, _table: str, name: str, columns: Mapping[str, str]) -> None:
        """An empty file for a table that has none yet; one with other columns is begun anew (a new schema)."""
        if name in self._result.files and self._columns(name) == list(columns):
            return
        described = ", ".join(f'NULL::{kind} AS "{column}"' for column, kind in columns.items())
        self._write(name, f"SELECT {described} WHERE false")

    def _columns(self, name: str) -> list[str]:
        return [row[0] for row in self._db.execute(f"DESCRIBE SELECT * FROM {self._scan(name)}").fetchall()]

    def _scan(self, name: str) -> str:
        return f"read_parquet('{_quoted(self._files / self._result.files[name]['file'])}')"

    def _load(self, table: str, rows: list[dict[str, Any]], columns: Mapping[str, str]) -> None:
        """Rows into a temporary table with these columns; keys that are no column are left out."""
        path = self._scratch / f"{table}.ndjson"
        with path.open("wb") as file:
            for row in rows:
                file.write(orjson.dumps(row) + b"\n")
        described = ", ".join(f"'{column}': '{kind}'" for column, kind in columns.items())
        source = (
            f"read_json('{_quoted(path)}', format='newline_delimited', columns={{{described}}}, "
            "maximum_object_size=1073741824)"
            if rows
            else "(SELECT " + ", ".join(f'NULL::{kind} AS "{c}"' for c, kind in columns.items()) + " WHERE false)"
        )
        self._db.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS SELECT * FROM {source}")

    def _write(self, name: str, query: str) -> None:
        """The query's rows as a new file, on disk."""
        file = f"{name}-{self._generation}.parquet"
        path, part = self._files / file, self._files / f"{file}.part"
        # the table may be scanned from an earlier file of this very generation: write beside it, then replace
        self._db.execute(f"COPY ({query}) TO '{_quoted(part)}' (FORMAT parquet, COMPRESSION zstd)")
        descriptor = os.open(part, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        part.replace(path)
        counted = self._db.execute(f"SELECT count(*) FROM read_parquet('{_quoted(path)}')").fetchone()
        self._result.files[name] = {"file": file, "rows": counted[0] if counted else 0}


def _internal(table: str) -> str:
    return f"view_{table}" if table in view_tables() else table


def _view_columns(table: ViewTable) -> dict[str, str]:
    return {"_key": "VARCHAR", "_origin": "VARCHAR"} | {c.name: c.type for c in table.schema.columns}


def _key(line: Mapping[str, Any]) -> str:
    return f"{line['origin']}/{line['id']}"


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


_LINK = """
CREATE OR REPLACE TEMP TABLE link AS
WITH pairs AS (
    SELECT DISTINCT i.patient_id AS imaging_id, c.patient_id AS clinical_id
    FROM {p} i JOIN {p} c ON i.system = c.system AND i.value = c.value
    WHERE i._origin = 'bridge' AND c._origin <> 'bridge' AND i.system <> '' AND i.value <> ''
)
SELECT imaging_id, min(clinical_id) AS clinical_id FROM pairs GROUP BY imaging_id HAVING count(*) = 1
"""
"""An imaging patient is the clinical patient that shares an identifier (system and value), if exactly one does."""

_QUERIES = {
    "patient": """
SELECT p.*, CASE WHEN _origin = 'bridge' THEN 'imaging' ELSE 'clinical' END AS origin FROM {patient} p
WHERE _origin <> 'bridge' OR patient_id NOT IN (SELECT imaging_id FROM link) ORDER BY patient_id
""",
    "patient_identifier": """
SELECT DISTINCT * EXCLUDE (_key, _origin, patient_id), coalesce(l.clinical_id, p.patient_id) AS patient_id
FROM {patient_identifier} p LEFT JOIN link l ON p._origin = 'bridge' AND l.imaging_id = p.patient_id
""",
    "imaging_study": """
SELECT s.* REPLACE (coalesce(l.clinical_id, s.patient_id) AS patient_id)
FROM {imaging_study} s LEFT JOIN link l ON s._origin = 'bridge' AND l.imaging_id = s.patient_id ORDER BY 2
""",
    "diagnostic_report_study": """
WITH studies AS (
    SELECT s.study_instance_uid, s.imaging_study_id, s.accession_number, s.accession_system,
           coalesce(l.clinical_id, s.patient_id) AS patient_id
    FROM {imaging_study} s LEFT JOIN link l ON s._origin = 'bridge' AND l.imaging_id = s.patient_id
), accessions AS (
    SELECT patient_id, accession_number, any_value(study_instance_uid) AS study_instance_uid,
           any_value(imaging_study_id) AS imaging_study_id, any_value(accession_system) AS accession_system
    FROM studies WHERE accession_number IS NOT NULL GROUP BY ALL HAVING count(*) = 1
), named AS (
    SELECT r.diagnostic_report_id, r.accession_number,
           coalesce(u.study_instance_uid, i.study_instance_uid, a.study_instance_uid, r.study_instance_uid)
               AS study_instance_uid,
           coalesce(u.imaging_study_id, i.imaging_study_id, a.imaging_study_id, r.imaging_study_id) AS imaging_study_id
    FROM {diagnostic_report_study} r
    LEFT JOIN studies u ON u.study_instance_uid = r.study_instance_uid
    LEFT JOIN studies i ON i.imaging_study_id = r.imaging_study_id
    LEFT JOIN accessions a ON a.accession_number = r.accession_number AND a.patient_id = r.patient_id
        AND coalesce(a.accession_system, '') = coalesce(r.accession_system, a.accession_system, '')
    WHERE r.study_instance_uid IS NOT NULL OR r.imaging_study_id IS NOT NULL OR r.accession_number IS NOT NULL
)
SELECT diagnostic_report_id, imaging_study_id, study_instance_uid, accession_number FROM (
    SELECT *, row_number() OVER (PARTITION BY diagnostic_report_id, study_instance_uid ORDER BY accession_number) AS n
    FROM named
) WHERE n = 1
""",
}
