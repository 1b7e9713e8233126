"""Spark in this process: local[2], in UTC, on loopback."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bridge.errors import InvalidQuery
from cohort.dialects.spark import sql
from cohort.relation import Relation
from tests.services.peers import missing, program

SETTINGS = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.sql.analyzer.maxIterations": "1000",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.shuffle.partitions": "2",
}


class Spark:
    """A session that runs relations."""

    def __init__(self, session: Any) -> None:
        self.session = session

    def run(self, relation: Relation) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Column names and rows. Raises InvalidQuery when Spark fails while it computes them."""
        from pyspark.errors import PySparkException

        frame = self.session.sql(sql(relation))
        try:
            return frame.columns, [tuple(map(_plain, row)) for row in frame.collect()]
        except PySparkException as error:
            raise InvalidQuery(str(error)) from None


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value


@contextmanager
def running_spark() -> Iterator[Spark]:
    """A session; the test is skipped where Spark or Java is not installed."""
    program("java")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from pyspark.sql import SparkSession
        except ImportError:
            missing("pyspark (requirements-spark.lock)")
        builder = SparkSession.builder.master("local[2]")
        for name, value in SETTINGS.items():
            builder = builder.config(name, value)
        session = builder.getOrCreate()
    session.sparkContext.setLogLevel("OFF")
    try:
        yield Spark(session)
    finally:
        session.stop()
