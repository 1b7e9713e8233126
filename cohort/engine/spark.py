"""Questions on Spark SQL, over the Parquet files of one generation. Needs PySpark (the extra `spark`) and Java."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from functools import reduce
from typing import Any

from bridge.errors import ConfigError, InvalidQuery
from cohort.answer import Answer
from cohort.attrition import compile_attrition
from cohort.catalogue import read_question
from cohort.dialects import spark as dialect
from cohort.generation import Generation
from cohort.layers import GONE_COLUMN, Layer
from cohort.question import Question
from cohort.question_answer import compile_question
from cohort.relation import Relation
from cohort.sandbox import Limits

_TYPES = {
    "VARCHAR": "STRING", "INTEGER": "INT", "BIGINT": "BIGINT", "DOUBLE": "DOUBLE", "BOOLEAN": "BOOLEAN", "DATE": "DATE",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMP", "VARCHAR[]": "ARRAY<STRING>",
}  # fmt: skip
LOCAL = "local[2]"
"""Spark's master: two threads of this machine."""

SETTINGS = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.sql.session.timeZone": "UTC",
}


def ask(
    generation: Generation, question: Question, given: Mapping[str, Any], today: date, limits: Limits | None = None
) -> Answer:
    """The answer to a question, as `cohort.sandbox.ask` gives it, in a Spark session of this process.
    Raises InvalidQuery for parameters it does not take, ConfigError where Spark is not installed."""
    asked, limits = read_question(question.document, given), limits or Limits()
    return _run(generation, compile_question(asked, today, generation.column_types, limits.rows + 1), limits)


def attrition(
    generation: Generation, question: Question, given: Mapping[str, Any], today: date, limits: Limits | None = None
) -> Answer:
    """How many remain after each criterion. Raises as `ask` does."""
    asked = read_question(question.document, given)
    return _run(generation, compile_attrition(asked, today, generation.column_types), limits or Limits())


def _run(generation: Generation, relation: Relation, limits: Limits) -> Answer:
    with session() as spark:
        started = time.monotonic()
        show_tables(spark, generation)
        columns, rows = rows_of(spark, relation, limits.rows + 1)
        elapsed = round(time.monotonic() - started, 3)
    return Answer(columns, rows[: limits.rows], len(rows) > limits.rows, generation.id, elapsed)


def show_tables(spark: Any, generation: Generation) -> None:
    """Makes the generation's tables views of the session."""
    generation.fetch(generation.tables)
    for table in generation.tables.values():
        columns = [(c.name, c.type) for c in table.columns]
        live = [_live(spark, one).select(*(f"`{name}`" for name, _ in columns)) for one in table.layers]
        rows = reduce(lambda one, other: one.unionAll(other), live) if live else _none(spark, columns)
        rows.createOrReplaceTempView(f"`{table.name}`")


def _live(spark: Any, one: Layer) -> Any:
    """The rows of a file that count."""
    rows = spark.read.parquet(str(one.file))
    if one.gone is None:
        return rows
    gone = spark.read.parquet(str(one.gone))
    return rows.join(gone, rows["_metadata.row_index"] == gone[GONE_COLUMN], "left_anti")


def _none(spark: Any, columns: Sequence[tuple[str, str]]) -> Any:
    """No rows, of these columns."""
    schema = ", ".join(f"`{name}` {_TYPES[kind]}" for name, kind in columns)
    return spark.createDataFrame([], schema)


def rows_of(
    spark: Any, relation: Relation, most: int
) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[Any, ...], ...]]:
    """Columns (name, Spark type) and rows of a relation over the session's views, at most so many.
    Raises InvalidQuery when Spark fails while it computes them."""
    from pyspark.errors import PySparkException

    try:
        frame = spark.sql(dialect.sql(relation))
        rows = tuple(tuple(map(_plain, row)) for row in frame.take(most))
    except PySparkException as error:
        raise InvalidQuery(f"Spark: {type(error).__name__}") from None
    return tuple(frame.dtypes), rows


@contextmanager
def session(master: str = LOCAL) -> Iterator[Any]:
    """A Spark session, in UTC. Raises ConfigError where PySpark is not installed or the master cannot be had."""
    try:
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError:
        raise ConfigError("PySpark is not installed: pip install 'imaging-bridge[spark]'; Java is needed too") from None
    builder = SparkSession.builder.master(master)
    for name, value in SETTINGS.items():
        builder = builder.config(name, value)
    try:
        found = builder.getOrCreate()
    except PySparkException as error:
        raise ConfigError(f"Spark does not start ({type(error).__name__}): is Java 17 installed?") from None
    found.sparkContext.setLogLevel("OFF")
    try:
        yield found
    finally:
        found.stop()


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()  # Spark gives it in this machine's time zone, without one
    if isinstance(value, date):
        return value.isoformat()
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
