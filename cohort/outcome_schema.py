"""The JSON Schema of outcome documents, made from the same tables that the reader checks by. Pure.

`mappings/outcomes/schema.json` is its text; a test holds the one to the other.
"""

from __future__ import annotations

from typing import Any

from cohort.kinds import KINDS
from cohort.outcome import Precedence
from cohort.outcome_document import DECIDES, FACTS, KEYS, MAXIMUM_RULES, NEEDED, READ
from cohort.places import MAXIMUM_DAYS
from cohort.question_schema import question_schema
from cohort.returns import Columns

_PARAMETER = {"type": "string", "pattern": r"^\$[a-z][a-z0-9_-]{0,59}$"}


def outcome_schema(columns: Columns) -> dict[str, Any]:
    """JSON Schema 2020-12. What it cannot say (an unknown list, a `$name` that is no parameter) the reader does."""
    shared = question_schema(columns)
    line = shared["properties"]["title"]
    whole = _or_parameter({"type": "integer", "minimum": 0, "maximum": MAXIMUM_DAYS})
    number = _or_parameter({"type": "number"})
    known = {
        **{k: shared["properties"][k] for k in ("name", "title", "description", "parameters")},
        "finding": _object({"codes": _codes(), "where": {"$ref": "#/$defs/where_finding"}}, "codes"),
        "score": _object({"threshold": number, "confidence_of": {"enum": ["answer", "finding"]}, "positive": _codes()}),
        "index": {"enum": ["study", "prediction"]},
        "within_days": whole,
        "evidence": _rules("rule"),
        "precedence": {"enum": list(Precedence)},
        "without_evidence": _object({"outcome": {"enum": list(DECIDES)}, "follow_up_days": whole}, "outcome"),
        "reader": _rules("reading"),
    }
    agrees = _object({"column": {"type": "string"}, "within": number}, "column", "within")
    rule = {"label": line, "outcome": {"enum": list(DECIDES)}, "agrees": agrees, "before_days": whole,
            "after_days": whole, "of": {"enum": ["patient"]}}  # fmt: skip
    reading = {"label": line, "outcome": {"enum": list(DECIDES[:2])}}
    dead = {"death": {"type": ["object", "null"], "maxProperties": 0}}
    return {
        "$schema": shared["$schema"],
        "title": "Outcome definition",
        "description": "Which later facts confirm or refute a finding. $name stands for a parameter's value.",
        **_object({k: known[k] for k in KEYS}, *NEEDED),
        "$defs": {
            **shared["$defs"],
            "rule": _one_fact(rule, {k: _fact(k) for k in FACTS} | dead),
            "reading": _one_fact(reading, {k: _fact(k) for k in READ}) | {"required": ["outcome"]},
        },
    }


def _fact(kind: str) -> dict[str, Any]:
    settings = {"where": {"$ref": f"#/$defs/where_{kind}"}, "having": {"$ref": "#/$defs/criterion"}}
    return _object(settings | ({"codes": _codes()} if KINDS[kind].codes else {}))


def _one_fact(settings: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    return _object(settings | facts) | {"oneOf": [{"required": [k]} for k in facts]}


def _rules(name: str) -> dict[str, Any]:
    return {"type": "array", "items": {"$ref": f"#/$defs/{name}"}, "minItems": 1, "maxItems": MAXIMUM_RULES}


def _codes() -> dict[str, Any]:
    code = {"$ref": "#/$defs/code"}
    return {"anyOf": [code, {"type": "array", "items": code, "minItems": 1}]}


def _object(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    made = {"type": "object", "properties": properties, "additionalProperties": False}
    return made | ({"required": list(required)} if required else {})


def _or_parameter(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, _PARAMETER]}
