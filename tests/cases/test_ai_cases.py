"""Every case of AI results: JSON and reviews in, FHIR R4 out, as a clinician can read and review them."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import pytest
from pydantic import TypeAdapter

from bridge.code_tables import code_tables
from bridge.findings.contract import read_result
from bridge.findings.report import resources
from bridge.findings.review import Review, check_review, standing
from bridge.translate.r5 import to_r5
from bridge.translate.r5_selections import with_selections
from tests.validity import told_wrong, told_wrong_in_both

CASES = {f.name: json.loads(f.read_text("utf-8")) for f in (files("mappings") / "ai_cases").iterdir()}
REVIEW = TypeAdapter(Review)


def made(case: dict[str, Any]) -> list[dict[str, Any]]:
    tables = code_tables()
    result, reviews = read_result(case["result"], tables.coding_scheme), []
    for item in case["reviews"]:
        review = REVIEW.validate_json(json.dumps(item))
        check_review(review, standing(result, reviews))
        reviews.append(review)
    return list(resources(standing(result, reviews), case["imaging_study"], tables))


@pytest.mark.parametrize("name", sorted(CASES))
def test_case(name: str) -> None:
    case = CASES[name]
    assert made(case) == case["fhir"]


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_case_is_valid_in_both_versions_and_refers_only_to_what_there_is(name: str) -> None:
    case = CASES[name]
    known = {f"ImagingStudy/{case['imaging_study']['id']}", case["imaging_study"]["subject"]["reference"]}
    for resource in case["fhir"]:
        assert not told_wrong_in_both(resource)
        r5 = to_r5(resource)
        for one in with_selections(r5) if resource["resourceType"] == "Observation" else (r5,):
            assert not told_wrong(one, "r5")
            references = {r for r in _references(one) if not r.startswith("Observation/")}
            assert references <= known, references - known
            known.add(f"{one['resourceType']}/{one['id']}")
    assert {r for resource in case["fhir"] for r in _references(resource)} <= known


def _references(value: object) -> set[str]:
    if isinstance(value, dict):
        own = {value["reference"]} if isinstance(value.get("reference"), str) else set()
        return own.union(*map(_references, value.values())) if value else own
    return set[str]().union(*map(_references, value)) if isinstance(value, list) else set()


def test_there_are_cases() -> None:
    assert len(CASES) >= 5
