"""Judges FHIR resources by FHIR's own definitions, without fhir.resources: a second, independent opinion for tests."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from tests.fhir_definitions.definitions import Child, Definitions
from tests.fhir_definitions.references import Surroundings
from tests.fhir_definitions.rules import broken_rules

Json = dict[str, Any]
Found = Iterator[str]


def problems(resource: object, version: str) -> list[str]:
    """What is wrong with a resource by FHIR `r4` (4.0.1) or `r5` (5.0.0); [] when it is valid.

    Result  lines `place: what`: unknown elements, cardinality, types, formats of primitives, codes of required
            bindings, empty objects and arrays; where all that is right also the types of reference targets, contained
            resources and invariants (`rules`)
    """
    return judged(resource, held(version))


def judged(resource: object, known: Definitions) -> list[str]:
    """`problems` by these definitions."""
    judgement = _Judgement(known)
    return judgement.of_shape(resource) or judgement.of_meaning()


@cache
def held(version: str) -> Definitions:
    """The definitions of `r4` or `r5` that are kept beside this file."""
    return Definitions(json.loads(Path(__file__).with_name(f"{version}.json").read_text("utf-8")))


class _Judgement:
    """One resource being judged: first its shape, then what takes the shape for granted."""

    def __init__(self, known: Definitions) -> None:
        self._known = known
        self._later: list[Found] = []

    def of_shape(self, resource: object) -> list[str]:
        return list(self._resource(resource, "", None))

    def of_meaning(self) -> list[str]:
        return [problem for found in self._later for problem in found]

    def _resource(self, value: object, place: str, outside: Surroundings | None, contained: bool = False) -> Found:
        kind = value.get("resourceType") if isinstance(value, dict) else None
        if not isinstance(value, dict) or not isinstance(kind, str):
            yield f"{place or 'resource'}: not an object with a resourceType"
        elif self._known.kinds.get(kind) != "resource" or kind == "Resource":
            yield f"{place or 'resource'}: {kind} is no resource type that is known here"
        else:
            around = Surroundings.of(value, outside, contained)
            content = {k: v for k, v in value.items() if k != "resourceType"}
            yield from self._object(content, kind, place or kind, around)
            if around.container is value:
                self._later.append(around.problems_of_contained(place or kind))

    def _object(self, value: object, node: str, place: str, around: Surroundings, targets: Any = ()) -> Found:
        if not isinstance(value, dict):
            yield f"{place}: is not an object"
            return
        if not value:
            yield f"{place}: is empty (ele-1)"
            return
        children, seen = self._known.children[node], dict[str, str]()
        for name in dict.fromkeys(key.removeprefix("_") for key in value):
            child = children.get(name)
            if child is None or (f"_{name}" in value and child.type not in self._known.primitives):
                yield f"{place}: {name} is unknown"
                continue
            if seen.setdefault(child.path, name) != name:
                yield f"{place}: {name} and {seen[child.path]} exclude each other"
            yield from self._values(value.get(name, _ABSENT), value.get(f"_{name}", _ABSENT), child, place, name,
                                    around, targets)  # fmt: skip
        for path in self._known.required.get(node, ()):
            if path not in seen:
                yield f"{place}: {path.rpartition('.')[2]} is missing"
        if node == "Reference":
            self._later.append(around.problems_of_reference(value, place, targets, self._known.resource_types))
        self._later.append(f"{place}: breaks {key}" for key in broken_rules(node, value))

    def _values(
        self, value: Any, extra: Any, child: Child, place: str, name: str, around: Surroundings, inherited: Any
    ) -> Found:
        """The values of one element; `extra` what stands beside a primitive: its id and extensions."""
        targets = child.targets or (inherited if child.path == "CodeableReference.reference" else ())
        here = f"{place}.{name}"
        if not child.many:
            yield from self._one(value, extra, child, here, around, targets)
            return
        given = [v for v in (value, extra) if v is not _ABSENT]
        if not all(isinstance(v, list) for v in given):
            yield f"{here}: is not an array"
        elif not all(given):
            yield f"{here}: is an empty array (ele-1)"
        elif len({len(v) for v in given}) > 1:
            yield f"{here}: has not as many values as extensions"
        else:
            both = zip(*(v if v is not _ABSENT else [_ABSENT] * len(given[0]) for v in (value, extra)), strict=True)
            for index, (one, beside) in enumerate(both):
                absent = one is None and beside not in (None, _ABSENT)
                beside = _ABSENT if beside is None else beside
                yield from self._one(_ABSENT if absent else one, beside, child, f"{here}[{index}]", around, targets)

    def _one(self, value: Any, extra: Any, child: Child, place: str, around: Surroundings, targets: Any) -> Found:
        if child.type in self._known.primitives:
            if value is not _ABSENT:
                wrong = self._known.primitives[child.type].problem(value)
                if wrong:
                    yield f"{place}: {wrong}"
                elif child.codes is not None and value not in child.codes:
                    yield f"{place}: is not one of the required codes"
            if extra is not _ABSENT:
                yield from self._object(extra, "Element", place, around)
        elif child.type == "Resource":
            yield from self._resource(value, place, around, child.path.endswith(".contained"))
        else:
            yield from self._object(value, child.node, place, around, targets)
            if child.codes is not None:
                self._later.append(_problems_of_concept(value, place, child.codes))


_ABSENT: Any = object()


def _problems_of_concept(concept: Json, place: str, codes: Collection[str]) -> Found:
    """Whether a Coding, or one coding of a CodeableConcept, has one of these codes."""
    if not any(c.get("code") in codes for c in (concept, *concept.get("coding", ()))):
        yield f"{place}: has none of the required codes"
