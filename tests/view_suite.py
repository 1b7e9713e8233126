"""The cases of the official SQL-on-FHIR suite, and what it asks of an engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import InvalidQuery
from tests.shared import SOF_TESTS

Resource = dict[str, Any]
Rows = tuple[list[str], list[dict[str, Any]]]
"""Column names and rows."""

Engine = Callable[[dict[str, Any], Path, list[Resource]], Rows]
"""(view, NDJSON file of the view's resource type, all resources of the case) → rows; raises InvalidQuery."""


def cases() -> Iterator[tuple[str, list[Resource], dict[str, Any]]]:
    """(title, resources, case) of all files; none where the suite is not there."""
    for path in sorted(SOF_TESTS.glob("*.json")):
        suite = json.loads(path.read_text("utf-8"))
        for case in suite["tests"]:
            yield f"{path.stem}: {case['title']}", suite["resources"], case


def judge(run: Engine, resources: list[Resource], case: dict[str, Any], folder: Path) -> None:
    """Runs one case. Rows are compared as a multiset, numbers as numbers, an absent key as null."""
    view, file = case["view"], folder / "resources.ndjson"
    wanted = [r for r in resources if r["resourceType"] == view.get("resource")]
    file.write_text("".join(json.dumps(r) + "\n" for r in wanted), "utf-8")
    if case.get("expectError"):
        with pytest.raises(InvalidQuery):
            run(view, file, resources)
        return
    names, rows = run(view, file, resources)
    if "expectCount" in case:
        assert len(rows) == case["expectCount"]
    if "expectColumns" in case:
        assert names == case["expectColumns"]
    if "expect" in case:
        assert sorted(map(comparable, rows)) == sorted(map(comparable, case["expect"]))


def comparable(row: dict[str, Any]) -> str:
    """A row as text that is the same for rows that count as the same."""
    return json.dumps({k: _plain(v) for k, v in row.items() if v is not None}, sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(v) for v in value]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return round(float(value), 9) + 0.0 if number else value
