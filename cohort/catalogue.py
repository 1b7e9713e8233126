"""The ready questions, code lists, value sets and descents of `mappings`, loaded; documents of people, read."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson
import yaml

from bridge.errors import InvalidQuery
from cohort.codes import Code, Terminology
from cohort.outcome import Definition
from cohort.outcome_document import parse_outcome
from cohort.question import Question
from cohort.question_document import parse_question
from cohort.returns import Columns
from cohort.schema import catalogue

MAXIMUM_DOCUMENT = 262_144
"""Bytes of a question document."""


@lru_cache(maxsize=1)
def questions() -> dict[str, Question]:
    """name → question, for every document in mappings/questions."""
    folder = files("mappings") / "questions"
    documents = [yaml.safe_load(f.read_text("utf-8")) for f in folder.iterdir() if f.name.endswith(".yaml")]
    return {q.name: q for q in sorted(map(read_question, documents), key=lambda q: q.name)}


def question(name: str) -> Question:
    """A ready question. Raises InvalidQuery naming the known ones."""
    found = questions().get(name)
    if found is None:
        raise InvalidQuery(f"no question {name!r}; known: {', '.join(questions())}")
    return found


def read_question(document: Any, given: Mapping[str, Any] | None = None) -> Question:
    """A document's question, with these values of its parameters. Raises InvalidQuery naming the place."""
    return parse_question(document, column_types(), terminology(), given)


@lru_cache(maxsize=1)
def outcomes() -> dict[str, Definition]:
    """name → outcome definition, for every document in mappings/outcomes."""
    folder = files("mappings") / "outcomes"
    documents = [yaml.safe_load(f.read_text("utf-8")) for f in folder.iterdir() if f.name.endswith(".yaml")]
    return {d.name: d for d in sorted(map(read_outcome, documents), key=lambda d: d.name)}


def outcome(name: str) -> Definition:
    """A ready outcome definition. Raises InvalidQuery naming the known ones."""
    found = outcomes().get(name)
    if found is None:
        raise InvalidQuery(f"no outcome {name!r}; known: {', '.join(outcomes())}")
    return found


def read_outcome(document: Any, given: Mapping[str, Any] | None = None) -> Definition:
    """A document's outcome definition, with these values of its parameters. Raises InvalidQuery naming the place."""
    return parse_outcome(document, column_types(), terminology(), given)


def outcome_file(path: Path) -> Definition:
    """The outcome definition of a YAML or JSON file. Raises InvalidQuery for one too large or not readable."""
    return read_outcome(_document(path))


def question_file(path: Path) -> Question:
    """The question of a YAML or JSON file. Raises InvalidQuery for one too large or not readable."""
    return read_question(_document(path))


def _document(path: Path) -> Any:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidQuery(f"{path.name}: cannot be read ({type(error).__name__})") from None
    if len(content) > MAXIMUM_DOCUMENT:
        raise InvalidQuery(f"{path.name}: larger than {MAXIMUM_DOCUMENT} bytes")
    try:
        return orjson.loads(content) if path.suffix == ".json" else yaml.safe_load(content)
    except orjson.JSONDecodeError:
        raise InvalidQuery(f"{path.name}: not JSON") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        raise InvalidQuery(f"{path.name}: not YAML{f', line {mark.line + 1}' if mark else ''}") from None


@lru_cache(maxsize=1)
def column_types() -> Columns:
    """table → column → DuckDB type, for every table that questions see."""
    return {name: {c.name: c.type for c in table.columns} for name, table in catalogue().items()}


@lru_cache(maxsize=1)
def terminology() -> Terminology:
    """The CSV lists (those with a column `reviewed`) and `closure.csv` of mappings/codes, the ValueSets of
    mappings/value_sets."""
    below: dict[Code, list[str]] = {}
    for row in _rows((files("mappings") / "codes" / "closure.csv").read_text("utf-8")):
        below.setdefault((row["system"], row["ancestor"]), []).append(row["descendant"])
    sets = [f for f in (files("mappings") / "value_sets").iterdir() if f.name.endswith(".json")]
    value_sets = {f.name.removesuffix(".json"): orjson.loads(f.read_bytes()) for f in sets}
    return Terminology(code_lists(), value_sets, below)


@lru_cache(maxsize=1)
def code_lists() -> dict[str, list[Code]]:
    """name → (system, code), for every CSV in mappings/codes that lists codes for questions."""
    found = {}
    for entry in (files("mappings") / "codes").iterdir():
        if entry.name.endswith(".csv") and entry.name != "closure.csv":
            rows = _rows(entry.read_text("utf-8"))
            if rows and "reviewed" in rows[0]:
                found[entry.name.removesuffix(".csv")] = [(row["system"], row["code"]) for row in rows]
    return found


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))
