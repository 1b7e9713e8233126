"""Spark gives the rows that DuckDB and the evaluator give: every relation, the official suite, random views."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings

from bridge.errors import InvalidQuery
from cohort.elements import R4
from cohort.expression import Function, Literal, call
from cohort.relation import Project
from cohort.view_sql import compile_view
from tests.properties.test_view_sql import evaluated
from tests.properties.view_cases import views
from tests.relations import EXPRESSIONS, RELATIONS, expressions, plain
from tests.services.spark_session import Spark
from tests.shared import NO_SOF_TESTS
from tests.view_suite import cases, comparable, judge

pytestmark = pytest.mark.filterwarnings("ignore")
CASES = [pytest.param(*case[1:], id=case[0]) for case in cases()]


def test_every_expression_has_its_value(spark: Spark) -> None:
    values = expressions(lambda relation: spark.run(relation)[1])
    for (expression, expected), value in zip(EXPRESSIONS, values, strict=True):
        assert plain(value) == expected, expression


@pytest.mark.parametrize("name", RELATIONS)
def test_every_relation_has_its_rows(spark: Spark, name: str) -> None:
    relation, expected = RELATIONS[name]
    assert sorted(map(repr, map(plain, spark.run(relation)[1]))) == sorted(map(repr, map(plain, expected)))


def test_a_failure_is_the_query_s(spark: Spark) -> None:
    with pytest.raises(InvalidQuery, match="too many"):
        spark.run(Project(RELATIONS["union"][0], (("x", call(Function.FAIL, Literal("too many"))),)))


@pytest.mark.skipif(not CASES, reason=NO_SOF_TESTS)
@pytest.mark.parametrize(("resources", "case"), CASES)
def test_official_case(spark: Spark, resources: list[dict[str, Any]], case: dict[str, Any], tmp_path: Path) -> None:
    def run(view: dict[str, Any], file: Path, _resources: list[dict[str, Any]]) -> Any:
        names, rows = spark.run(compile_view(view, R4).relation(str(file)))
        return names, [dict(zip(names, row, strict=True)) for row in rows]

    judge(run, resources, case, tmp_path)


@pytest.mark.timeout(600)
def test_random_views_give_the_evaluator_s_rows(spark: Spark, tmp_path: Path) -> None:
    from pyspark.errors import AnalysisException

    file = tmp_path / "resources.ndjson"

    @settings(
        max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None,
        phases=[Phase.explicit, Phase.generate],
    )  # fmt: skip
    @given(case=views())
    def check(case: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
        view, resources = case
        try:
            compiled = compile_view(view, R4)
        except InvalidQuery:
            assume(False)
            return
        file.write_bytes(b"".join(orjson.dumps(r) + b"\n" for r in resources))
        expected = evaluated(view, resources)
        try:
            names, rows = spark.run(compiled.relation(str(file)))
        except InvalidQuery as error:
            assert expected is None or "deeper than SQL reads" in str(error), error
            return
        except AnalysisException as error:  # told, never other rows: docs/views.md
            assert "DATATYPE_MISMATCH" in str(error), error
            assert _repeats_several_paths(view), error
            return
        assert sorted(comparable(dict(zip(names, row, strict=True))) for row in rows) == expected

    check()


def _repeats_several_paths(part: Any) -> bool:
    if isinstance(part, dict):
        return len(part.get("repeat", ())) > 1 or any(map(_repeats_several_paths, part.values()))
    return isinstance(part, list) and any(map(_repeats_several_paths, part))
