from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
from fastapi import FastAPI

from bridge.api.ai_results import router
from bridge.code_tables import code_tables
from bridge.errors import RefusedResult
from bridge.findings.contract import read_result
from bridge.findings.fhir_bundle import read_bundle
from bridge.findings.report import resources
from bridge.findings.review import standing
from bridge.intake import Intake
from bridge.translate.codes import Code
from bridge.translate.r5 import to_r5
from bridge.translate.r5_selections import with_selections
from tests.ai_results import DIAMETER, NODULE, a_finding, a_full_finding, a_result, an_image
from tests.builders import STUDY, a_translator, headers
from tests.unit.test_ai_results_attached import state as state
from tests.unit.test_fhir_api import TestClient
from tests.unit.test_sync import Rig

TABLES = code_tables()
LUNG_RADS = {"scheme": "RADLEX", "code": "RID50137", "display": "4A"}
MEASURED = {"value": 4, "system": "http://unitsofmeasure.org", "code": "mm"}
FINDINGS = {
    "everything": a_full_finding(text="spiculated") | {"confidence": {"value": 93, "scale": "percent"}},
    "absent": a_finding(presence="absent"),
    "a class": a_finding(presence=None, classification=LUNG_RADS),
    "a derivation": a_finding(measurements=[{"code": DIAMETER, "value": 1, "unit": "mm", "derivation": LUNG_RADS}]),
    "a series": a_finding(images=[{"series_instance_uid": f"{STUDY}.1"}]),
    "an image": a_finding(images=[an_image()]),
}


def a_bundle(item: dict[str, Any], version: str = "r4", tables: Any = TABLES) -> dict[str, Any]:
    """The resources of a result as their program would send them: preliminary, with a plain conclusion."""
    (study,) = a_translator().translate(STUDY, {"a": [headers()]}).resources
    made = list(resources(standing(read_result(item, TABLES.coding_scheme), ()), study, tables))
    if version == "r5":
        made = [to_r5(r) for r in made]
        made = [o for r in made for o in (with_selections(r) if r["resourceType"] == "Observation" else (r,))]
    entries = [{"fullUrl": f"urn:uuid:{r['id']}", "resource": deepcopy(r)} for r in made]
    return json.loads(json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries}))  # type: ignore[no-any-return]


def part(bundle: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == kind)


def refused(bundle: dict[str, Any]) -> list[str]:
    with pytest.raises(RefusedResult) as caught:
        read_bundle(bundle, TABLES)
    return [r.field for r in caught.value.refusals]


@pytest.mark.parametrize("version", ["r4", "r5"])
@pytest.mark.parametrize("name", FINDINGS)
def test_what_a_result_became_reads_as_that_result(name: str, version: str) -> None:
    item = a_result(FINDINGS[name])
    assert read_bundle(a_bundle(item, version), TABLES) == read_result(item, TABLES.coding_scheme)


def test_the_site_s_own_mapping_is_not_taken_for_what_was_sent() -> None:
    mapped = {("http://snomed.info/sct", "427359005"): Code("http://radlex.org", "RID3875", "nodule")}
    bundle = a_bundle(a_result(), tables=replace(TABLES, concept_map=mapped))
    assert read_bundle(bundle, TABLES).findings[0].code.code == "427359005"


@pytest.mark.parametrize(
    ("elements", "read"),
    [
        ({"valueBoolean": False}, {"presence": "absent"}),
        ({"valueInteger": 3}, {"score": {"value": 3}}),
        ({"valueString": "words"}, {"text": "words"}),
        ({"valueQuantity": MEASURED}, {"measurements": [{"code": NODULE, "value": 4, "unit": "mm"}]}),
    ],
)
def test_values_are_read_by_what_they_are(elements: dict[str, Any], read: dict[str, Any]) -> None:
    bundle = a_bundle(a_result())
    observation = part(bundle, "Observation")
    del observation["valueCodeableConcept"]
    observation |= elements
    expected = read_result(a_result(a_finding(presence=None) | read), TABLES.coding_scheme)
    assert read_bundle(bundle, TABLES).findings == expected.findings


def without(kind: str, element: str) -> dict[str, Any]:
    bundle = a_bundle(a_result(a_full_finding()))
    del part(bundle, kind)[element]
    return bundle


def having(kind: str, **elements: Any) -> dict[str, Any]:
    bundle = a_bundle(a_result())
    part(bundle, kind).update(elements)
    return bundle


@pytest.mark.parametrize(
    ("bundle", "field"),
    [
        ({"resourceType": "Bundle"}, "Bundle.entry"),
        ({"resourceType": "Bundle", "entry": 5}, "Bundle"),
        (without("DiagnosticReport", "meta"), "DiagnosticReport.meta.security"),
        (without("DiagnosticReport", "identifier"), "DiagnosticReport.identifier"),
        (without("DiagnosticReport", "imagingStudy"), "DiagnosticReport.imagingStudy"),
        (without("DiagnosticReport", "issued"), "DiagnosticReport.issued"),
        (without("Device", "version"), "Device.version"),
        (having("DiagnosticReport", status="entered-in-error"), "DiagnosticReport.status"),
        (having("DiagnosticReport", result=[{"reference": "Observation/x"}]), "DiagnosticReport.result[0]"),
        (having("Observation", device={"display": "LungNet"}), "Observation.device"),
        (having("Observation", component=[{"code": {"text": "x"}, "valueString": "y"}]), "Observation.component"),
        (having("Observation", hasMember=[{"reference": "Observation/x"}]), "Observation.hasMember"),
        (having("Observation", valueCodeableConcept=None), "Observation.valueCodeableConcept"),
        (having("Observation", code=5), "Bundle"),
        (having("Observation", code={"coding": [{"system": "http://h/x", "code": "1"}]}), "findings[0].code.scheme"),
        (having("Observation", code={"text": "words"}), "findings[0].code.scheme"),
    ],
)
def test_what_a_result_has_no_place_for_is_refused_by_its_element(bundle: dict[str, Any], field: str) -> None:
    assert refused(bundle)[0] == field


def test_a_bundle_comes_in_by_the_same_door(state: Any) -> None:
    rig = Rig(state)
    rig.a.put(headers())
    rig.run()
    app = FastAPI()
    app.include_router(router(Intake(state, TABLES, lambda: rig.now), state))
    client = TestClient(app)
    bundle, how = a_bundle(a_result()), {"Content-Type": "application/fhir+json"}
    answers = [client.post("/ai-results", content=json.dumps(bundle), headers=how) for _ in range(2)]
    assert [(a.status_code, a.json()["outcome"]) for a in answers] == [(201, "kept"), (200, "unchanged")]
    rig.run()
    assert client.get("/ai-results/run-1").json()["attached"]


def test_nothing_of_a_bundle_is_repeated_in_a_refusal() -> None:
    bundle = having("Observation", code={"coding": [{"system": "EVA TEST", "code": "EVA TEST"}]})
    with pytest.raises(RefusedResult) as caught:
        read_bundle(bundle, TABLES)
    assert "EVA" not in str(caught.value)
