"""The ready questions and code lists of `mappings`, loaded."""

from __future__ import annotations

import csv
from functools import lru_cache
from importlib.resources import files

import yaml

from bridge.errors import InvalidQuery
from cohort.question import Question, parse_question
from cohort.question_sql import CodeLists


@lru_cache(maxsize=1)
def questions() -> dict[str, Question]:
    """name → question, for every document in mappings/questions."""
    folder = files("mappings") / "questions"
    documents = [yaml.safe_load(f.read_text("utf-8")) for f in folder.iterdir() if f.name.endswith(".yaml")]
    return {q.name: q for q in sorted(map(parse_question, documents), key=lambda q: q.name)}


def question(name: str) -> Question:
    """A ready question. Raises InvalidQuery naming the known ones."""
    found = questions().get(name)
    if found is None:
        raise InvalidQuery(f"no question {name!r}; known: {', '.join(questions())}")
    return found


@lru_cache(maxsize=1)
def code_lists() -> CodeLists:
    """name → (system, code), for every CSV in mappings/codes that lists codes for questions."""
    found = {}
    for entry in (files("mappings") / "codes").iterdir():
        if not entry.name.endswith(".csv"):
            continue
        reader = csv.DictReader(entry.read_text("utf-8").splitlines())
        if reader.fieldnames and "reviewed" in reader.fieldnames:
            found[entry.name.removesuffix(".csv")] = [(row["system"], row["code"]) for row in reader]
    return found
