"""Runs a ViewDefinition over NDJSON files: as SQL on DuckDB, or by the evaluator where SQL cannot say it or the lines
do not have FHIR's shape."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import orjson

from bridge.errors import InvalidQuery
from cohort.answer import Answer
from cohort.dialects import spark
from cohort.dialects.duckdb import sql
from cohort.elements import R4, elements
from cohort.path_value import kind_of
from cohort.relation import Limit, Relation, Union
from cohort.view import View
from cohort.view_sql import SqlView, compile_view

_SQL_TYPES = {"BOOLEAN": "BOOLEAN", "INTEGER": "BIGINT", "DOUBLE": "DOUBLE", "TEXT": "VARCHAR"}
MEMORY_LIMIT = "2GB"
Parked = tuple[str, int, str]
"""File, line, why it was left out."""


@dataclass(frozen=True)
class ViewRun:
    """The rows; what made them (`duckdb` or `evaluator`), why not DuckDB, and the lines that were left out."""

    answer: Answer
    engine: str
    reason: str = ""
    parked: tuple[Parked, ...] = ()


def rows_sql(definition: Mapping[str, Any], path: Path) -> str:
    """DuckDB's SELECT of a view's rows over an NDJSON file of the view's resource type, columns named as in the view.
    Raises InvalidQuery when the view is not valid, or SQL cannot say it."""
    return sql(compile_view(definition, R4).relation(str(path)))


def explained(definition: Mapping[str, Any], path: Path, dialect: str = "duckdb") -> tuple[str, str]:
    """(the SQL, "") or ("", why there is none). Raises InvalidQuery for a view that is not valid."""
    View(definition, elements)
    try:
        relation = compile_view(definition, R4).relation(str(path))
        return (spark.sql if dialect == "spark" else sql)(relation), ""
    except InvalidQuery as error:
        return "", str(error)


def run_view(definition: Mapping[str, Any], files: Sequence[Path], limit: int) -> ViewRun:
    """The view's rows, `limit` at most. Raises InvalidQuery when the view is not valid."""
    view, started = View(definition, elements), time.monotonic()
    try:
        compiled = compile_view(definition, R4)
        columns, rows = _on_duckdb(_over(compiled, files, limit + 1))
        return ViewRun(_answer(columns, rows, limit, started), "duckdb")
    except InvalidQuery as error:
        reason = str(error)
    except duckdb.Error as error:
        reason = _said(error)
    parked: list[Parked] = []
    columns = _columns(view)
    rows = []
    for row in _evaluated(view, files, parked):
        rows.append(tuple(_fitting(row[name], kind) for name, kind in columns))
        if len(rows) > limit:
            break
    return ViewRun(_answer(columns, rows, limit, started), "evaluator", reason, tuple(parked))


def write_parquet(definition: Mapping[str, Any], files: Sequence[Path], output: Path) -> str:
    """All rows into a Parquet file, without holding them; "" or, where SQL cannot, why: then no file is written.
    Raises InvalidQuery when the view is not valid."""
    View(definition, elements)
    try:
        query = sql(_over(compile_view(definition, R4), files, None))
        with duckdb.connect(config={"memory_limit": MEMORY_LIMIT}) as connection:
            quoted = str(output).replace("'", "''")
            connection.execute(f"COPY ({query}) TO '{quoted}' (FORMAT parquet, COMPRESSION zstd)")
    except InvalidQuery as error:
        return str(error)
    except duckdb.Error as error:
        output.unlink(missing_ok=True)
        return _said(error)
    return ""


def _over(view: SqlView, files: Sequence[Path], limit: int | None) -> Relation:
    each = tuple(view.relation(str(file)) for file in files)
    rows: Relation = each[0] if len(each) == 1 else Union(each)
    return rows if limit is None else Limit(rows, limit)


def _on_duckdb(relation: Relation) -> tuple[list[tuple[str, str]], list[tuple[Any, ...]]]:
    with duckdb.connect(config={"memory_limit": MEMORY_LIMIT}) as connection:
        cursor = connection.execute(sql(relation))
        return [(d[0], str(d[1])) for d in cursor.description or ()], cursor.fetchall()


def _said(error: duckdb.Error) -> str:
    """What kind of failure; without the text, which may quote a resource."""
    if isinstance(error, duckdb.InvalidInputException):
        return "a line does not have FHIR's shape, or a column has several values"
    return f"DuckDB: {type(error).__name__}"


def _answer(columns: Sequence[tuple[str, str]], rows: Sequence[Any], limit: int, started: float) -> Answer:
    elapsed = round(time.monotonic() - started, 3)
    return Answer(tuple(columns), tuple(map(tuple, rows[:limit])), len(rows) > limit, "", elapsed)


def _evaluated(view: View, files: Sequence[Path], parked: list[Parked]) -> Iterator[dict[str, Any]]:
    for file in files:
        for number, line in enumerate(_lines(file), 1):
            try:
                yield from view.rows(orjson.loads(line))
            except InvalidQuery as error:
                parked.append((file.name, number, str(error)))
            except (orjson.JSONDecodeError, RecursionError, TypeError, AttributeError, KeyError, ValueError):
                parked.append((file.name, number, "the resource is malformed"))


def _lines(file: Path) -> Iterator[bytes]:
    with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as lines:
        yield from (line for line in lines if line.strip())


def _columns(view: View) -> list[tuple[str, str]]:
    kinds = [(c.name, _SQL_TYPES[kind_of(c.type).name], c.collection) for c in view.columns]
    return [(name, f"{kind}[]" if collection else kind) for name, kind, collection in kinds]


def _fitting(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind.endswith("[]"):
        return [_fitting(v, kind[:-2]) for v in value]
    if kind == "VARCHAR":
        return value if isinstance(value, str) else orjson.dumps(value).decode()
    if kind == "BOOLEAN" or isinstance(value, bool):
        return value if kind == "BOOLEAN" and isinstance(value, bool) else None
    return value if isinstance(value, int if kind == "BIGINT" else int | float) else None
