"""FHIR's definitions of one version, ready to look up what an object may have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.fhir_definitions.primitives import Primitive

Json = dict[str, Any]


@dataclass(frozen=True)
class Child:
    """One name an object may have: its element in the definitions, the FHIR type, and where its own children stand."""

    path: str
    type: str
    node: str
    many: bool
    targets: tuple[str, ...]
    codes: frozenset[str] | None


class Definitions:
    """Resource types and data types of one FHIR version, as `extract` makes them.

    Result  `children` type, or place in a resource → name → element; `required` the same → paths that must be there
    """

    def __init__(self, content: Json) -> None:
        self.resource_types = frozenset(content["resource_types"])
        self.kinds = {name: t["kind"] for name, t in content["types"].items()}
        self.primitives = {
            name: Primitive(name, t.get("regex")) for name, t in content["types"].items() if t["kind"] == "primitive"
        }
        self.children: dict[str, dict[str, Child]] = {name: {} for name in content["types"]}
        self.required: dict[str, list[str]] = {}
        codes = {url: frozenset(listed) for url, listed in content["codes"].items()}
        for type_ in content["types"].values():
            for path, element in type_.get("elements", {}).items():
                self._add(path, element, type_["elements"], codes)

    def _add(self, path: str, element: Json, elements: Json, codes: Mapping[str, frozenset[str]]) -> None:
        parent, _, name = path.rpartition(".")
        children = self.children.setdefault(parent, {})
        own = any(other.startswith(path + ".") for other in elements)
        bound = codes[element["codes"]] if "codes" in element else None
        if element["min"]:
            self.required.setdefault(parent, []).append(path)
        for type_, targets in element.get("types", {"": ()}).items():
            key = name.replace("[x]", type_[:1].upper() + type_[1:])
            node = element.get("same_as") or (path if own else type_)
            children[key] = Child(path, type_, node, element["max"] != "1", tuple(targets), bound)
            if element["max"] == "0":
                del children[key]
