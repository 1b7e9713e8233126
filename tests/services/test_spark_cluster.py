"""Spark with executors in processes of their own gives the rows that DuckDB gives."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cohort.catalogue import column_types, question, read_question
from cohort.dialects import duckdb as dialect
from cohort.engine.duckdb import connect
from cohort.question_answer import compile_question
from tests.question_cases import cases, generation, plain
from tests.services.peers import missing, program

pytestmark = pytest.mark.timeout(600)

ASKED = """
import json, sys
from datetime import date
from pathlib import Path
from cohort.catalogue import column_types, question, read_question
from cohort.engine.spark import rows_of, session, show_tables
from cohort.lake import Lake
from cohort.question_answer import compile_question
from tests.question_cases import plain
asked = read_question(question("osteosarcoma-ct").document, json.loads(sys.argv[2]))
relation = compile_question(asked, date.fromisoformat(sys.argv[3]), column_types())
with session("local-cluster[2,1,1024]") as spark:
    show_tables(spark, Lake(Path(sys.argv[1])).current())
    rows = rows_of(spark, relation, 1_000_000)[1]
    print("answer", json.dumps([spark.sparkContext.master, [plain(row) for row in rows]]))
"""
"""In a process of its own: a process has one Spark session, and other tests have theirs."""


def test_executors_of_a_cluster_give_the_same_rows(tmp_path: Path) -> None:
    program("java")
    try:
        import pyspark  # noqa: F401
    except ImportError:
        missing("pyspark")
    case = cases()["osteosarcoma-ct"]
    made, ask = generation(case, tmp_path), case["asks"][0]
    given = ask.get("parameters", {})
    command = [sys.executable, "-c", ASKED, str(tmp_path / "lake"), json.dumps(given), str(ask["date"])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told = next(line for line in done.stdout.splitlines() if line.startswith("answer "))
    master, rows = json.loads(told.removeprefix("answer "))
    assert master.startswith("local-cluster")
    relation = compile_question(read_question(question("osteosarcoma-ct").document, given), ask["date"], column_types())
    assert rows == [list(map(plain, row)) for row in connect(made).execute(dialect.sql(relation)).fetchall()]
    assert rows
