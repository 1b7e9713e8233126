"""The FHIR type a path leads to, as far as its text and the types of FHIR tell. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from bridge.errors import InvalidQuery
from cohort import fhirpath_syntax as syntax

CHOICE_TYPES = frozenset(
    {
        "Base64Binary", "Boolean", "Canonical", "Code", "Date", "DateTime", "Decimal", "Id", "Instant", "Integer",
        "Integer64", "Markdown", "Oid", "PositiveInt", "String", "Time", "UnsignedInt", "Uri", "Url", "Uuid", "Address",
        "Age", "Annotation", "Attachment", "CodeableConcept", "CodeableReference", "Coding", "ContactPoint", "Count",
        "Distance", "Duration", "HumanName", "Identifier", "Money", "Period", "Quantity", "Range", "Ratio",
        "RatioRange", "Reference", "SampledData", "Signature", "Timing", "ContactDetail", "Contributor",
        "DataRequirement", "Expression", "ParameterDefinition", "RelatedArtifact", "TriggerDefinition", "UsageContext",
        "Dosage", "Meta",
    }
)  # fmt: skip
"""What can follow the name of a choice element in JSON (FHIR R4 2.24.0.1, R5): value[x] is valueQuantity or the like.
Other endings are other elements: ImagingStudy.series has number and numberOfInstances."""


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
