"""The official SQL-on-FHIR suite, every case of it: the evaluator, and DuckDB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest

from bridge.errors import InvalidQuery
from cohort.dialects import duckdb as dialect
from cohort.elements import R4
from cohort.view import View
from cohort.view_sql import compile_view
from tests.shared import NO_SOF_TESTS, SOF_TESTS
from tests.view_suite import Rows, cases, judge

pytestmark = pytest.mark.skipif(not SOF_TESTS.is_dir(), reason=NO_SOF_TESTS)
CASES = [pytest.param(*case[1:], id=case[0]) for case in cases()]


def evaluated(view: dict[str, Any], file: Path, resources: list[dict[str, Any]]) -> Rows:
    compiled = View(view)
    rows = [row for resource in resources for row in compiled.rows(resource)]
    return [c.name for c in compiled.columns], rows


def on_duckdb(view: dict[str, Any], file: Path, resources: list[dict[str, Any]]) -> Rows:
    sql = dialect.sql(compile_view(view, R4).relation(str(file)))
    with duckdb.connect() as connection:
        try:
            cursor = connection.execute(sql)
        except duckdb.InvalidInputException as error:
            raise InvalidQuery(str(error)) from None
        names = [d[0] for d in cursor.description or ()]
        return names, [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


@pytest.mark.parametrize("run", [evaluated, on_duckdb])
@pytest.mark.parametrize(("resources", "case"), CASES)
def test_official_case(resources: list[dict[str, Any]], case: dict[str, Any], run: Any, tmp_path: Path) -> None:
    judge(run, resources, case, tmp_path)


def test_the_whole_suite_is_there() -> None:
    assert len(CASES) == 134
