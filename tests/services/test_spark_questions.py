"""Spark gives the rows that DuckDB gives: every ready question on its people, random questions on random tables."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bridge.errors import ConfigError
from cohort.attrition import compile_attrition
from cohort.catalogue import column_types, question, read_question
from cohort.cli import app
from cohort.comparison import compile_comparison
from cohort.dialects import duckdb as dialect
from cohort.engine.duckdb import connect
from cohort.engine.spark import rows_of, session, show_tables
from cohort.expression import Column
from cohort.lake import Lake
from cohort.question_answer import compile_question, result_columns
from cohort.relation import Project, Relation, Table
from tests.policies import EVERYTHING_TOML
from tests.question_cases import cases, generation, lines, plain
from tests.random_questions import TODAY, document, tables
from tests.services.peers import missing, program
from tests.unit.test_oracle import connected

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(600)]
CASES = cases()
EVERYTHING = 1_000_000


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    program("java")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with session() as made:
                made.conf.set("spark.sql.shuffle.partitions", "2")
                yield made
        except ConfigError:
            missing("pyspark")


@pytest.mark.parametrize("name", sorted(CASES))
def test_every_ready_question_has_the_rows_expected(spark: Any, name: str, tmp_path: Path) -> None:
    made = generation(CASES[name], tmp_path)
    show_tables(spark, made)
    connection = connect(made)
    for ask in CASES[name]["asks"]:
        asked = read_question(question(name).document, ask.get("parameters", {}))
        relation = compile_question(asked, ask["date"], column_types())
        _, found = rows_of(spark, relation, EVERYTHING)
        named = result_columns(asked)
        assert [[plain(row[named.index(column)]) for column in ask["columns"]] for row in found] == ask["rows"]
        assert [plain(row) for row in found] == rows_on_duckdb(connection, relation)
    relation = compile_attrition(asked, ask["date"], column_types())
    assert [plain(row) for row in rows_of(spark, relation, EVERYTHING)[1]] == rows_on_duckdb(connection, relation)


def test_a_changed_lake_shows_the_rows_that_count(spark: Any, tmp_path: Path) -> None:
    case = CASES["osteosarcoma-ct"]
    generation(case, tmp_path)
    lake = Lake(tmp_path / "lake")
    lake.append([{**line, "revision": 2, "deleted": n % 2 == 0} for n, line in enumerate(lines(case)) if n % 3 == 0
                 and line["kind"] == "resource"])  # fmt: skip
    made = lake.publish(datetime(2026, 1, 1, tzinfo=UTC))
    assert made is not None
    assert [one for table in made.tables.values() for one in table.layers if one.gone]
    show_tables(spark, made)
    connection = connect(made)
    for name, table in made.tables.items():
        relation = Project(Table(name), tuple((c.name, Column(c.name)) for c in table.columns))
        _, found = rows_of(spark, relation, EVERYTHING)
        assert sorted(map(repr, map(plain, found))) == sorted(map(repr, rows_on_duckdb(connection, relation))), name


def test_a_comparison_has_the_same_rows(spark: Any, tmp_path: Path) -> None:
    made = generation(CASES["osteosarcoma-ct"], tmp_path)
    show_tables(spark, made)
    compared = [read_question(question(name).document) for name in ("osteosarcoma-ct", "cancer-staging")]
    relation = compile_comparison(compared[0], compared[1], date(2026, 11, 24), column_types())
    found = [plain(row) for row in rows_of(spark, relation, EVERYTHING)[1]]
    assert found == rows_on_duckdb(connect(made), relation)
    assert ["patients", "all", 5, 0] in found


@pytest.mark.parametrize("seed", range(200, 203))
def test_random_questions_have_the_same_rows(spark: Any, seed: int, tmp_path: Path) -> None:
    with connected(tables(seed)) as connection:
        for name in column_types():
            file = tmp_path / f"{name}.parquet"
            connection.execute(f"COPY \"{name}\" TO '{file}' (FORMAT parquet)")
            spark.read.parquet(str(file)).createOrReplaceTempView(f"`{name}`")
        for n in range(seed * 1000, seed * 1000 + 25):
            asked = read_question(document(n))
            relation = compile_question(asked, TODAY, column_types())
            found = [plain(row) for row in rows_of(spark, relation, EVERYTHING)[1]]
            assert found == rows_on_duckdb(connection, relation), (n, document(n))


def rows_on_duckdb(connection: Any, relation: Relation) -> list[Any]:
    return [plain(row) for row in connection.execute(dialect.sql(relation)).fetchall()]


def test_the_command_asks_spark(tmp_path: Path) -> None:
    program("java")
    generation(CASES["repeated-ct"], tmp_path)
    (tmp_path / "bridge.toml").write_text(EVERYTHING_TOML)
    seen = ["--lake", str(tmp_path / "lake"), "--config", str(tmp_path / "bridge.toml")]
    command = ["ask", "repeated-ct", "--date", "2024-02-29", *seen, "--engine", "spark"]
    done = CliRunner().invoke(app, [*command, "--format", "csv"])
    assert done.exit_code == 0, done.output
    assert [line.split(",")[0] for line in done.output.splitlines()] == ["patient_id", "merged", "three"]
    done = CliRunner().invoke(app, [*command, "--attrition", "--format", "csv"])
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[1].startswith("0,All: patient,")
