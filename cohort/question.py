"""A cohort question as a document: parameters, criteria, what to return. Standard library only; strict.

A document holds data, never expressions: a value is plain, or `$name` for a parameter. Errors name the place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.errors import InvalidQuery

_NAME = re.compile(r"^[a-z][a-z0-9_-]{0,59}$")
PARAMETER_TYPES = ("integer", "number", "text", "code", "code_list")

CRITERIA: Mapping[str, Mapping[str, str]] = {
    "age": {"older_than_years": "number", "at_least_years": "number", "younger_than_years": "number"},
    "gender": {"is": "texts"},
    "condition": {"codes": "code_list", "within_years": "number", "not_verification": "texts"},
    "medication": {"codes": "code_list", "within_years": "number", "not_status": "texts", "intent": "texts"},
    "procedure": {"codes": "code_list", "within_years": "number", "not_status": "texts"},
    "observation": {"codes": "code_list", "unit": "text", "at_least": "number", "at_most": "number"},
    "report": {"text_contains": "text", "not_status": "texts"},
    "study": {
        "status": "texts",
        "modality": "texts",
        "within_years": "number",
        "description_contains": "text",
        "has_report": "boolean",
    },
    "series": {
        "modality": "texts",
        "body_part": "texts",
        "slice_thickness_at_most_mm": "number",
        "slice_thickness_at_least_mm": "number",
        "contrast": "boolean",
    },
}
"""criterion → its settings and their kinds. `study` speaks of the unit's study where there is one, else of any."""

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "patient": ("patient_id", "identifiers", "birth_date", "age_years", "age_decade", "gender", "medications"),
    "study": (
        "study_instance_uid", "started_date", "started_month", "started_year", "description", "accession_number",
        "modalities", "number_of_series", "number_of_instances", "reports", "report_ids", "endpoints",
    ),
    "series": (
        "series_instance_uid", "modality", "series_description", "body_part_examined", "manufacturer",
        "manufacturer_model_name", "slice_thickness_mm", "kvp_kv", "convolution_kernel", "contrast_bolus_agent",
        "magnetic_field_strength_t", "repetition_time_ms", "echo_time_ms", "pixel_spacing_row_mm",
        "instances_in_series",
    ),
}  # fmt: skip
"""What can be returned of each unit; a study also has its patient's columns, a series its study's and patient's."""

LISTS = ("identifiers", "medications", "modalities", "reports", "report_ids", "endpoints")
UNITS = tuple(COLUMNS)


@dataclass(frozen=True)
class Parameter:
    """One thing the asker may change: name, type, default, bounds, what it means."""

    name: str
    type: str
    default: Any
    description: str
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True)
class Criterion:
    """One condition: `kind` of CRITERIA with settings, or `all`, `any`, `not` over others."""

    kind: str
    settings: Mapping[str, Any]
    of: tuple[Criterion, ...] = ()


@dataclass(frozen=True)
class Question:
    """A question, read and checked. `group_by` counts instead of listing."""

    name: str
    title: str
    description: str
    parameters: tuple[Parameter, ...]
    criteria: Criterion
    unit: str
    columns: tuple[str, ...]
    group_by: tuple[str, ...]


def parse_question(document: Any) -> Question:
    """The question a loaded YAML or JSON document asks. Raises InvalidQuery naming the place in it."""
    top = _mapping(document, "question")
    _only(top, {"name", "title", "description", "parameters", "criteria", "return"}, "question")
    name = _text(top, "name", "question")
    if not _NAME.match(name):
        raise InvalidQuery(f"name: found {name!r}; allowed: lower-case letters, digits, - and _")
    parameters = tuple(
        _parameter(key, value) for key, value in _mapping(top.get("parameters", {}), "parameters").items()
    )
    returned = _mapping(top.get("return"), "return")
    _only(returned, {"unit", "columns", "group_by"}, "return")
    unit = _one_of(returned.get("unit"), UNITS, "return.unit")
    allowed = [c for u in UNITS[: UNITS.index(unit) + 1] for c in COLUMNS[u]]
    columns = _columns(returned.get("columns", []), allowed, "return.columns")
    group_by = _columns(returned.get("group_by", []), [c for c in allowed if c not in LISTS], "return.group_by")
    if bool(columns) == bool(group_by):
        raise InvalidQuery("return: give columns (to list) or group_by (to count), one of them")
    criteria = _criteria(top.get("criteria", {}), "criteria", {p.name for p in parameters})
    return Question(
        name, _text(top, "title", "question"), _text(top, "description", "question"), parameters, criteria, unit,
        columns, group_by,
    )  # fmt: skip


def with_values(question: Question, given: Mapping[str, Any]) -> dict[str, Any]:
    """Every parameter's value: as given, else its default. Raises InvalidQuery naming the parameter."""
    known = {p.name: p for p in question.parameters}
    for name in given:
        if name not in known:
            raise InvalidQuery(f"parameter {name}: unknown; allowed: {', '.join(known) or 'none'}")
    return {name: _checked(p, given.get(name, p.default)) for name, p in known.items()}


def _checked(parameter: Parameter, value: Any) -> Any:
    name = f"parameter {parameter.name}"
    if parameter.type in ("integer", "number"):
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise InvalidQuery(f"{name}: a number is needed") from None
        if parameter.type == "integer" and number != int(number):
            raise InvalidQuery(f"{name}: a whole number is needed")
        low = parameter.minimum if parameter.minimum is not None else -1e9
        high = parameter.maximum if parameter.maximum is not None else 1e9
        if not low <= number <= high:
            raise InvalidQuery(f"{name}: allowed are {low:g} to {high:g}")
        return int(number) if parameter.type == "integer" else number
    if not isinstance(value, str) or not value or len(value) > 200:
        raise InvalidQuery(f"{name}: text of 1 to 200 characters is needed")
    return value


def _parameter(name: Any, value: Any) -> Parameter:
    at = f"parameters.{name}"
    if not isinstance(name, str) or not _NAME.match(name):
        raise InvalidQuery(f"{at}: a name is lower-case letters, digits, - and _")
    settings = _mapping(value, at)
    _only(settings, {"type", "default", "description", "minimum", "maximum"}, at)
    kind = _one_of(settings.get("type"), PARAMETER_TYPES, f"{at}.type")
    if "default" not in settings:
        raise InvalidQuery(f"{at}.default: missing")
    made = Parameter(
        name,
        kind,
        settings["default"],
        _text(settings, "description", at),
        settings.get("minimum"),
        settings.get("maximum"),
    )
    _checked(made, made.default)
    return made


def _criteria(value: Any, at: str, parameters: set[str]) -> Criterion:
    settings = _mapping(value, at)
    if not settings:
        return Criterion("all", {})
    if len(settings) != 1:
        raise InvalidQuery(f"{at}: exactly one of {', '.join(['all', 'any', 'not', *CRITERIA])}")
    kind, inner = next(iter(settings.items()))
    if kind in ("all", "any"):
        if not isinstance(inner, list) or not inner:
            raise InvalidQuery(f"{at}.{kind}: a list of criteria is needed")
        return Criterion(kind, {}, tuple(_criteria(c, f"{at}.{kind}[{i}]", parameters) for i, c in enumerate(inner)))
    if kind == "not":
        return Criterion(kind, {}, (_criteria(inner, f"{at}.not", parameters),))
    allowed = CRITERIA.get(kind)
    if allowed is None:
        raise InvalidQuery(f"{at}: found {kind!r}; allowed: {', '.join(['all', 'any', 'not', *CRITERIA])}")
    found = _mapping(inner, f"{at}.{kind}")
    _only(found, set(allowed), f"{at}.{kind}")
    for name, setting in found.items():
        _setting(setting, allowed[name], f"{at}.{kind}.{name}", parameters)
    return Criterion(kind, found)


def _setting(value: Any, kind: str, at: str, parameters: set[str]) -> None:
    if isinstance(value, str) and value.startswith("$"):
        if value[1:] not in parameters:
            raise InvalidQuery(f"{at}: {value} is not among the parameters")
        return
    fits = {
        "number": isinstance(value, int | float) and not isinstance(value, bool),
        "boolean": isinstance(value, bool),
        "text": isinstance(value, str),
        "code_list": isinstance(value, str),
        "texts": isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value),
    }
    if not fits[kind]:
        raise InvalidQuery(f"{at}: a {kind.replace('texts', 'list of texts').replace('_', ' ')} is needed")


def _columns(value: Any, allowed: Sequence[str], at: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise InvalidQuery(f"{at}: a list is needed")
    for name in value:
        _one_of(name, allowed, at)
    return tuple(value)


def _one_of(value: Any, allowed: Sequence[str], at: str) -> str:
    if value not in allowed:
        raise InvalidQuery(f"{at}: found {value!r}; allowed: {', '.join(allowed)}")
    return str(value)


def _mapping(value: Any, at: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidQuery(f"{at}: an object is needed")
    return value


def _only(value: Mapping[str, Any], allowed: set[str], at: str) -> None:
    for key in value:
        if key not in allowed:
            raise InvalidQuery(f"{at}.{key}: unknown; allowed: {', '.join(sorted(allowed))}")


def _text(value: Mapping[str, Any], key: str, at: str) -> str:
    found = value.get(key)
    if not isinstance(found, str) or not found.strip():
        raise InvalidQuery(f"{at}.{key}: missing")
    return " ".join(found.split())
