"""Every mapping case: DICOM attributes in, FHIR out, as a clinician can read and review them."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import pytest
from fhir.resources.R4B import get_fhir_model_class

from bridge.translate.headers import Headers
from bridge.translate.identifiers import Issuers
from bridge.translate.procedure_step import ProcedureStep, ProcedureStepStatus
from tests.builders import a_translator

CASES = {
    f.name: json.loads(f.read_text("utf-8")) for f in (files("mappings") / "cases").iterdir() if f.name.endswith("json")
}


def a_step(plain: dict[str, Any]) -> ProcedureStep:
    """A performed procedure step as a case has it: its SOP Instance UID, its status, its attributes."""
    status = ProcedureStepStatus(plain["status"])
    return ProcedureStep(plain["sop_instance_uid"], status, Headers.from_dicom_json(plain["dicom"]))


@pytest.mark.parametrize("name", sorted(CASES))
def test_case(name: str) -> None:
    case: dict[str, Any] = CASES[name]
    site = case.get("site", {})
    issuers = Issuers(site.get("issuers", {}), site.get("patient_id_system", ""), site.get("accession_system", ""))
    translator = a_translator(order=("archive",), endpoints=site.get("endpoints", {}), issuers=issuers)
    instances = [Headers.from_dicom_json(instance) for instance in case["dicom"]]
    steps = {"archive": [a_step(step) for step in case.get("procedure_steps", [])]}
    if instances:
        result = translator.translate(case["study_instance_uid"], {"archive": instances}, steps=steps)
    else:
        result = translator.without_instances(case["study_instance_uid"], (), steps)
    made = {r["resourceType"]: r for r in (result.patient, *result.resources) if r is not None}
    for resource in made.values():
        get_fhir_model_class(resource["resourceType"]).model_validate(resource)
    assert made == case["fhir"]
    assert [[r.keyword, r.problem] for r in result.remarks] == case["remarks"]


def test_there_are_cases() -> None:
    assert len(CASES) >= 3
