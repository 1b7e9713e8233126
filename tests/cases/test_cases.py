"""Every mapping case: DICOM attributes in, FHIR out, as a clinician can read and review them."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import pytest
from fhir.resources.R4B import get_fhir_model_class

from bridge import config
from bridge.code_tables import dicom_columns
from bridge.model import WadoEndpoint
from bridge.translate.headers import Headers
from bridge.translate.procedure_step import ProcedureStep, ProcedureStepStatus
from bridge.translate.study import Translator
from bridge.translation import site

CASES = {
    f.name: json.loads(f.read_text("utf-8")) for f in (files("mappings") / "cases").iterdir() if f.name.endswith("json")
}


def a_step(plain: dict[str, Any]) -> ProcedureStep:
    """A performed procedure step as a case has it: its SOP Instance UID, its status, its attributes."""
    status = ProcedureStepStatus(plain["status"])
    return ProcedureStep(plain["sop_instance_uid"], status, Headers.from_dicom_json(plain["dicom"]))


IDENTITY = ("issuers", "patient_id_system", "accession_system")


def the_sites_translator(plain: dict[str, Any]) -> Translator:
    """The translator of a case's `site`: settings as in bridge.toml, those of `identity` may stand bare."""
    identity = {name: plain[name] for name in IDENTITY if name in plain} | plain.get("identity", {})
    sections = {name: plain[name] for name in ("time_zone", "translation") if name in plain}
    endpoints = {name: WadoEndpoint(name, address) for name, address in plain.get("endpoints", {}).items()}
    settings = config.parse(sections | {"identity": identity})
    return Translator(site(settings), ("archive",), endpoints, dicom_columns())


@pytest.mark.parametrize("name", sorted(CASES))
def test_case(name: str) -> None:
    case: dict[str, Any] = CASES[name]
    translator = the_sites_translator(case.get("site", {}))
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
    assert len(CASES) >= 12
