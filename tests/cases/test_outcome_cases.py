"""Every ready outcome definition: its hand-checked people give the rows expected, on DuckDB and by the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cohort.catalogue import column_types, outcome, outcomes, read_outcome
from cohort.dialects import duckdb as dialect
from cohort.engine.duckdb import connect
from cohort.outcome_oracle import rows
from cohort.outcome_rows import compile_outcomes
from tests.outcome_cases import cases, generation
from tests.question_cases import plain

CASES = cases()
UNKNOWN = {"patients", "studies", "series", "conditions", "procedures", "observations", "findings", "medications",
           "encounters", "reports", "programs", "implants", "predictions", "asks"}  # fmt: skip


@pytest.mark.parametrize("name", sorted(CASES))
def test_outcome(name: str, tmp_path: Path) -> None:
    case: dict[str, Any] = CASES[name]
    assert not set(case) - UNKNOWN
    connection = connect(generation(case, tmp_path))
    tables = {}
    for table, columns in column_types().items():
        found = connection.execute(f'SELECT * FROM "{table}"').fetchall()
        tables[table] = [dict(zip(columns, row, strict=True)) for row in found]
    for ask in case["asks"]:
        definition = read_outcome(outcome(name).document, ask.get("parameters", {}))
        model, _, version = ask.get("model", "").partition("@")
        relation = compile_outcomes(definition, ask["date"], column_types(), model, version or None)
        cursor = connection.execute(f"{dialect.sql(relation)} ORDER BY prediction_id")
        names = [d[0] for d in cursor.description]
        made = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        shown = [[plain(row[column]) for column in ask["columns"]] for row in made]
        assert shown == ask["rows"], (name, ask["date"])
        assert made == rows(definition, tables, ask["date"], model, version or None)


def test_every_ready_outcome_has_a_case_and_says_what_it_means() -> None:
    assert set(CASES) == set(outcomes())
    assert all(len(d.description) > 100 for d in outcomes().values())
