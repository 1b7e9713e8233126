"""The syntax tree, on DuckDB; tests/services runs the same relations on Spark."""

from __future__ import annotations

from typing import Any

import duckdb
import pytest

from bridge.errors import InvalidQuery
from cohort.dialects import duckdb as dialect
from cohort.dialects import spark
from cohort.expression import AggregateFunction, Column, Function, Literal, Window, call
from cohort.relation import Project, Relation, Shared, Table, Union
from tests.relations import EXPRESSIONS, RELATIONS, expressions, plain


def run(relation: Relation) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        return connection.execute(dialect.sql(relation)).fetchall()


def test_every_expression_has_its_value() -> None:
    for (expression, expected), value in zip(EXPRESSIONS, expressions(run), strict=True):
        assert plain(value) == expected, expression


@pytest.mark.parametrize("name", RELATIONS)
def test_every_relation_has_its_rows(name: str) -> None:
    relation, expected = RELATIONS[name]
    assert sorted(map(repr, map(plain, run(relation)))) == sorted(map(repr, map(plain, expected)))


def test_a_failure_is_the_query_s() -> None:
    with pytest.raises(duckdb.Error, match="too many"):
        run(Project(RELATIONS["union"][0], (("x", call(Function.FAIL, Literal("too many"))),)))


@pytest.mark.parametrize("sql", [dialect.sql, spark.sql])
def test_what_no_dialect_can_say_alike_is_refused(sql: Any) -> None:
    one = Table("t")
    for value in (2**63, float("nan"), float("inf"), "a\0b", "\ud83d"):
        with pytest.raises(InvalidQuery):
            sql(Project(one, (("x", Literal(value)),)))
    for function in (AggregateFunction.LIST, AggregateFunction.COUNT_DISTINCT):
        with pytest.raises(InvalidQuery):
            sql(Project(one, (("x", Window(function, Column("y"))),)))
    with pytest.raises(InvalidQuery, match="two relations are called a"):
        sql(Union((Shared("a", one), Shared("a", Table("u")))))


def test_spark_gets_no_text_that_it_would_substitute() -> None:
    assert "${" not in spark.sql(Project(Table("t"), (("x", Literal("${spark.app.name}")),)))
    with pytest.raises(InvalidQuery, match=r"\$\{"):
        spark.sql(Table("${x}"))


def test_names_are_quoted() -> None:
    assert dialect.sql(Table('a"b')) == 'SELECT * FROM "a""b"'
    assert spark.sql(Table("a`b")) == "SELECT * FROM `a``b`"
