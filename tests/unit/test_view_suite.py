"""The official SQL-on-FHIR suite, every case of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from bridge.errors import InvalidQuery
from cohort.view import View
from tests.shared import NO_SOF_TESTS, SOF_TESTS

pytestmark = pytest.mark.skipif(not SOF_TESTS.is_dir(), reason=NO_SOF_TESTS)


def cases() -> Iterator[Any]:
    for path in sorted(SOF_TESTS.glob("*.json")):
        suite = json.loads(path.read_text("utf-8"))
        for case in suite["tests"]:
            yield pytest.param(suite["resources"], case, id=f"{path.stem}: {case['title']}")


def comparable(row: dict[str, Any]) -> str:
    return json.dumps({k: float(v) if type(v) is int else v for k, v in row.items() if v is not None}, sort_keys=True)


def run(view: dict[str, Any], resources: list[dict[str, Any]]) -> list[dict[str, Any]]:
    compiled = View(view)
    return [row for resource in resources for row in compiled.rows(resource)]


@pytest.mark.parametrize(("resources", "case"), list(cases()) if SOF_TESTS.is_dir() else [])
def test_official_case(resources: list[dict[str, Any]], case: dict[str, Any]) -> None:
    if case.get("expectError"):
        with pytest.raises(InvalidQuery):
            run(case["view"], resources)
        return
    rows = run(case["view"], resources)
    if "expectCount" in case:
        assert len(rows) == case["expectCount"]
    if "expectColumns" in case:
        assert [c.name for c in View(case["view"]).columns] == case["expectColumns"]
    if "expect" in case:
        assert sorted(map(comparable, rows)) == sorted(map(comparable, case["expect"]))


def test_the_whole_suite_is_there() -> None:
    assert sum(1 for _ in cases()) == 134
