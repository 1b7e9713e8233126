"""Two independent opinions on our resources, in R4 and R5: fhir.resources, and FHIR's own definitions."""

from __future__ import annotations

from typing import Any

import orjson
from fhir.resources import get_fhir_model_class as r5_class
from fhir.resources.R4B import get_fhir_model_class as r4_class
from pydantic import ValidationError

from bridge.translate.r5 import CONVERTED, to_r5
from tests.fhir_definitions.validator import problems

Json = dict[str, Any]
_CLASSES = {"r4": r4_class, "r5": r5_class}


def told_wrong(resource: Json, version: str) -> list[str]:
    """What either says against a resource as it is sent; [] when both find it valid."""
    sent = orjson.loads(orjson.dumps(resource))
    found = problems(sent, version)
    try:
        _CLASSES[version](sent["resourceType"]).model_validate(sent)
    except ValidationError as error:
        found += [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
    return [f"{version} {sent['resourceType']}: {problem}" for problem in found]


def told_wrong_in_both(resource: Json) -> list[str]:
    """The same of an R4 resource and of what it is in R5, where it has an R5 form."""
    found = told_wrong(resource, "r4")
    return found + (told_wrong(to_r5(resource), "r5") if resource["resourceType"] in CONVERTED else [])
