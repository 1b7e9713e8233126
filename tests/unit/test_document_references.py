"""Documents that are no results: DocumentReferences of them, and reports of PDFs."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from bridge.translate.fhir_search import parse_search
from bridge.translate.r5 import to_r5
from bridge.translate.r5_selections import SELECTION
from tests import other_documents as others
from tests.builders import STUDY
from tests.document_rig import DocumentRig
from tests.sr_documents import SR_UID, a_document, an_image, planar
from tests.validity import told_wrong_in_both

WADO = "http://pacs/dw"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[DocumentRig]:
    rig = DocumentRig(tmp_path, WADO)
    yield rig
    rig.state.close()


def one(rig: DocumentRig, document: Dataset) -> dict[str, Any]:
    """The DocumentReference of the one document, valid in both versions."""
    rig.put("document.dcm", document)
    rig.run()
    assert rig.parked() == {}
    made = [r for kind in ("DocumentReference", "DiagnosticReport", "Observation") for r in rig.of(kind)]
    assert [told for r in made for told in told_wrong_in_both(r)] == []
    (found,) = rig.of("DocumentReference")
    return found


def images(reference: dict[str, Any]) -> list[str]:
    extensions = reference["context"]["related"][0]["extension"]
    assert {e["url"] for e in extensions} == {SELECTION}
    instances = [p for e in extensions for p in e["extension"] if p["url"] == "instance"]
    return [p["extension"][0]["valueId"] for p in instances]


def test_key_objects_tell_their_title_and_the_images_they_select(rig: DocumentRig) -> None:
    found = one(rig, others.key_objects())
    assert found["type"]["coding"][0]["code"] == "113000"
    assert images(found) == [f"{STUDY}.1.1"]
    assert found["masterIdentifier"]["value"] == f"urn:oid:{others.KO_UID}"
    assert found["content"][0]["attachment"]["url"] == (
        f"{WADO}/studies/{STUDY}/series/{STUDY}.901/instances/{others.KO_UID}"
    )
    assert found["content"][0]["format"]["code"] == "1.2.840.10008.5.1.4.1.1.88.59"


def test_a_presentation_state_tells_its_images_and_who_made_it(rig: DocumentRig) -> None:
    found = one(rig, others.presentation_state())
    assert found["type"] == {"text": "Grayscale Softcopy Presentation State"}
    assert images(found) == [f"{STUDY}.1.1"]
    assert found["description"] == "Window for the report"
    assert found["author"] == [{"type": "Practitioner", "display": "Lia Leser"}]


def test_a_measurement_report_is_a_document_too(rig: DocumentRig) -> None:
    found = one(rig, a_document(planar()))
    assert found["type"]["coding"][0]["code"] == "126000"
    assert found["docStatus"] == "preliminary"
    assert found["date"] == "2025-12-01T11:05:00+01:00"
    assert len(rig.of("DiagnosticReport")) == 1


def test_any_other_structured_report_is_a_document_and_nothing_else(rig: DocumentRig) -> None:
    document = a_document(planar(), TimezoneOffsetFromUTC=None)
    document.ConceptNameCodeSequence[0].CodeValue = "122292"
    found = one(rig, document)
    assert found["type"]["coding"][0]["code"] == "122292"
    assert "date" not in found
    assert rig.of("DiagnosticReport") == rig.of("Observation") == []


def test_a_pdf_is_a_document_and_the_form_of_a_report(rig: DocumentRig) -> None:
    found = one(rig, others.a_pdf())
    pdf = found["content"][1]["attachment"]
    assert pdf["url"].endswith(f"/instances/{others.PDF_UID}/rendered")
    assert pdf["contentType"] == "application/pdf"
    (report,) = rig.of("DiagnosticReport")
    (form,) = report["presentedForm"]
    assert base64.b64decode(form["data"]) == others.PDF
    assert form["size"] == pdf["size"] == len(others.PDF)
    assert base64.b64decode(form["hash"]) == hashlib.sha1(others.PDF).digest()
    assert report["status"] == "preliminary"
    assert "resultsInterpreter" not in report


def test_a_verified_pdf_is_final_and_names_who_verified_it(rig: DocumentRig) -> None:
    pdf = others.a_pdf(VerificationFlag="VERIFIED", VerifyingObserverSequence=[others.verifying()])
    found = one(rig, pdf)
    assert (found["docStatus"], found["authenticator"]["display"]) == ("final", "Lia Leser")
    (report,) = rig.of("DiagnosticReport")
    assert report["status"] == "final"
    assert report["resultsInterpreter"] == [{"type": "Practitioner", "display": "Lia Leser"}]
    assert report["issued"] == "2025-12-01T12:00:00+01:00"


def test_a_large_pdf_stays_in_the_archive(rig: DocumentRig) -> None:
    content = others.PDF + b" " * 2_000_001
    found = one(rig, others.a_pdf(content))
    (report,) = rig.of("DiagnosticReport")
    (form,) = report["presentedForm"]
    assert "data" not in form
    assert form["url"] == found["content"][1]["attachment"]["url"]
    assert form["size"] >= len(content)


def test_the_declared_length_of_a_pdf_counts(rig: DocumentRig) -> None:
    one(rig, others.a_pdf(others.PDF, EncapsulatedDocumentLength=len(others.PDF) - 1))
    (report,) = rig.of("DiagnosticReport")
    assert report["presentedForm"][0]["size"] == len(others.PDF) - 1


def test_a_pdf_that_is_none_is_parked(rig: DocumentRig) -> None:
    rig.put("document.dcm", others.a_pdf(b"<html>no pdf</html>"))
    rig.run()
    (error,) = rig.parked().values()
    assert "EncapsulatedDocument is not a PDF" in error
    assert rig.of("DocumentReference") == rig.of("DiagnosticReport") == []


def test_a_document_that_is_gone_is_in_error_and_current_again_with_it(rig: DocumentRig) -> None:
    one(rig, others.a_pdf())
    rig.remove("document.dcm")
    rig.run()
    assert {r["status"] for kind in ("DocumentReference", "DiagnosticReport") for r in rig.of(kind)} == {
        "entered-in-error"
    }
    assert one(rig, others.a_pdf())["status"] == "current"


def test_documents_that_a_note_rejects_are_not_shown(rig: DocumentRig) -> None:
    one(rig, a_document(planar()))
    title = codes.DCM.RejectedForQualityReasons
    rejected = an_image(series=900, SOPInstanceUID=SR_UID, Modality="SR", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.34")
    note = KeyObjectSelectionDocument(
        evidence=[rejected],
        content=KeyObjectSelection(document_title=title, referenced_objects=[rejected]),
        series_instance_uid=f"{STUDY}.904",
        series_number=904,
        sop_instance_uid=f"{STUDY}.904.1",
        instance_number=1,
        manufacturer="Fictive PACS",
    )
    rig.put("note.dcm", note)
    rig.run()
    assert {r["status"] for r in rig.of("DiagnosticReport")} == {"entered-in-error"}


def test_the_study_is_an_event_in_r5(rig: DocumentRig) -> None:
    made = to_r5(one(rig, others.key_objects()))
    assert made["event"][0]["reference"]["type"] == "ImagingStudy"
    assert made["content"][0]["profile"][0]["valueCoding"]["code"].endswith("88.59")
    assert "context" not in made


def test_documents_can_be_searched_by_type_and_study(rig: DocumentRig) -> None:
    one(rig, others.key_objects())
    for name, value in (("type", "113000"), ("contenttype", "application/dicom"), ("related", _study(rig))):
        assert rig.state.search_total(parse_search("DocumentReference", [(name, value)]).query) == 1, name


def _study(rig: DocumentRig) -> str:
    return f"ImagingStudy/{rig.study()['id']}"
