"""The Parameters of `$sql-run` and `$sql-export` (SQL on FHIR), read and checked. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bridge.errors import InvalidQuery

FORMATS = ("json", "ndjson", "csv", "parquet")
UNSUPPORTED = ("patient", "group", "_since", "source")
MOST_ROWS, MOST_VIEWS = 100_000, 20


@dataclass(frozen=True)
class Wanted:
    """One view: by the name of one of ours, or as given."""

    name: str
    definition: Mapping[str, Any] | None


@dataclass(frozen=True)
class ViewRequest:
    """What is asked: views, resources to use instead of the server's, and the form of the answer."""

    views: tuple[Wanted, ...]
    resources: tuple[Mapping[str, Any], ...]
    format: str
    limit: int
    header: bool


def read_request(body: Any, query: Mapping[str, str]) -> ViewRequest:
    """A Parameters resource, and `_format`, `_limit`, `header` of the query. Raises InvalidQuery, naming one."""
    if not isinstance(body, dict) or body.get("resourceType") != "Parameters":
        raise InvalidQuery("body: must be a Parameters resource")
    given = body.get("parameter", [])
    if not isinstance(given, list) or not all(isinstance(p, dict) for p in given):
        raise InvalidQuery("parameter: must be a list of objects")
    for one in given:
        if one.get("name") in UNSUPPORTED:
            raise InvalidQuery(f"{one['name']}: this parameter is not supported")
    parts = [p.get("part", []) for p in given if p.get("name") == "view"]
    views = [_wanted(part) for part in parts if isinstance(part, list)]
    if any(p.get("name") in ("viewReference", "viewResource") for p in given):
        views.append(_wanted(given))
    if not 1 <= len(views) <= MOST_VIEWS:
        raise InvalidQuery(f"viewReference or viewResource: one to {MOST_VIEWS} views are needed")
    resources = [p.get("resource") for p in given if p.get("name") == "resource"]
    if not all(isinstance(r, dict) for r in resources):
        raise InvalidQuery("resource: must hold a resource")
    values = {str(p.get("name")): v for p in given for k, v in p.items() if k.startswith("value")} | dict(query)
    return ViewRequest(tuple(views), tuple(r for r in resources if isinstance(r, dict)), *_form(values))


def _form(values: Mapping[str, Any]) -> tuple[str, int, bool]:
    format_ = str(values.get("_format", "json")).rpartition("/")[2]
    if format_ not in FORMATS:
        raise InvalidQuery(f"_format: allowed: {', '.join(FORMATS)}")
    limit = str(values.get("_limit", MOST_ROWS))
    if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit[:9]) <= MOST_ROWS or len(limit) > 9:
        raise InvalidQuery(f"_limit: allowed: 1 to {MOST_ROWS}")
    return format_, int(limit), str(values.get("header", "true")).lower() != "false"


def _wanted(parts: list[Any]) -> Wanted:
    named = {str(p.get("name")): p for p in parts if isinstance(p, dict)}
    if "viewResource" in named:
        definition = named["viewResource"].get("resource")
        if not isinstance(definition, dict):
            raise InvalidQuery("viewResource: must hold a ViewDefinition")
        return Wanted(str(definition.get("name", "view")), definition)
    reference = named.get("viewReference", {}).get("valueReference", {})
    text = reference.get("reference") if isinstance(reference, dict) else None
    if not isinstance(text, str) or not text.startswith("ViewDefinition/"):
        raise InvalidQuery("viewReference: must be a Reference to ViewDefinition/NAME")
    return Wanted(text.removeprefix("ViewDefinition/"), None)
