"""Codes by list, by ValueSet, by descent."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import InvalidQuery
from cohort.codes import Terminology

SCT = "http://snomed.info/sct"
BELOW = {(SCT, "root"): ["a", "b"], (SCT, "a"): ["a1"]}


def value_set(*include: Any, exclude: Any = (), **more: Any) -> dict[str, Any]:
    return {"resourceType": "ValueSet", "compose": {"include": list(include), "exclude": list(exclude)}} | more


def found(document: dict[str, Any], **others: dict[str, Any]) -> list[str]:
    return [code for _, code in Terminology({}, {"v": document, **others}, BELOW).in_value_set("v")]


def test_descendants_are_the_code_and_all_below_it() -> None:
    assert Terminology({}, {}, BELOW).descendants(SCT, "root") == ((SCT, "root"), (SCT, "a"), (SCT, "b"))
    with pytest.raises(InvalidQuery, match="closure table"):
        Terminology({}, {}, BELOW).descendants("http://loinc.org", "root")


def test_a_value_set_is_its_expansion_where_it_has_one() -> None:
    contains = [
        {"abstract": True, "system": SCT, "code": "root", "contains": [{"system": SCT, "code": "a"}]},
        {"system": SCT, "code": "b"},
    ]
    assert found(value_set({"system": SCT}, expansion={"contains": contains})) == ["a", "b"]


def test_a_value_set_is_composed_of_concepts_and_descents_without_what_it_excludes() -> None:
    is_a = {"system": SCT, "filter": [{"property": "concept", "op": "is-a", "value": "root"}]}
    below = {"system": SCT, "filter": [{"property": "concept", "op": "descendent-of", "value": "root"}]}
    concepts = {"system": SCT, "concept": [{"code": "x"}, {"code": "b"}]}
    assert found(value_set(concepts, is_a)) == ["x", "b", "root", "a"]
    assert found(value_set(below)) == ["a", "b"]
    assert found(value_set(is_a, exclude=[concepts])) == ["root", "a"]
    assert found(value_set(concepts | below)) == ["b"]


def test_a_value_set_includes_another() -> None:
    other = value_set({"system": SCT, "concept": [{"code": "x"}]}, url="urn:other")
    assert found(value_set({"valueSet": ["urn:other"]}), other=other) == ["x"]


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (value_set({"system": SCT}), "whole code system"),
        (value_set({"system": SCT, "filter": [{"property": "x", "op": "=", "value": "y"}]}), "terminology server"),
        (value_set({"valueSet": ["urn:gone"]}), "not here"),
        (value_set({"valueSet": ["urn:self"]}, url="urn:self"), "includes itself"),
    ],
)
def test_what_cannot_be_known_here_is_refused(document: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidQuery, match=told):
        found(document)
