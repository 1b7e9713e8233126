"""Runs queries in a process of their own that limits can kill. People's SQL passes a gate first (`cohort.gate`)."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import orjson

from bridge.errors import InvalidQuery, Unavailable
from cohort.answer import Answer
from cohort.attrition import compile_attrition
from cohort.catalogue import column_types, read_question
from cohort.comparison import compile_comparison
from cohort.dialects import duckdb
from cohort.generation import Generation
from cohort.question import Question
from cohort.question_answer import compile_question
from cohort.relation import Relation

MAXIMUM_SQL = 100_000


@dataclass(frozen=True)
class Limits:
    """What one query may use. Bytes of address space, seconds of CPU and of waiting, rows and bytes of answer."""

    rows: int = 10_000
    address_space: int = 4_294_967_296
    memory_mb: int = 1024
    cpu_s: int = 60
    deadline_s: float = 30.0
    answer_bytes: int = 67_108_864


def ask(
    generation: Generation, question: Question, given: Mapping[str, Any], today: date, limits: Limits | None = None
) -> Answer:
    """The answer to a question. Raises InvalidQuery for parameters it does not take, Unavailable past a limit."""
    asked = read_question(question.document, given)
    return run(generation, compile_question(asked, today, column_types()), limits)


def attrition(
    generation: Generation, question: Question, given: Mapping[str, Any], today: date, limits: Limits | None = None
) -> Answer:
    """How many remain after each criterion. Raises as `ask` does."""
    return run(generation, compile_attrition(read_question(question.document, given), today, column_types()), limits)


def compare(
    generation: Generation, first: Question, second: Question, today: date, limits: Limits | None = None
) -> Answer:
    """Two cohorts beside each other; the questions have their values. Raises as `ask` does."""
    return run(generation, compile_comparison(first, second, today, column_types()), limits)


def run(generation: Generation, relation: Relation, limits: Limits | None = None) -> Answer:
    """The rows of a relation over the lake's tables. Raises InvalidQuery and Unavailable as `ask` does."""
    return _run(generation, duckdb.sql(relation), [], gated=False, limits=limits or Limits())


def run_sql(generation: Generation, sql: str, limits: Limits | None = None) -> Answer:
    """The answer to a person's SELECT. Raises InvalidQuery when it is not allowed or not right."""
    if len(sql) > MAXIMUM_SQL:
        raise InvalidQuery(f"sql: longer than {MAXIMUM_SQL} characters")
    return _run(generation, sql, [], gated=True, limits=limits or Limits())


def select(generation: Generation, sql: str, bound: list[Any], limits: Limits | None = None) -> Answer:
    """The answer to a SELECT of our own with bound values: never one that a person wrote."""
    return _run(generation, sql, bound, gated=False, limits=limits or Limits())


def _run(generation: Generation, sql: str, bound: list[Any], *, gated: bool, limits: Limits) -> Answer:
    # A table that the text does not name cannot be asked: its files are neither fetched nor opened.
    tables = {name: table for name, table in generation.tables.items() if name in sql.lower()}
    generation.fetch(tables)
    request = {
        "sql": sql,
        "bound": bound,
        "gated": gated,
        "rows": limits.rows,
        "address_space": limits.address_space,
        "memory_mb": limits.memory_mb,
        "cpu_s": limits.cpu_s,
        "answer_bytes": limits.answer_bytes,
        "files": next((str(one.file.parent) for t in tables.values() for one in t.layers), ""),
        "known": list(generation.tables),
        "tables": {
            name: {"layers": [one.entry() for one in t.layers], "columns": [[c.name, c.type] for c in t.columns]}
            for name, t in tables.items()
        },
    }
    started = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-m", "cohort.worker"],
            input=orjson.dumps(request),
            capture_output=True,
            timeout=limits.deadline_s,
            check=False,
            env={},  # credentials may stand in ours
        )
    except subprocess.TimeoutExpired:
        raise InvalidQuery(f"the query took longer than {limits.deadline_s:g} s and was ended") from None
    return _answer(done, generation.id, time.monotonic() - started)


def _answer(done: subprocess.CompletedProcess[bytes], generation: str, elapsed_s: float) -> Answer:
    try:
        told = orjson.loads(done.stdout)
    except orjson.JSONDecodeError:
        if done.returncode < 0:
            raise InvalidQuery("the query used more memory or CPU time than allowed and was ended") from None
        raise Unavailable("the query's process failed to answer") from None
    if "error" in told:
        raise InvalidQuery(told["error"])
    columns = tuple((str(name), str(kind)) for name, kind in told["columns"])
    return Answer(columns, tuple(map(tuple, told["rows"])), told["truncated"], generation, round(elapsed_s, 3))
