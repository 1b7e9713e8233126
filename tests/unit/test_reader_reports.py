"""Structured reports by people: their own DiagnosticReports, and what they say of results of AI."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.sr.coding import Code

from bridge.code_tables import code_tables
from bridge.documents.report_parts import report_id as of_document
from bridge.findings.contract import as_json, read_result
from bridge.findings.observations import finding_id, measurement_id
from bridge.findings.report import report_id
from bridge.findings.review import review_as_json
from bridge.findings.sr_uid import document_uid, series_uid
from bridge.model import KeptResult
from bridge.ports import STUDY_QUEUE
from tests import other_documents as others
from tests.ai_results import a_finding, a_result
from tests.builders import STUDY
from tests.document_rig import DocumentRig
from tests.segmentations import a_segmentation
from tests.sr_documents import (
    NODULE,
    SR_UID,
    a_document,
    a_measurement,
    an_algorithm,
    an_evaluation,
    by_a_person,
    planar,
)
from tests.unit.test_ai_result_fhir import a_review
from tests.validity import told_wrong_in_both

SIGNED = {"VerifyingObserverSequence": [others.verifying()]}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[DocumentRig]:
    rig = DocumentRig(tmp_path)
    yield rig
    rig.state.close()


def report(rig: DocumentRig, id_: str) -> dict[str, Any]:
    assert rig.parked() == {}
    found = [r for kind in ("DiagnosticReport", "Observation", "DocumentReference") for r in rig.of(kind)]
    assert [told for one in found for told in told_wrong_in_both(one)] == []
    return next(r for r in found if r["id"] == id_)


def text(made: dict[str, Any]) -> str:
    return base64.b64decode(made["presentedForm"][0]["data"]).decode()


def test_a_report_is_the_readers_own_with_its_text(rig: DocumentRig) -> None:
    rig.put("report.dcm", others.a_readers_report())
    rig.run()
    made = report(rig, of_document(others.REPORT_UID))
    assert made["status"] == "preliminary"
    assert "resultsInterpreter" not in made
    assert "meta" not in made
    assert made["conclusion"] == others.IMPRESSION
    assert made["code"]["coding"][0]["code"] == "18748-4"
    assert text(made).split("\n") == [
        "Findings",
        "A round opacity.",
        "Diameter: 8 mm",
        "",
        "Impressions",
        others.IMPRESSION,
    ]
    assert rig.of("Observation") == []


def test_a_verified_report_is_final_and_says_who_and_when(rig: DocumentRig) -> None:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "L7", "99STAFF", "Leser"
    signed = others.verifying(VerifyingObserverIdentificationCodeSequence=[code])
    rig.put("report.dcm", others.a_readers_report(VerifyingObserverSequence=[signed]))
    rig.run()
    made = report(rig, of_document(others.REPORT_UID))
    assert made["status"] == "final"
    assert made["resultsInterpreter"] == [{"type": "Practitioner", "display": "Lia Leser"}]
    assert made["issued"] == "2025-12-01T12:00:00+01:00"


def test_what_a_person_measured_are_observations_of_that_person(rig: DocumentRig) -> None:
    document = a_document(planar(algorithm_id=None), observed=by_a_person(), VerificationFlag="VERIFIED", **SIGNED)
    rig.put("report.dcm", document)
    rig.run()
    made = report(rig, of_document(SR_UID))
    (finding,) = [o for o in rig.of("Observation") if "hasMember" in o]
    assert made["result"] == [{"reference": f"Observation/{finding['id']}", "type": "Observation"}]
    assert finding["performer"] == [{"type": "Practitioner", "display": "Lia Leser"}]
    assert finding["status"] == "final"
    assert finding.keys().isdisjoint({"meta", "device"})
    assert rig.of("Device") == []
    assert "Diameter: 8.5 mm" in text(made)


def test_a_report_by_a_program_is_none_of_a_readers(rig: DocumentRig) -> None:
    document = others.a_readers_report()
    document.ContentSequence[0].ConceptCodeSequence[0].CodeValue = "121007"
    rig.put("report.dcm", document)
    rig.run()
    assert rig.of("DiagnosticReport") == []
    assert len(rig.of("DocumentReference")) == 1


def test_a_verified_report_that_refers_to_a_result_accepts_it(rig: DocumentRig) -> None:
    result = a_document(planar())
    rig.put("sr.dcm", result)
    rig.put("report.dcm", others.a_readers_report(refers_to=[result]))
    rig.run()
    assert report(rig, report_id(SR_UID))["status"] == "preliminary"
    rig.put("report.dcm", others.a_readers_report(refers_to=[result], **SIGNED))
    rig.run()
    made = report(rig, report_id(SR_UID))
    assert made["status"] == "final"
    assert made["resultsInterpreter"][0]["display"] == "Lia Leser"
    assert [s["code"] for s in made["meta"]["security"]] == ["AIAST", "CLINAST"]
    assert report(rig, of_document(others.REPORT_UID))["status"] == "final"
    _, versions = rig.state.resource_history("DiagnosticReport", report_id(SR_UID), 10, 0)
    assert [v.content["status"] for v in versions if v.content] == ["final", "preliminary"]
    rig.remove("report.dcm")
    rig.run()
    assert report(rig, report_id(SR_UID))["status"] == "preliminary"


def test_a_report_accepts_a_result_by_the_document_that_was_written_of_it(rig: DocumentRig) -> None:
    item = a_result(a_finding())
    kept = read_result(item, code_tables().coding_scheme)
    rig.state.keep_result(KeptResult(kept.run_id, STUDY, as_json(kept)), rig.now, 0, 0)
    ours = a_document(planar())
    ours.SOPInstanceUID = document_uid(kept.run_id, 0)
    rig.put("report.dcm", others.a_readers_report(refers_to=[ours], **SIGNED))
    rig.run()
    assert report(rig, report_id(kept.run_id))["status"] == "final"


def test_a_report_accepts_a_segmentation(rig: DocumentRig) -> None:
    made = a_segmentation()
    rig.put("seg.dcm", made)
    rig.put("report.dcm", others.a_readers_report(refers_to=[made], **SIGNED))
    rig.run()
    assert report(rig, report_id(made.SOPInstanceUID))["status"] == "final"


def test_a_report_accepts_nothing_that_was_rejected(rig: DocumentRig) -> None:
    result = a_document(planar())
    rig.put("sr.dcm", result)
    rejected = a_review("reject", reviewed_at="2025-12-01T08:00:00Z")
    rig.state.add_review(KeptResult(SR_UID, STUDY, b""), review_as_json(rejected), rig.now)
    rig.put("report.dcm", others.a_readers_report(refers_to=[result], **SIGNED))
    rig.run()
    made = report(rig, report_id(SR_UID))
    assert made["status"] == "entered-in-error"
    assert "resultsInterpreter" not in made


def test_what_was_accepted_by_a_report_and_amended_after_it_is_amended(rig: DocumentRig) -> None:
    result = a_document(planar())
    rig.put("sr.dcm", result)
    rig.put("report.dcm", others.a_readers_report(refers_to=[result], **SIGNED))
    amended = a_review("amend", conclusion="A vessel.", reviewed_at="2025-12-03T08:00:00Z")
    rig.state.add_review(KeptResult(SR_UID, STUDY, b""), review_as_json(amended), rig.now)
    rig.run()
    made = report(rig, report_id(SR_UID))
    assert (made["status"], made["conclusion"]) == ("amended", "A vessel.")


def a_reading(*groups: Any, uid: str = f"{STUDY}.907.1", **attributes: Any) -> Dataset:
    """A verified Measurement Report by a person, of the lesion of `planar` unless others are given."""
    signed = {"VerificationFlag": "VERIFIED"} | SIGNED
    made = a_document(*groups, observed=by_a_person(), **(signed | attributes))
    made.SOPInstanceUID, made.SeriesInstanceUID = uid, uid.rpartition(".")[0]
    return made


def theirs(**more: Any) -> Any:
    return planar(algorithm_id=None, **more)


def finding(rig: DocumentRig) -> dict[str, Any]:
    """The Observation of the result's one finding."""
    return next(o for o in rig.of("Observation") if o["id"] == finding_id(SR_UID, "1"))


def history(rig: DocumentRig, id_: str = report_id(SR_UID)) -> list[str]:
    """The statuses of a report, from the beginning."""
    _, versions = rig.state.resource_history("DiagnosticReport", id_, 20, 0)
    return [v.content["status"] for v in reversed(versions) if v.content]


def test_a_reading_of_the_same_lesion_that_says_the_same_accepts_the_result(rig: DocumentRig) -> None:
    rig.put("sr.dcm", a_document(planar()))
    rig.run()
    rig.put("reading.dcm", a_reading(theirs()))
    rig.run()
    assert history(rig) == ["preliminary", "final"]
    assert report(rig, report_id(SR_UID))["resultsInterpreter"][0]["display"] == "Lia Leser"


def test_a_reading_that_measures_something_else_amends_the_result(rig: DocumentRig) -> None:
    result = a_document(planar())
    rig.put("sr.dcm", result)
    rig.put("report.dcm", others.a_readers_report(refers_to=[result], **SIGNED))
    rig.run()
    later = others.verifying(VerificationDateTime="20251202120000+0100")
    rig.put("reading.dcm", a_reading(theirs(measurements=[a_measurement(9.25)]), VerifyingObserverSequence=[later]))
    rig.run()
    assert history(rig) == ["final", "amended"]
    measured = next(o for o in rig.of("Observation") if o["id"] == measurement_id(SR_UID, "1", "1"))
    assert (measured["status"], measured["valueQuantity"]["value"]) == ("amended", 9.25)
    own = report(rig, of_document(f"{STUDY}.907.1"))
    assert own["status"] == "final"
    assert "meta" not in own
    rig.run()
    rig.pipeline.state.mark(STUDY_QUEUE, [STUDY], rig.now)
    rig.run()
    assert history(rig) == ["final", "amended"]


def test_a_reading_that_finds_nothing_there_rejects_the_result_until_it_is_gone(rig: DocumentRig) -> None:
    rig.put("sr.dcm", a_document(planar()))
    rig.run()
    absent = an_evaluation(NODULE, Code("2667000", "SCT", "Absent"))
    rig.put("reading.dcm", a_reading(theirs(qualitative_evaluations=[absent], measurements=None)))
    rig.run()
    assert finding(rig)["status"] == "entered-in-error"
    rig.remove("reading.dcm")
    rig.run()
    assert history(rig) == ["preliminary", "entered-in-error", "preliminary"]
    assert finding(rig)["status"] == "preliminary"
    assert finding(rig)["valueCodeableConcept"]["coding"][0]["display"] == "Present"


def test_a_reading_that_replaces_another_is_the_review(rig: DocumentRig) -> None:
    rig.put("sr.dcm", a_document(planar()))
    absent = an_evaluation(NODULE, Code("2667000", "SCT", "Absent"))
    first = a_reading(theirs(qualitative_evaluations=[absent], measurements=None))
    rig.put("reading.dcm", first)
    rig.run()
    second = a_reading(theirs(), uid=f"{STUDY}.907.2", PredecessorDocumentsSequence=others.evidence_of([first]))
    rig.put("corrected.dcm", second)
    rig.run()
    assert history(rig) == ["entered-in-error", "final"]
    second.VerificationFlag = "UNVERIFIED"
    rig.put("corrected.dcm", second)
    rig.run()
    assert history(rig) == ["entered-in-error", "final", "entered-in-error"]


def test_a_reading_that_is_not_verified_reviews_nothing(rig: DocumentRig) -> None:
    rig.put("sr.dcm", a_document(planar()))
    rig.put("reading.dcm", a_reading(theirs(), VerificationFlag="UNVERIFIED"))
    rig.run()
    assert history(rig) == ["preliminary"]


def test_a_reading_that_cannot_be_taken_reviews_nothing(rig: DocumentRig) -> None:
    result = a_document(planar())
    rig.put("sr.dcm", result)
    odd = a_reading(theirs(measurements=[a_measurement(unit=Code("x", "99ODD", "x"))]))
    odd.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence.append(
        others.evidence_of([result])[0].ReferencedSeriesSequence[0]
    )
    rig.put("reading.dcm", odd)
    rig.run()
    assert history(rig) == ["preliminary"]
    (error,) = rig.parked().values()
    assert "none of UCUM" in error


def test_a_rejection_by_a_report_is_no_more_undone_than_one_by_request(rig: DocumentRig) -> None:
    result = a_document(planar())
    rig.put("sr.dcm", result)
    absent = an_evaluation(NODULE, Code("2667000", "SCT", "Absent"))
    rig.put("reading.dcm", a_reading(theirs(qualitative_evaluations=[absent], measurements=None)))
    later = others.verifying(VerificationDateTime="20251202120000+0100")
    rig.put("report.dcm", others.a_readers_report(refers_to=[result], VerifyingObserverSequence=[later]))
    rig.run()
    accepted = a_review("accept", reviewed_at="2025-12-03T08:00:00Z")
    rig.state.add_review(KeptResult(SR_UID, STUDY, b""), review_as_json(accepted), rig.now)
    rig.run()
    assert history(rig) == ["entered-in-error"]


def test_our_document_is_known_by_its_series_whatever_became_of_the_reviews(rig: DocumentRig) -> None:
    kept = read_result(a_result(a_finding()), code_tables().coding_scheme)
    rig.state.keep_result(KeptResult(kept.run_id, STUDY, as_json(kept)), rig.now, 0, 0)
    ours = a_document(planar())
    ours.SOPInstanceUID, ours.SeriesInstanceUID = document_uid(kept.run_id, 7), series_uid(kept.run_id)
    rig.put("ours.dcm", ours)
    rig.run()
    assert len(rig.of("DiagnosticReport")) == 1
    rig.put("report.dcm", others.a_readers_report(refers_to=[ours], **SIGNED))
    rig.run()
    assert history(rig, report_id(kept.run_id)) == ["preliminary", "final"]


def test_a_report_does_not_overwrite_a_result_nor_a_result_it(rig: DocumentRig) -> None:
    rig.put("report.dcm", others.a_readers_report(**SIGNED))
    rig.run()
    before = report(rig, of_document(others.REPORT_UID))
    rig.put("sr.dcm", a_document(planar(algorithm_id=an_algorithm("3"))))
    rig.run()
    assert report(rig, of_document(others.REPORT_UID)) == before
    assert len(rig.of("DiagnosticReport")) == 2


def test_a_cyclic_content_tree_is_parked(rig: DocumentRig) -> None:
    document = others.a_readers_report()
    reference = Dataset()
    reference.RelationshipType = "CONTAINS"
    reference.ReferencedContentItemIdentifier = [1, 3]
    section = document.ContentSequence[2]
    section.add(DataElement("ContentSequence", "SQ", Sequence([*section.ContentSequence, reference])))
    rig.put("report.dcm", document)
    rig.run()
    (error,) = rig.parked().values()
    assert "ReferencedContentItemIdentifier leads from an item back to itself" in error
    assert rig.of("ImagingStudy")
    assert rig.of("DiagnosticReport") == rig.of("DocumentReference") == []


def test_a_reference_to_another_item_is_no_cycle(rig: DocumentRig) -> None:
    document = others.a_readers_report()
    reference = Dataset()
    reference.RelationshipType = "INFERRED FROM"
    reference.ReferencedContentItemIdentifier = [1, 3, 1]
    section = document.ContentSequence[3]
    section.add(DataElement("ContentSequence", "SQ", Sequence([*section.ContentSequence, reference])))
    rig.put("report.dcm", document)
    rig.run()
    assert report(rig, of_document(others.REPORT_UID))["conclusion"] == others.IMPRESSION
