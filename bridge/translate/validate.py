"""Checks our own resources with fhir.resources, where a site wants that before they are stored."""

from __future__ import annotations

from fhir.resources.R4B import get_fhir_model_class
from pydantic import ValidationError

from bridge.errors import RejectedInput
from bridge.model import StudyResult


def validate(result: StudyResult) -> None:
    """Raises RejectedInput, naming type and element but no value, when a resource is not valid FHIR R4."""
    for resource in (*result.resources, *([result.patient] if result.patient else [])):
        kind = str(resource["resourceType"])
        try:
            get_fhir_model_class(kind).model_validate(resource)
        except ValidationError as error:
            places = sorted({".".join(map(str, e["loc"])) + " " + e["type"] for e in error.errors()})
            raise RejectedInput(f"{kind} is not valid FHIR: {'; '.join(places[:5])}") from None
