"""Spark with executors in processes of their own gives the rows that DuckDB gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from cohort.catalogue import column_types, question, read_question
from cohort.dialects import duckdb as dialect
from cohort.engine.duckdb import connect
from cohort.engine.spark import rows_of, session, show_tables
from cohort.question_answer import compile_question
from tests.question_cases import cases, generation, plain
from tests.services.peers import missing, program

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(600)]


def test_executors_of_a_cluster_give_the_same_rows(tmp_path: Path) -> None:
    program("java")
    try:
        import pyspark  # noqa: F401
    except ImportError:
        missing("pyspark")
    case = cases()["osteosarcoma-ct"]
    made = generation(case, tmp_path)
    asked = read_question(question("osteosarcoma-ct").document, case["asks"][0].get("parameters", {}))
    relation = compile_question(asked, case["asks"][0]["date"], column_types())
    with session("local-cluster[2,1,1024]") as spark:
        show_tables(spark, made)
        _, found = rows_of(spark, relation, 1_000_000)
        assert spark.sparkContext.master.startswith("local-cluster")
    expected = connect(made).execute(dialect.sql(relation)).fetchall()
    assert [list(map(plain, row)) for row in found] == [list(map(plain, row)) for row in expected]
    assert found
