"""DuckDB and the oracle give the same rows, for random questions about random tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import duckdb
import jsonschema
import pytest

from cohort.catalogue import column_types, read_question
from cohort.dialects import duckdb as dialect
from cohort.oracle import answer
from cohort.question_answer import compile_question
from cohort.question_schema import question_schema
from tests.random_questions import TODAY, document, tables


def connected(data: Mapping[str, Sequence[Mapping[str, Any]]]) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'America/New_York'")
    for name, columns in column_types().items():
        described = ", ".join(f'"{c}" {kind}' for c, kind in columns.items())
        connection.execute(f'CREATE TABLE "{name}" ({described})')
        rows = [[row.get(c) for c in columns] for row in data[name]]
        if rows:
            marks = ", ".join("?" * len(columns))
            connection.executemany(f'INSERT INTO "{name}" VALUES ({marks})', rows)
    return connection


def plain(value: Any) -> Any:
    return value.timestamp() if isinstance(value, datetime) else value


@pytest.mark.parametrize("seed", range(6))
def test_duckdb_and_the_oracle_give_the_same_rows(seed: int) -> None:
    data = tables(seed)
    schema = jsonschema.Draft202012Validator(question_schema(column_types()))
    answered = 0
    with connected(data) as connection:
        for n in range(seed * 1000, seed * 1000 + 40):
            asked = document(n)
            question = read_question(asked)
            schema.validate(orjson_like(asked))
            sql = dialect.sql(compile_question(question, TODAY, column_types()))
            found = [tuple(map(plain, row)) for row in connection.execute(sql).fetchall()]
            expected = [tuple(map(plain, row)) for row in answer(question, data, TODAY, column_types())]
            assert found == expected, (n, asked)
            answered += bool(found)
            some = connection.execute(dialect.sql(compile_question(question, TODAY, column_types(), 3))).fetchall()
            assert [row for row in found if row in some] == [tuple(map(plain, row)) for row in some], (n, asked)
            assert len(some) == min(3, len(found)), (n, asked)
    assert answered > 10


def orjson_like(value: Any) -> Any:
    """As JSON has it: days as text."""
    if isinstance(value, dict):
        return {k: orjson_like(v) for k, v in value.items()}
    if isinstance(value, list):
        return [orjson_like(v) for v in value]
    return value.isoformat() if hasattr(value, "isoformat") else value
