"""Which elements a FHIR R4 type has, of which type, and whether they repeat: from the models of fhir.resources (R4B,
whose elements are R4's for every type this project makes or reads)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args, get_origin

from fhir.resources.R4B import get_fhir_model_class

from bridge.errors import InvalidQuery
from cohort.path_sql import Types

PRIMITIVES = frozenset(
    {
        "base64Binary", "boolean", "canonical", "code", "date", "dateTime", "decimal", "id", "instant", "integer",
        "integer64", "markdown", "oid", "positiveInt", "string", "time", "unsignedInt", "uri", "url", "uuid",
        "xhtml",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Element:
    """One element: its type ("" if it is a choice of types), whether it repeats, and a choice's types."""

    type: str
    many: bool = False
    choice: tuple[str, ...] = ()


@cache
def elements(type_: str) -> Mapping[str, Element]:
    """The elements of a resource or data type, by name; `value` for value[x]. Raises InvalidQuery if there is no such
    type.

    >>> elements("Patient")["name"]
    Element(type='HumanName', many=True, choice=())
    """
    try:
        fields = get_fhir_model_class(type_).model_fields
    except ValueError:
        raise InvalidQuery(f"FHIR R4 has no type {type_}") from None
    found: dict[str, Element] = {}
    choices: dict[str, list[str]] = {}
    for name, field in fields.items():
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        json_name = field.alias or name
        if not extra.get("element_property") or json_name.startswith("_"):
            continue
        kind, many = _type(field.annotation, field.metadata)
        choice = extra.get("one_of_many")
        if isinstance(choice, str):
            choices.setdefault(choice, []).append(kind)
        else:
            found[json_name] = Element(kind, many)
    return found | {name: Element("", False, tuple(types)) for name, types in choices.items()}


R4 = Types(elements, PRIMITIVES)
"""What compiling a view needs to know of FHIR."""


def _type(annotation: Any, metadata: Any) -> tuple[str, bool]:
    """(type, repeats?) of a model's field."""
    for marker in metadata or ():
        if (name := _primitive(marker)) is not None:
            return name, False
    if annotation is bool:
        return "boolean", False
    if get_origin(annotation) is list:
        (item,) = get_args(annotation)
        return _type(item, ())[0], True
    if hasattr(annotation, "__metadata__"):
        return _type(annotation.__origin__, annotation.__metadata__)
    for option in get_args(annotation):
        if option is not type(None):
            kind, many = _type(option, ())
            if kind:
                return kind, many
    name = getattr(annotation, "__name__", "")
    return name.removesuffix("Type") if name.endswith("Type") else "", False


def _primitive(marker: Any) -> str | None:
    name = type(marker).__name__.removesuffix("Version")  # UuidVersion is pydantic's
    name = name[:1].lower() + name[1:]
    return name if name in PRIMITIVES else None
