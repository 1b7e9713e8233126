"""The FHIR type a path leads to, as far as its text and the types of FHIR tell. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from bridge.errors import InvalidQuery
from cohort import fhirpath_syntax as syntax


class Element(Protocol):
    """An element: its type, whether it repeats, the types of a choice (its own type is then "")."""

    @property
    def type(self) -> str: ...
    @property
    def many(self) -> bool: ...
    @property
    def choice(self) -> tuple[str, ...]: ...


Elements = Callable[[str], Mapping[str, Element]]
"""The elements of a type; raises InvalidQuery if there is no such type."""


def type_of(node: syntax.Node, focus: str, elements: Elements | None) -> str:
    """The type of what the path gives on a focus of a type; "" where that is open."""
    match node:
        case syntax.This():
            return focus
        case syntax.OfType(type_):
            return type_
        case syntax.Then(left, step):
            return type_of(step, type_of(left, focus, elements), elements)
        case syntax.Index(of, _):
            return type_of(of, focus, elements)
        case syntax.Call("where" | "first" | "last", _):
            return focus
        case syntax.Call("extension", _):
            return "Extension"
        case syntax.Member(name):
            return _member(name, focus, elements)
        case _:
            return ""


def _member(name: str, focus: str, elements: Elements | None) -> str:
    if name == focus or elements is None or not focus:
        return focus if name == focus else ""
    try:
        found = elements(focus).get(name)
    except InvalidQuery:
        return ""
    return found.type if found else ""
