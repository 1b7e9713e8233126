"""Translates what a test is about and gives back the resource it looks at, checked for its shape."""

from __future__ import annotations

from typing import Any

from fhir.resources.R4B.imagingstudy import ImagingStudy
from fhir.resources.R4B.patient import Patient
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset

from bridge.model import StudyResult
from bridge.translate.headers import Headers
from tests.builders import STUDY, a_translator


def item(**attributes: Any) -> Dataset:
    """An item of a sequence."""
    made = Dataset()
    with disable_value_validation():
        for keyword, value in attributes.items():
            setattr(made, keyword, value)
    return made


def a_code(value: str, scheme: str, meaning: str, **more: Any) -> Dataset:
    """An item of a code sequence."""
    return item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning, **more)


def translated(*instances: Headers, **site: Any) -> StudyResult:
    """The result for instances of one archive, `a`."""
    return a_translator(**site).translate(STUDY, {"a": instances})


def study_of(result: StudyResult) -> dict[str, Any]:
    """Its ImagingStudy."""
    (found,) = (r for r in result.resources if r["resourceType"] == "ImagingStudy")
    ImagingStudy.model_validate(found)
    return found


def patient_of(result: StudyResult) -> dict[str, Any]:
    """Its Patient."""
    assert result.patient is not None
    Patient.model_validate(result.patient)
    return result.patient


def series_of(*instances: Headers, **site: Any) -> dict[str, Any]:
    """The only series of the study of these instances."""
    (found,) = study_of(translated(*instances, **site))["series"]
    return dict(found)


def remarked(result: StudyResult) -> list[str]:
    """The keywords that something was remarked of."""
    return [remark.keyword for remark in result.remarks]
