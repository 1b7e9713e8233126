"""SR documents of TID 1500 that lie in an archive: results of AI like those that were sent."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from bridge.api.ai_results import router
from bridge.code_tables import code_tables
from bridge.findings.contract import as_json
from bridge.findings.report import report_id
from bridge.findings.review import review_as_json
from bridge.findings.sr import read_sr
from bridge.intake import Intake
from bridge.model import KeptResult
from tests.builders import STUDY
from tests.document_rig import DocumentRig
from tests.sr_documents import (
    SEG_UID,
    SR_UID,
    a_document,
    an_algorithm,
    as_bytes,
    by_a_device,
    of_images,
    planar,
    volumetric,
)
from tests.unit.test_ai_result_fhir import a_review
from tests.validity import told_wrong_in_both

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # starlette asks for another HTTP client than the one this project is bound to
    from fastapi.testclient import TestClient


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[DocumentRig]:
    rig = DocumentRig(tmp_path)
    yield rig
    rig.state.close()


ACCEPT = {"decision": "accept", "reader": {"name": "Leser, Lia"}, "reviewed_at": "2025-12-02T08:00:00Z"}


def api(rig: DocumentRig) -> TestClient:
    app = FastAPI()
    app.include_router(router(Intake(rig.state, code_tables(), lambda: rig.now), rig.state))
    return TestClient(app)


def measured(rig: DocumentRig) -> list[tuple[str, float, str]]:
    found = [o for o in rig.of("Observation") if "valueQuantity" in o]
    return [(o["code"]["coding"][0]["code"], o["valueQuantity"]["value"], o["valueQuantity"]["code"]) for o in found]


def statuses(rig: DocumentRig) -> set[str]:
    return {r["status"] for kind in ("Observation", "DiagnosticReport") for r in rig.of(kind)}


def test_a_measurement_report_in_the_archive_becomes_its_observations(rig: DocumentRig) -> None:
    rig.put("sr.dcm", a_document(planar()))
    rig.run()
    assert rig.parked() == {}
    assert measured(rig) == [("81827009", 8.5, "mm")]
    (report,) = rig.of("DiagnosticReport")
    assert report["id"] == report_id(SR_UID)
    assert report["status"] == "preliminary"
    assert [r for kind in ("Observation", "DiagnosticReport") for r in rig.of(kind) if told_wrong_in_both(r)] == []


def test_a_document_is_read_once(rig: DocumentRig) -> None:
    rig.put("sr.dcm", a_document(planar()))
    rig.run()
    before = rig.state.documents(STUDY)
    rig.state.mark_studies("folder", [STUDY], rig.now)
    rig.run()
    assert rig.state.documents(STUDY) == before
    assert {r.version for r in rig.state.study_resources(STUDY)} == {1}


def test_a_study_without_documents_keeps_none(rig: DocumentRig) -> None:
    rig.run()
    assert rig.state.documents(STUDY) == ()


def test_what_a_document_said_that_is_gone_is_in_error_and_comes_back_with_it(rig: DocumentRig) -> None:
    rig.put("sr.dcm", a_document(planar()))
    rig.run()
    assert statuses(rig) == {"preliminary"}
    rig.remove("sr.dcm")
    rig.run()
    assert statuses(rig) == {"entered-in-error"}
    assert [o for o in rig.of("Observation") if told_wrong_in_both(o)] == []
    rig.put("sr.dcm", a_document(planar()))
    rig.run()
    assert statuses(rig) == {"preliminary"}


def test_a_finding_that_a_changed_document_has_no_more_is_in_error(rig: DocumentRig) -> None:
    rig.put("sr.dcm", a_document(planar(), of_images()))
    rig.run()
    rig.put("sr.dcm", a_document(planar(), SeriesDescription="corrected"))
    rig.run()
    assert sorted(o["status"] for o in rig.of("Observation")) == ["entered-in-error"] * 2 + ["preliminary"] * 2
    assert [r["status"] for r in rig.of("DiagnosticReport")] == ["preliminary"]


def test_a_document_that_was_sent_as_well_is_one_result(rig: DocumentRig) -> None:
    result = read_sr(as_bytes(a_document(planar())), code_tables().coding_scheme, None)
    rig.state.keep_result(KeptResult(SR_UID, STUDY, as_json(result)), rig.now, 0, 0)
    rig.put("sr.dcm", a_document(planar()))
    rig.run()
    assert len(rig.of("DiagnosticReport")) == 1
    rig.remove("sr.dcm")
    rig.run()
    assert statuses(rig) == {"preliminary"}


def test_a_reader_can_review_what_came_as_a_document(rig: DocumentRig) -> None:
    rig.put("sr.dcm", a_document(planar()))
    rig.run()
    (kept,) = rig.state.documents(STUDY)
    rig.state.add_review(KeptResult(SR_UID, STUDY, b""), review_as_json(a_review("accept")), rig.now)
    rig.run()
    assert kept.reviews == ()
    assert statuses(rig) == {"final"}


def test_a_document_of_images_that_are_not_there_is_parked_until_they_come(rig: DocumentRig) -> None:
    rig.put("sr.dcm", a_document(volumetric()))
    rig.run()
    (error,) = rig.parked().values()
    assert "findings[0].location.segments[0]" in error
    assert rig.of("DiagnosticReport") == []
    assert SEG_UID not in error


def test_a_truncated_document_is_parked_and_stops_nothing(rig: DocumentRig) -> None:
    rig.put("sr.dcm", as_bytes(a_document(planar()))[:-200])
    rig.run()
    assert rig.of("ImagingStudy")
    assert rig.parked()
    assert rig.of("DiagnosticReport") == []


def test_a_document_of_several_programs_is_parked_with_its_field(rig: DocumentRig) -> None:
    rig.put("sr.dcm", a_document(planar(), planar(algorithm_id=an_algorithm("3")), observed=by_a_device()))
    rig.run()
    (item,) = rig.state.items(parked=True)
    assert item.queue == "instance"
    assert item.evidence["field"] == "ContentSequence"
    assert "several programs" in item.error


def test_our_own_document_that_comes_back_makes_no_second_report(rig: DocumentRig) -> None:
    rig.put("sr.dcm", a_document(planar()))
    rig.run()
    web = api(rig)
    assert web.post(f"/ai-results/{SR_UID}/review", json=ACCEPT).json()["status"] == "final"
    rig.run()
    rig.put("ours.dcm", web.get(f"/ai-results/{SR_UID}/sr").content)
    rig.run()
    assert len(rig.state.documents(STUDY)) == 2
    assert [r["id"] for r in rig.of("DiagnosticReport")] == [report_id(SR_UID)]
    assert statuses(rig) == {"final"}
    assert rig.parked() == {}


def test_the_api_shows_and_reviews_the_result_that_a_document_is(rig: DocumentRig) -> None:
    rig.put("sr.dcm", a_document(planar()))
    rig.run()
    web = api(rig)
    shown = web.get(f"/ai-results/{SR_UID}").json()
    assert (shown["attached"], shown["status"]) == (True, "preliminary")
    assert [one["run_id"] for one in web.get("/ai-results", params={"study_instance_uid": STUDY}).json()] == [SR_UID]
    assert web.post(f"/ai-results/{SR_UID}/review", json=ACCEPT | {"decision": "reject"}).status_code == 200
    rig.run()
    assert statuses(rig) == {"entered-in-error"}
    rig.remove("sr.dcm")
    rig.run()
    assert web.get(f"/ai-results/{SR_UID}").status_code == 404
