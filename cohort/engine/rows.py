"""The rows of a query as JSON. DuckDB writes the lists of texts itself: most of a large answer is medications and
reports, and made of Python's objects they take longer than the query."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date, datetime
from datetime import time as clock_time
from decimal import Decimal
from typing import Any

import orjson

AT_ONCE = 1000
"""Rows that are held as Python's objects."""

TEXTS = "VARCHAR[]"


def columns_of(connection: Any, sql: str, bound: Sequence[Any] = ()) -> list[list[str]]:
    """[name, DuckDB type] of what a SELECT gives. Raises duckdb.Error where it is not right."""
    described = connection.execute(f"DESCRIBE {sql}", bound).fetchall()
    return [[str(name), str(kind)] for name, kind, *_ in described]


def lists_as_json(sql: str, columns: Sequence[Sequence[str]]) -> tuple[str, tuple[int, ...]]:
    """A SELECT that can stand in brackets, with its lists of texts as JSON, and where these are. Its rows stay in
    order; columns are told by their place, since several may have one name."""
    lists = tuple(number for number, (_, kind) in enumerate(columns) if kind == TEXTS)
    names = [f"c{number}" for number in range(len(columns))]
    shown = (f"to_json({name})::VARCHAR" if number in lists else name for number, name in enumerate(names))
    return (f"SELECT {', '.join(shown)} FROM ({sql}) AS answer({', '.join(names)})" if lists else sql), lists


def rows_of(cursor: Any, most: int, most_bytes: int, lists: Sequence[int] = ()) -> tuple[list[orjson.Fragment], bool]:
    """The rows of what was executed, as JSON lists of rows to put together; and True where there are more than so
    many rows, or bytes. The columns at `lists` are JSON already. Raises duckdb.Error."""
    found: list[orjson.Fragment] = []
    count = size = 0
    while some := cursor.fetchmany(min(AT_ONCE, most + 1 - count)):
        count += len(some)
        part = orjson.dumps([_row(row, lists) for row in (some if count <= most else some[:-1])])
        size += len(part)
        if size > most_bytes:
            return found, True
        found.append(orjson.Fragment(part))
        if count > most:
            return found, True
    return found, False


def _row(row: Sequence[Any], lists: Sequence[int]) -> list[Any]:
    plain = [plain_value(value) for value in row]
    for number in lists:
        if plain[number] is not None:
            plain[number] = orjson.Fragment(plain[number])
    return plain


def plain_value(value: Any) -> Any:
    """A DuckDB value as JSON has it: dates and times in ISO 8601, what JSON has no number for as null or text."""
    kind = type(value)
    if kind is str or value is None or kind is bool:
        return value
    if kind is list:
        return [one if type(one) is str else plain_value(one) for one in value]
    if kind is int:
        return value if abs(value) < 2**63 else str(value)
    if kind is float:
        return value if math.isfinite(value) else None
    if isinstance(value, datetime | date | clock_time):
        return value.isoformat()
    if kind is tuple:
        return [plain_value(one) for one in value]
    if kind is dict:
        return {str(key): plain_value(one) for key, one in value.items()}
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, bytes | bytearray):
        return value.hex()
    return str(value)
