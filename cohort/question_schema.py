"""The JSON Schema of question documents, made from the same tables that the reader checks by. Pure.

`mappings/questions/schema.json` is its text; a test holds the one to the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cohort.kinds import DERIVED, KINDS
from cohort.places import MAXIMUM_DAYS, MAXIMUM_ITEMS, MAXIMUM_TEXT
from cohort.question_document import (
    AGES,
    MAXIMUM_AGE,
    MAXIMUM_COLUMNS,
    PARAMETER_TYPES,
    TESTS,
)
from cohort.returns import Columns

_PARAMETER = {"type": "string", "pattern": r"^\$[a-z][a-z0-9_-]{0,59}$"}
_NAME = {"type": "string", "pattern": "^[a-z][a-z0-9_-]{0,59}$"}
_LINE = {"type": "string", "minLength": 1, "maxLength": 3000}
_TEXT = {"type": "string", "minLength": 1, "maxLength": MAXIMUM_TEXT}
_DAY = {"type": "string", "format": "date", "pattern": r"^\d{4}-\d\d-\d\d$"}


def question_schema(columns: Columns) -> dict[str, Any]:
    """JSON Schema 2020-12. What it cannot say (an unknown list, a `$name` that is no parameter) the reader does."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Cohort question",
        "description": "Criteria and what to return. $name stands for a parameter's value.",
        **_object(
            {
                "name": _NAME,
                "title": _LINE,
                "description": _LINE,
                "parameters": {
                    "type": "object",
                    "propertyNames": _NAME,
                    "additionalProperties": _ref("parameter"),
                    "maxProperties": 50,
                },
                "index": _one_of({k: _ref(f"index_{k}") for k in KINDS if k != "patient"}),
                "criteria": {"anyOf": [_ref("criterion"), {"type": ["object", "null"], "maxProperties": 0}]},
                "return": _ref("return"),
            },
            ("name", "title", "description", "return"),
        ),
        "$defs": _definitions(columns),
    }


def _definitions(columns: Columns) -> dict[str, Any]:
    made = {
        "parameter": _object(
            {"type": {"enum": list(PARAMETER_TYPES)}, "default": {"type": ["number", "string"]}, "description": _LINE,
             "minimum": {"type": "number"}, "maximum": {"type": "number"}},
            ("type", "default", "description"),
        ),
        "return": _object(
            {"unit": {"enum": list(KINDS)}, "columns": _names(), "group_by": _names()}, ("unit",)
        ) | {"oneOf": [{"required": ["columns"]}, {"required": ["group_by"]}]},
        "criterion": _criterion(),
        "criteria": {"type": "array", "items": _ref("criterion"), "minItems": 1, "maxItems": MAXIMUM_ITEMS},
        "age": _object({"at": _choice(("today", "index", "unit"))} | dict.fromkeys(AGES[1:], _whole(0, MAXIMUM_AGE)))
        | {"anyOf": [{"required": [name]} for name in AGES[1:]]},
        "code": _code(),
        "period": _object(
            {"within_years": _whole(0, MAXIMUM_AGE), "within_days": _whole(0, MAXIMUM_DAYS),
             "at_least_days_ago": _whole(0, MAXIMUM_DAYS),
             "from": _or_parameter(_DAY), "until": _or_parameter(_DAY)}
        ) | {"minProperties": 1},
        "relation": _object(
            {"to": _choice(("index", "unit")), "overlaps": {"type": "boolean"}, "before": {"type": "boolean"},
             "after": {"type": "boolean"}}
            | dict.fromkeys(("within_days", "before_days", "after_days"), _whole(0, MAXIMUM_DAYS)),
            ("to",),
        ) | {"minProperties": 2},
    }  # fmt: skip
    made |= {f"test_{kind.lower()}": _tests(kind) for kind in TESTS}
    for kind in KINDS:
        made[f"where_{kind}"] = _where(kind, columns)
        made[kind] = _object(_event(kind))
        if kind != "patient":
            settings = {k: v for k, v in _event(kind).items() if k not in ("relation", "times", "of", "then")}
            made[f"index_{kind}"] = _object(settings, ("take",))
    return made


def _criterion() -> dict[str, Any]:
    leaves = {name: _ref(name) for name in ("age", *KINDS)}
    several = _object({"count": _whole(1, MAXIMUM_ITEMS), "of": _ref("criteria")}, ("count", "of"))
    combined = {"all": _ref("criteria"), "any": _ref("criteria"), "not": _ref("criterion"), "at_least": several}
    made = _one_of({**combined, **leaves})
    return made | {"properties": made["properties"] | {"label": _LINE}, "maxProperties": 2}


def _event(kind: str) -> dict[str, Any]:
    code = {"anyOf": [_ref("code"), {"type": "array", "items": _ref("code"), "minItems": 1, "maxItems": MAXIMUM_ITEMS}]}
    settings = {
        "codes": code,
        "where": _ref(f"where_{kind}"),
        "period": _ref("period"),
        "relation": _ref("relation"),
        "of": _choice(("patient",)),
        "times": _whole(1, 1000),
        "take": _choice(("first", "last")),
        "then": _ref(f"where_{kind}"),
        "having": _ref("criterion"),
    }
    spec = KINDS[kind]
    without = () if spec.day else ("period", "relation", "take", "then", "times")
    return {k: v for k, v in settings.items() if k not in without and (k != "codes" or spec.codes)}


def _where(kind: str, columns: Columns) -> dict[str, Any]:
    types = {**columns[KINDS[kind].table], **DERIVED.get(kind, {})}
    found = {c: {"INTEGER": "DOUBLE", "BIGINT": "DOUBLE"}.get(t, t) for c, t in types.items()}
    return _object({c: _ref(f"test_{t.lower()}") for c, t in found.items() if t in TESTS}) | {"minProperties": 1}


def _tests(kind: str) -> dict[str, Any]:
    value = _or_parameter({"BOOLEAN": {"type": "boolean"}, "DATE": _DAY, "DOUBLE": {"type": "number"}}.get(kind, _TEXT))
    several = {"anyOf": [value, {"type": "array", "items": value, "minItems": 1, "maxItems": MAXIMUM_ITEMS}]}
    tests = {
        t: {"type": "boolean"} if t == "present" else several
        if t in ("is", "not", "contains", "starts_with") else value
        for t in TESTS[kind]
    }  # fmt: skip
    return {"anyOf": [several, _object(tests) | {"minProperties": 1}]}


def _code() -> dict[str, Any]:
    text = _or_parameter(_TEXT)
    codes = {"anyOf": [text, {"type": "array", "items": text, "minItems": 1, "maxItems": MAXIMUM_ITEMS}]}
    coded = _object({"system": text, "code": codes}, ("system", "code"))
    ways = [coded, *(_object({way: text}, (way,)) for way in ("list", "value_set"))]
    return {"anyOf": [*ways, _object({"descendants_of": coded}, ("descendants_of",))]}


def _object(properties: Mapping[str, Any], required: Sequence[str] = ()) -> dict[str, Any]:
    made = {"type": "object", "properties": dict(properties), "additionalProperties": False}
    return made | ({"required": list(required)} if required else {})


def _one_of(properties: Mapping[str, Any]) -> dict[str, Any]:
    return _object(properties) | {"oneOf": [{"required": [name]} for name in properties]}


def _names() -> dict[str, Any]:
    return {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": MAXIMUM_COLUMNS, "uniqueItems": True}


def _whole(least: int, most: int) -> dict[str, Any]:
    return _or_parameter({"type": "integer", "minimum": least, "maximum": most})


def _choice(words: Sequence[str]) -> dict[str, Any]:
    return {"enum": list(words)}


def _or_parameter(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Data that does not begin with $, or a parameter."""
    return {"anyOf": [dict(schema), _PARAMETER]}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/$defs/{name}"}
