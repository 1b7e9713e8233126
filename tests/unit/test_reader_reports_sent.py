"""A reader's own FHIR report, sent as a Bundle: what it says of AI results, and when it says it no longer."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from pydicom import dcmread

from bridge.api.ai_results import router as results_router
from bridge.api.reader_reports import _EXAMPLE, router
from bridge.code_tables import code_tables
from bridge.findings.concepts import RESULT_SYSTEM
from bridge.findings.observations import finding_id
from bridge.findings.report import report_id
from bridge.intake import Intake
from bridge.state import State
from bridge.translate.uids import study_identifier
from tests.ai_results import LUNG, NODULE, a_finding, a_full_finding, a_result
from tests.builders import STUDY, headers
from tests.unit.test_fhir_api import TestClient
from tests.unit.test_sync import Rig
from tests.validity import told_wrong_in_both

SCT = "http://snomed.info/sct"
PRESENT, ABSENT = "52101004", "2667000"
MM = {"system": "http://unitsofmeasure.org", "code": "mm", "unit": "mm"}


class Web:
    """The routes over a pipeline whose study is there, with one result of it."""

    def __init__(self, state: State) -> None:
        self.rig, self.state = Rig(state), state
        app = FastAPI()
        intake = Intake(state, code_tables(), lambda: self.rig.now)
        app.include_router(results_router(intake, state))
        app.include_router(router(intake, state))
        self.client = TestClient(app, raise_server_exceptions=False)
        self.rig.a.put(headers())
        self.rig.run()

    def keep(self, *findings: dict[str, Any], **fields: Any) -> None:
        assert self.client.post("/ai-results", json=a_result(*findings, **fields)).status_code == 201
        self.rig.run()

    def send(self, bundle: dict[str, Any], status: int = 201) -> Any:
        response = self.client.post("/reader-reports", json=bundle)
        assert response.status_code == status, response.text
        self.rig.run()
        return response.json()

    def refused(self, bundle: dict[str, Any]) -> list[str]:
        return [one["field"] for one in self.send(bundle, 422)["errors"]]

    def review(self, decision: str, status: int = 200) -> None:
        item = {"decision": decision, "reader": {"name": "Other"}, "reviewed_at": "2025-12-01T11:00:00Z"}
        assert self.client.post("/ai-results/run-1/review", json=item).status_code == status
        self.rig.run()

    def history(self) -> list[str]:
        _, versions = self.state.resource_history("DiagnosticReport", report_id("run-1"), 20, 0)
        return [v.content["status"] for v in reversed(versions) if v.content]

    def observation(self, finding: str = "1") -> dict[str, Any]:
        found = self.state.read_resource("Observation", finding_id("run-1", finding))
        assert found is not None
        assert found.content is not None
        assert told_wrong_in_both(found.content) == []
        return found.content


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    state = State(f"sqlite:///{tmp_path / 's.sqlite'}")
    yield state
    state.close()


@pytest.fixture
def web(state: State) -> Web:
    return Web(state)


def by_run(value: str) -> dict[str, Any]:
    return {"identifier": {"system": RESULT_SYSTEM, "value": value}}


def of_finding(value: str | None = PRESENT, finding: str = "1", **more: Any) -> dict[str, Any]:
    """A reader's Observation of the nodule, made from that of the result."""
    made = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": SCT, "code": NODULE["code"]}]},
        "derivedFrom": [by_run(f"run-1/{finding}")],
    }
    answer = {"valueCodeableConcept": {"coding": [{"system": SCT, "code": value}]}} if value else {}
    return {name: part for name, part in (made | answer | more).items() if part is not None}


def a_report(*observations: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A signed report with these Observations."""
    report = {
        "resourceType": "DiagnosticReport",
        "identifier": [{"system": "http://h/reports", "value": "R1"}],
        "status": "final",
        "issued": "2025-12-01T12:00:00+01:00",
        "resultsInterpreter": [{"display": "Leser, Lia", "identifier": {"system": "http://h/staff", "value": "L7"}}],
        "imagingStudy": [{"identifier": study_identifier(STUDY)}],
        "result": [{"reference": f"urn:uuid:o{n}"} for n in range(len(observations))],
    } | more
    entries = [{"fullUrl": f"urn:uuid:o{n}", "resource": one} for n, one in enumerate(observations)]
    kept = {name: part for name, part in report.items() if part is not None}
    return {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": kept}, *entries]}


def whole(*observations: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A report that refers to the result as a whole (R5 supportingInfo) as well."""
    return a_report(*observations, supportingInfo=[{"reference": by_run("run-1")}], **more)


@pytest.mark.parametrize(
    "bundle",
    [
        a_report(of_finding()),
        whole(),
        a_report(supportingInfo=[{"reference": {"reference": f"http://ehr/DiagnosticReport/{report_id('run-1')}"}}]),
        a_report(result=[{"reference": f"Observation/{finding_id('run-1', '1')}/_history/1"}]),
        a_report(result=[by_run("run-1/1")]),
        a_report(extension=[{"url": "http://h/reviewed", "valueReference": by_run("run-1")}]),
        a_report(
            contained=[of_finding(id="o")],
            result=[{"reference": "#o"}],
        ),
    ],
    ids=["derivedFrom", "supportingInfo", "by address", "result", "result by identifier", "extension", "contained"],
)
def test_a_report_that_names_a_result_and_agrees_accepts_it(web: Web, bundle: dict[str, Any]) -> None:
    web.keep()
    told = web.send(bundle)
    assert told == {"outcome": "kept", "results": [{"run_id": "run-1", "status": "final"}]}
    assert web.history() == ["preliminary", "final"]
    assert web.observation()["performer"] == [
        {
            "type": "Practitioner",
            "identifier": {"system": "http://h/staff", "value": "L7"},
            "display": "Leser, Lia",
        }
    ]


def test_the_same_report_again_is_no_second_review(web: Web) -> None:
    web.keep()
    web.send(a_report(of_finding()))
    before = web.state.latest_revision()
    assert web.send(a_report(of_finding()), 200)["outcome"] == "unchanged"
    web.rig.a.put(headers())
    web.rig.run()
    assert web.state.latest_revision() == before


def test_a_report_with_another_value_amends_what_was_final(web: Web) -> None:
    web.keep(a_full_finding(), conclusion="A nodule of 8.5 mm.")
    web.review("accept")
    member = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": SCT, "code": "81827009"}]},
        "valueQuantity": {"value": 9.25, **MM},
    }
    bundle = whole(of_finding(hasMember=[{"reference": "urn:uuid:m"}]), conclusion="A nodule of 9.25 mm.")
    bundle["entry"].append({"fullUrl": "urn:uuid:m", "resource": member})
    web.send(bundle)
    assert web.history() == ["preliminary", "final", "amended"]
    measured = web.observation()["hasMember"][0]["reference"].partition("/")[2]
    found = web.state.read_resource("Observation", measured)
    assert found is not None
    assert found.content is not None
    assert found.content["valueQuantity"]["value"] == 9.25
    report = web.state.read_resource("DiagnosticReport", report_id("run-1"))
    assert report is not None
    assert report.content is not None
    assert report.content["conclusion"] == "A nodule of 9.25 mm."


def test_another_side_amends_and_is_signed(web: Web) -> None:
    web.keep(a_finding(location={"body_site": LUNG, "laterality": "right"}))
    left = {
        "code": {"coding": [{"system": SCT, "code": "272741003"}]},
        "valueCodeableConcept": {"coding": [{"system": SCT, "code": "7771000"}]},
    }
    lung = {"coding": [{"system": SCT, "code": LUNG["code"]}]}
    web.send(a_report(of_finding(bodySite=lung, component=[left])))
    assert web.history() == ["preliminary", "final"]
    sides = [c["valueCodeableConcept"]["coding"][0]["display"] for c in web.observation()["component"]]
    assert sides == ["Left"]


def test_a_report_without_it_rejects_the_result_and_its_correction_does_not(web: Web) -> None:
    web.keep()
    web.send(a_report(of_finding(ABSENT)))
    assert web.history() == ["preliminary", "entered-in-error"]
    later = {"status": "corrected", "issued": "2025-12-01T13:00:00+01:00"}
    web.send(a_report(of_finding(), **later))
    assert web.history() == ["preliminary", "entered-in-error", "final"]
    assert web.send(a_report(of_finding(ABSENT)), 200)["outcome"] == "unchanged"
    assert web.history()[-1] == "final"


@pytest.mark.parametrize("status", ["entered-in-error", "cancelled", "preliminary"])
def test_with_a_report_that_is_withdrawn_the_result_is_what_it_was(web: Web, status: str) -> None:
    web.keep()
    web.send(a_report(of_finding(ABSENT)))
    web.send(a_report(of_finding(ABSENT), status=status))
    assert web.history() == ["preliminary", "entered-in-error", "preliminary"]
    assert web.observation()["status"] == "preliminary"
    assert "extension" not in web.observation()


def test_one_refused_of_three_amends_the_result(web: Web) -> None:
    web.keep(a_finding(), a_finding(id="2", code=LUNG), a_finding(id="3", code=LUNG))
    web.review("accept")
    web.send(whole(of_finding(ABSENT)))
    assert web.history() == ["preliminary", "final", "amended"]
    assert [web.observation(n)["status"] for n in "123"] == ["amended"] * 3
    assert web.observation()["valueCodeableConcept"]["coding"][0]["code"] == ABSENT
    assert web.observation("2")["valueCodeableConcept"]["coding"][0]["code"] == PRESENT


def test_the_finding_itself_taken_back_as_error_is_refused(web: Web) -> None:
    web.keep(a_finding(), a_finding(id="2", code=LUNG))
    own = [{"system": RESULT_SYSTEM, "value": "run-1/1"}]
    web.send(whole(of_finding(identifier=own, derivedFrom=None, status="entered-in-error")))
    assert [web.observation(n)["status"] for n in "12"] == ["entered-in-error", "final"]
    assert web.history() == ["preliminary", "final"]


def test_the_readers_own_observation_taken_back_says_nothing_nor_does_one_without_a_value(web: Web) -> None:
    web.keep()
    web.send(a_report(of_finding(ABSENT, status="entered-in-error"), of_finding(finding="9")))
    reason = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/data-absent-reason", "code": "unknown"}]}
    web.send(a_report(of_finding(None, dataAbsentReason=reason), of_finding(finding="9")), 200)
    assert web.history() == ["preliminary"]


def test_a_lesion_is_named_by_its_tracking_uid(web: Web) -> None:
    web.keep(a_finding(tracking_uid="1.2.99"))
    kind = {"coding": [{"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "112040"}]}
    tracked = [{"type": kind, "system": "urn:dicom:uid", "value": "urn:oid:1.2.99"}]
    web.send(a_report(of_finding(ABSENT, derivedFrom=None, identifier=tracked)))
    assert web.history() == ["preliminary", "entered-in-error"]


def test_a_report_that_came_before_the_result_counts(web: Web) -> None:
    assert web.send(a_report(of_finding(ABSENT)))["results"] == []
    web.keep()
    assert web.history() == ["entered-in-error"]


def test_what_a_report_rejected_cannot_be_reviewed_any_more(web: Web) -> None:
    web.keep()
    web.send(a_report(of_finding(ABSENT)))
    web.review("accept", 422)


def test_images_that_the_study_does_not_have_make_no_review(web: Web) -> None:
    web.keep(a_full_finding() | {"location": {"segments": [a_full_finding()["location"]["segments"][0]]}})
    url = "https://imaging-bridge.example/StructureDefinition/imaging-selection"
    elsewhere = [
        {"url": "code", "valueCoding": {"code": "121191"}},
        {"url": "seriesUid", "valueId": "1.2.3"},
        {
            "url": "instance",
            "extension": [
                {"url": "uid", "valueId": "1.2.3.4"},
                {"url": "subset", "valueString": "1"},
            ],
        },
    ]
    selection = {"identifier": study_identifier(STUDY), "extension": [{"url": url, "extension": elsewhere}]}
    web.send(whole(of_finding(derivedFrom=[by_run("run-1/1"), selection])))
    assert web.history() == ["preliminary"]


@pytest.mark.parametrize(
    ("bundle", "field"),
    [
        ({"resourceType": "Bundle"}, "Bundle.entry"),
        (whole(meta={"security": [{"code": "AIAST"}]}), "Bundle.entry"),
        (whole(status="nonsense"), "DiagnosticReport.status"),
        (whole(issued="2025-12-01"), "DiagnosticReport.issued"),
        (whole(imagingStudy=None), "DiagnosticReport.imagingStudy"),
        (whole(resultsInterpreter=None), "DiagnosticReport.resultsInterpreter"),
        (whole(identifier=None), "DiagnosticReport.identifier"),
        (a_report(), "DiagnosticReport"),
        (a_report(of_finding(derivedFrom=None)), "DiagnosticReport"),
        (whole(of_finding(None, valuePeriod={})), "Observation.valuePeriod"),
        (whole(of_finding(code={"coding": [{"system": "http://odd", "code": "1"}]})), "findings[0].code.scheme"),
        (whole(result=7), "Bundle"),
        (whole(conclusion="\x01"), "DiagnosticReport"),
        (whole(result=[by_run(f"run-1/{n}") for n in range(201)]), "DiagnosticReport"),
    ],
)
def test_a_report_that_cannot_be_taken_is_refused_by_its_element(web: Web, bundle: dict[str, Any], field: str) -> None:
    web.keep()
    assert web.refused(bundle) == [field]
    assert web.history() == ["preliminary"]


def test_a_study_has_so_many_reports_at_most(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.api.reader_reports.MOST_OF_A_STUDY", 1)
    web.keep()
    web.send(a_report(of_finding()))
    other = [{"system": "http://h/reports", "value": "R2"}]
    assert web.refused(a_report(of_finding(), identifier=other)) == ["DiagnosticReport.imagingStudy"]
    web.send(a_report(of_finding(ABSENT)))


def test_our_document_is_known_whatever_reports_say_of_its_result(web: Web) -> None:
    web.keep()
    documents = []
    for bundle in (a_report(of_finding()), a_report(of_finding("373068000"), status="corrected")):
        web.send(bundle)
        documents.append(web.client.get("/ai-results/run-1/sr").content)
    assert dcmread(BytesIO(documents[0])).SOPInstanceUID != dcmread(BytesIO(documents[1])).SOPInstanceUID
    for content in documents:
        headers = {"Content-Type": "application/dicom"}
        answer = web.client.post("/ai-results", content=content, headers=headers)
        assert answer.json() == {"run_id": "run-1", "outcome": "unchanged"}


def test_the_example_is_taken(web: Web) -> None:
    assert web.send(_EXAMPLE) == {"outcome": "kept", "results": []}
