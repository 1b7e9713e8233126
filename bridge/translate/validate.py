"""Checks resources with fhir.resources: our own, where a site wants that before they are stored, and foreign ones."""

from __future__ import annotations

from fhir.resources import get_fhir_model_class as r5_class
from fhir.resources.R4B import get_fhir_model_class as r4_class
from pydantic import ValidationError

from bridge.errors import InvalidQuery, RejectedInput
from bridge.model import Resource, StudyResult


def validate(result: StudyResult) -> None:
    """Raises RejectedInput, naming type and element but no value, when a resource is not valid FHIR R4."""
    for resource in (*result.resources, *([result.patient] if result.patient else [])):
        problems = _problems(resource, r4_class(str(resource["resourceType"])))
        if problems:
            raise RejectedInput(f"{resource['resourceType']} is not valid FHIR: {problems}")


def validate_sent(resource: Resource, fhir_version: str) -> None:
    """Raises InvalidQuery, naming the elements, when what a client sent is not valid FHIR of a version (4.0 or 5.0)."""
    kind = str(resource["resourceType"])
    problems = _problems(resource, (r5_class if fhir_version == "5.0" else r4_class)(kind))
    if problems:
        raise InvalidQuery(f"{kind} is not valid FHIR {fhir_version}: {problems}")


def _problems(resource: Resource, model: type) -> str:
    """The first elements that are wrong, and how; "" when none is."""
    try:
        model.model_validate(resource)  # type: ignore[attr-defined]
    except ValidationError as error:
        places = sorted({".".join(map(str, e["loc"])) + " " + e["type"] for e in error.errors()})
        return "; ".join(places[:5])[:500]
    return ""
