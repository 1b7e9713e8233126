"""Random views over random resources: the SQL gives the evaluator's rows, or is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import orjson
import pytest
from hypothesis import HealthCheck, assume, given, settings

from bridge.errors import InvalidQuery
from cohort.dialects import duckdb as dialect
from cohort.elements import R4, elements
from cohort.view import View
from cohort.view_sql import compile_view
from tests.properties.view_cases import views
from tests.view_suite import comparable


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("views")


def evaluated(view: dict[str, Any], resources: list[dict[str, Any]]) -> list[str] | None:
    """The rows, or None where a column has several values."""
    compiled = View(view, elements)
    try:
        return sorted(comparable(row) for resource in resources for row in compiled.rows(resource))
    except InvalidQuery:
        return None


@pytest.mark.timeout(300)
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=views())
def test_duckdb_gives_the_evaluator_s_rows(folder: Path, case: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    view, resources = case
    file = folder / "resources.ndjson"
    file.write_bytes(b"".join(orjson.dumps(r) + b"\n" for r in resources))
    try:
        compiled = compile_view(view, R4)
    except InvalidQuery:
        assume(False)
        return
    expected = evaluated(view, resources)
    with duckdb.connect() as connection:
        try:
            cursor = connection.execute(dialect.sql(compiled.relation(str(file))))
        except duckdb.InvalidInputException as error:
            assert expected is None or "deeper than SQL reads" in str(error), error
            return
        names = [d[0] for d in cursor.description or ()]
        rows = sorted(comparable(dict(zip(names, row, strict=True))) for row in cursor.fetchall())
    assert rows == expected
