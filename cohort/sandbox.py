"""Runs queries in processes that limits can kill. People's SQL passes a gate first (`cohort.gate`), in a process of its
own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

import orjson

from bridge.errors import InvalidQuery, NotAllowed, Unavailable
from cohort.answer import Answer
from cohort.attrition import compile_attrition
from cohort.catalogue import read_question
from cohort.comparison import compile_comparison
from cohort.dialects import duckdb
from cohort.generation import Generation, Table
from cohort.question import Question
from cohort.question_answer import compile_question, texts_of
from cohort.relation import Relation
from cohort.watch import Watch
from cohort.workers import WORKERS, Died, Late, alone

MAXIMUM_SQL = 100_000


@dataclass(frozen=True)
class Limits:
    """What one query may use: bytes of address space, seconds of CPU and of waiting, rows and bytes of answer. `watch`
    sees how far it is, and can end it."""

    rows: int = 10_000
    address_space: int = 4_294_967_296
    memory_mb: int = 1024
    cpu_s: int = 60
    deadline_s: float = 30.0
    answer_bytes: int = 67_108_864
    watch: Watch | None = None


@dataclass(frozen=True)
class Task:
    """One query to run.

    `gate`: "ours" (SQL that the program made), "rows" (people's, over the tables), "counts" (people's, that may count
    patients and nothing else, none under `small_cells`). `views` stand in the place of tables and `variables` are what
    they need (cohort.engine.duckdb). `nice` is how far the process stands back for others (0 to 19).
    """

    sql: str
    bound: tuple[Any, ...] = ()
    gate: Literal["ours", "rows", "counts"] = "ours"
    small_cells: int = 1
    views: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    nice: int = 0
    columns: tuple[tuple[str, str], ...] = ()


Run = Callable[[Generation, Task, Limits | None], Answer]
"""What runs a task: `run`, or what stands before it (`cohort.desk`)."""


def ask(
    generation: Generation, question: Question, given: Mapping[str, Any], today: date, limits: Limits | None = None
) -> Answer:
    """The exact answer to a question, as it is stored. Raises InvalidQuery for parameters it does not take or past a
    limit. What people see comes from `cohort.desk`."""
    asked, limits = read_question(question.document, given), limits or Limits()
    columns = generation.column_types
    sql = duckdb.sql(compile_question(asked, today, columns, limits.rows + 1, as_json=True))
    return run(generation, Task(sql, columns=texts_of(asked, columns, as_json=True)), limits)


def attrition(
    generation: Generation, question: Question, given: Mapping[str, Any], today: date, limits: Limits | None = None
) -> Answer:
    """Exactly how many remain after each criterion. Raises as `ask` does."""
    asked = read_question(question.document, given)
    return run(generation, task_of(compile_attrition(asked, today, generation.column_types)), limits)


def compare(
    generation: Generation, first: Question, second: Question, today: date, limits: Limits | None = None
) -> Answer:
    """Two cohorts beside each other, exactly; the questions have their values. Raises as `ask` does."""
    return run(generation, task_of(compile_comparison(first, second, today, generation.column_types)), limits)


def task_of(relation: Relation) -> Task:
    """The task that gives the rows of a relation over the lake's tables."""
    return Task(duckdb.sql(relation))


def run_sql(generation: Generation, sql: str, limits: Limits | None = None) -> Answer:
    """The exact answer to a person's SELECT. Raises InvalidQuery when it is not allowed or not right. What people see
    comes from `cohort.desk`."""
    return run(generation, Task(sql, gate="rows"), limits)


def run(generation: Generation, task: Task, limits: Limits | None = None) -> Answer:
    """Runs a task in a process that is killed at the deadline (cohort.workers). SQL that the program made goes on on
    disk where its memory ends (cohort.spill); people's ends. Raises InvalidQuery, Unavailable."""
    if task.gate != "ours" and len(task.sql) > MAXIMUM_SQL:
        raise InvalidQuery(f"sql: longer than {MAXIMUM_SQL} characters")
    limits = limits or Limits()
    ours = task.gate == "ours"
    tables = generation.tables if ours and generation.local else _named(generation, task)
    generation.fetch(tables, copies=True)
    opened = {
        "views": task.views,
        "variables": task.variables,
        "nice": task.nice,
        "address_space": limits.address_space,
        "memory_mb": limits.memory_mb,
        "files": next((str(one.file.parent.absolute()) for t in tables.values() for one in t.layers), ""),
        "tables": {
            name: {"layers": [one.entry() for one in t.layers], "columns": [[c.name, c.type] for c in t.columns]}
            for name, t in tables.items()
        },
    }
    asked = {
        "sql": task.sql,
        "bound": task.bound,
        "columns": task.columns,
        "gate": task.gate,
        "small_cells": task.small_cells,
        "rows": limits.rows,
        "cpu_s": limits.cpu_s,
        "answer_bytes": limits.answer_bytes,
        "known": list(generation.tables),
    }
    started = time.monotonic()
    told = _told(WORKERS.ask if ours else alone, opened, asked, limits)
    if "error" in told:
        raise (NotAllowed if told.get("refused") else InvalidQuery)(told["error"])
    columns = tuple((str(name), str(kind)) for name, kind in told["columns"])
    rows = tuple(tuple(row) for part in told["rows"] for row in part)
    return Answer(columns, rows, told["truncated"], generation.id, round(time.monotonic() - started, 3))


def _named(generation: Generation, task: Task) -> dict[str, Table]:
    """The tables that the SQL, or a view of one it names, may read: files of others are neither fetched nor opened."""
    views = task.views or {}
    wanted, text = set[str](), task.sql.lower()
    while more := {name for name in generation.tables if name in text and name not in wanted}:
        wanted |= more
        text = " ".join(views.get(name, "") for name in more).lower()
    return {name: table for name, table in generation.tables.items() if name in wanted}


def _told(ask: Callable[..., dict[str, Any]], opened: Any, asked: Any, limits: Limits) -> dict[str, Any]:
    """What a process answers, or why it did not, in words."""
    try:
        return ask(opened, asked, limits.deadline_s, limits.watch)
    except Late:
        raise InvalidQuery(f"the query took longer than {limits.deadline_s:g} s and was ended") from None
    except Died as died:
        if died.code < 0:
            raise InvalidQuery("the query used more memory or CPU time than allowed and was ended") from None
        raise Unavailable("the query's process failed to answer") from None
    except orjson.JSONDecodeError:
        raise Unavailable("the query's process failed to answer") from None
