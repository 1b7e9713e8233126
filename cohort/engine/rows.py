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

from cohort.returns import JSON, TEXTS

AT_ONCE = 1000
"""Rows that are held as Python's objects."""


def executed(
    connection: Any, sql: str, bound: Sequence[Any] = (), *, as_json: bool, known: Sequence[tuple[str, str]] = ()
) -> tuple[list[list[str]], Any, tuple[int, ...]]:
    """Starts a query. With `as_json` it gives lists of texts as JSON; it must be a SELECT or WITH that can stand in
    brackets. `known` are the names of its columns, and what each is (cohort.question_answer.texts_of), where the caller
    can tell: DuckDB, which is asked otherwise, reads the query twice. Raises duckdb.Error.

    Result  [name, DuckDB type] of its columns; the cursor; which of them are JSON
    """
    if not as_json:
        cursor = connection.execute(sql, bound)
        return [[name, str(kind)] for name, kind, *_ in cursor.description], cursor, ()
    if not known:
        described = connection.execute(f"DESCRIBE {sql}", bound).fetchall()
        known = [(str(name), TEXTS if str(kind) == TEXTS else "") for name, kind, *_ in described]
    made = tuple(at for at, (_, kind) in enumerate(known) if kind == TEXTS)
    lists = tuple(at for at, (_, kind) in enumerate(known) if kind in (TEXTS, JSON))
    cursor = connection.execute(_as_json(sql, len(known), made) if made else sql, bound)
    kinds = [TEXTS if at in lists else str(kind) for at, (_, kind, *_) in enumerate(cursor.description)]
    return [[name, kind] for (name, _), kind in zip(known, kinds, strict=True)], cursor, lists


def _as_json(sql: str, width: int, lists: Sequence[int]) -> str:
    """Rows stay in order; columns are told by their place, since several may have one name."""
    names = [f"c{number}" for number in range(width)]
    shown = (f"to_json({name})::VARCHAR" if number in lists else name for number, name in enumerate(names))
    return f"SELECT {', '.join(shown)} FROM ({sql}) AS answer({', '.join(names)})"


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
