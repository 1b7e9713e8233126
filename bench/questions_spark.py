"""Ready questions asked of Spark on two threads, over the files of a lake's generation."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from datetime import date
from typing import Any

from bench.flatten import cpu_s
from cohort.catalogue import read_question
from cohort.engine.spark import rows_of, session, show_tables
from cohort.generation import Generation
from cohort.question import Question
from cohort.question_answer import compile_question

MEMORY = "6g"
"""Of Spark; with its own 1 GB it gives up on some of the questions."""

ROWS, RUNS, PATIENCE_S = 10_000, 5, 60.0
"""Of a question that takes longer, fewer runs than RUNS are made: those that begin within PATIENCE_S."""


class Spark:
    """A session that sees the tables of a generation."""

    def __init__(self, generation: Generation) -> None:
        self._generation, self._open = generation, ExitStack()

    def __enter__(self) -> Spark:
        os.environ["PYSPARK_SUBMIT_ARGS"] = f"--driver-memory {MEMORY} pyspark-shell"
        self._session: Any = self._open.enter_context(session())
        self._session.conf.set("spark.sql.shuffle.partitions", "4")  # for two cores; 200 is for a cluster
        show_tables(self._session, self._generation)
        self._process = self._session._jvm.java.lang.ProcessHandle.current().pid()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def asked(self, wanted: Question, today: date, count: int) -> tuple[list[float], list[float]]:
        """Seconds and CPU seconds of each run after one that is not counted. The answer has `count` rows, or as many
        as are given at most."""
        relation = compile_question(read_question(wanted.document), today, self._generation.column_types, ROWS + 1)
        walls: list[float] = []
        cpus: list[float] = []
        for run in range(RUNS + 1):
            wall, cpu = time.perf_counter(), cpu_s(self._process)
            _, rows = rows_of(self._session, relation, ROWS + 1)
            assert len(rows) == min(count, ROWS + 1), f"Spark: {wanted.name}: {len(rows)} rows"
            if run:
                walls.append(time.perf_counter() - wall)
                cpus.append(cpu_s(self._process) - cpu)
            if sum(walls) > PATIENCE_S:
                break
        return walls, cpus
