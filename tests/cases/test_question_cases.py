"""Every ready question: its hand-checked people give the rows expected, on DuckDB and by the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cohort.catalogue import column_types, question, questions, read_question
from cohort.dialects import duckdb as dialect
from cohort.engine.duckdb import connect
from cohort.oracle import answer
from cohort.question_answer import compile_question, result_columns
from tests.question_cases import cases, generation, plain

CASES = cases()
UNKNOWN = {"patients", "imaging_patients", "studies", "series", "instances", "conditions", "procedures",
           "observations", "findings", "medications", "encounters", "reports", "asks"}  # fmt: skip


@pytest.mark.parametrize("name", sorted(CASES))
def test_question(name: str, tmp_path: Path) -> None:
    case: dict[str, Any] = CASES[name]
    assert not set(case) - UNKNOWN
    connection = connect(generation(case, tmp_path))
    tables = {}
    for table, columns in column_types().items():
        rows = connection.execute(f'SELECT * FROM "{table}"').fetchall()
        tables[table] = [dict(zip(columns, row, strict=True)) for row in rows]
    for ask in case["asks"]:
        asked = read_question(question(name).document, ask.get("parameters", {}))
        found = connection.execute(dialect.sql(compile_question(asked, ask["date"], column_types()))).fetchall()
        named = result_columns(asked)
        shown = [[plain(row[named.index(column)]) for column in ask["columns"]] for row in found]
        assert shown == ask["rows"], (name, ask["date"])
        assert found == answer(asked, tables, ask["date"], column_types())


def test_every_ready_question_has_a_case() -> None:
    assert set(CASES) == set(questions())
