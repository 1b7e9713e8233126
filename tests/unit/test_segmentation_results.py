"""Segmentations in an archive: a finding for each segment that no report carries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.findings.report import report_id
from bridge.translate.r5 import to_r5
from bridge.translate.r5_selections import with_selections
from tests.builders import STUDY
from tests.document_rig import DocumentRig
from tests.segmentations import a_segment, a_segmentation
from tests.sr_documents import SEG_UID, SR_UID, a_document, volumetric
from tests.validity import told_wrong, told_wrong_in_both


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[DocumentRig]:
    rig = DocumentRig(tmp_path)
    yield rig
    rig.state.close()


def findings(rig: DocumentRig, status: str = "preliminary") -> dict[str, dict[str, Any]]:
    """The Observations of segments in this status, by the id of their finding."""
    found = [o for o in rig.of("Observation") if o["status"] == status]
    return {o["identifier"][0]["value"].rpartition("/")[2]: o for o in found if f"{SEG_UID}/" in str(o["identifier"])}


def test_each_segment_is_a_finding_where_it_lies(rig: DocumentRig) -> None:
    rig.put("seg.dcm", a_segmentation(a_segment(1, tracking_id="nodule 1", tracking_uid=f"{STUDY}.99"), a_segment(2)))
    rig.run()
    assert rig.parked() == {}
    found = findings(rig)
    assert found.keys() == {"1", "2"}
    one = found["1"]
    assert one["code"]["coding"][0]["code"] == "427359005"
    assert one["valueCodeableConcept"]["coding"][0]["code"] == "52101004"
    assert one["bodySite"]["coding"][0]["code"] == "39607008"
    assert one["device"]["display"] == "LungNet 2.1.0"
    assert {c["valueString"] for c in one["component"] if "valueString" in c} == {"Nodule 1", f"{STUDY}.800"}
    assert one["identifier"][1]["value"] == f"urn:oid:{STUDY}.99"
    (report,) = rig.of("DiagnosticReport")
    assert report["id"] == report_id(SEG_UID)
    assert [o for o in rig.of("Observation") if told_wrong_in_both(o)] == []
    assert rig.of("DocumentReference") == []


def test_in_r5_a_segment_is_a_selection_of_its_number(rig: DocumentRig) -> None:
    rig.put("seg.dcm", a_segmentation())
    rig.run()
    made = with_selections(to_r5(findings(rig)["2"]))
    assert [told for one in made for told in told_wrong(one, "r5")] == []
    (selection,) = [one for one in made if one["resourceType"] == "ImagingSelection"]
    assert selection["code"]["coding"][0]["code"] == "121191"
    assert selection["instance"][0]["uid"] == SEG_UID
    assert selection["instance"][0]["subset"] == ["2"]


def test_an_empty_segment_claims_nothing(rig: DocumentRig) -> None:
    rig.put("seg.dcm", a_segmentation(empty=(2,)))
    rig.run()
    assert "valueCodeableConcept" in findings(rig)["1"]
    assert "valueCodeableConcept" not in findings(rig)["2"]


def test_a_segment_by_hand_is_no_result_of_a_program(rig: DocumentRig) -> None:
    rig.put("seg.dcm", a_segmentation(a_segment(1, automatic=False), a_segment(2)))
    rig.run()
    assert findings(rig).keys() == {"2"}


def test_a_segment_that_a_report_carries_is_not_told_twice(rig: DocumentRig) -> None:
    rig.put("seg.dcm", a_segmentation())
    rig.run()
    assert findings(rig).keys() == {"1", "2"}
    rig.put("sr.dcm", a_document(volumetric()))
    rig.run()
    assert rig.parked() == {}
    assert findings(rig).keys() == {"1"}
    assert findings(rig, "entered-in-error").keys() == {"2"}
    assert {r["id"] for r in rig.of("DiagnosticReport")} == {report_id(SEG_UID), report_id(SR_UID)}


def test_a_lesion_that_a_report_carries_is_known_by_its_tracking_uid(rig: DocumentRig) -> None:
    tracked = a_segment(1, tracking_id="nodule 1", tracking_uid=f"{STUDY}.99")
    rig.put("seg.dcm", a_segmentation(tracked, a_segment(2), a_segment(3)))
    rig.put("sr.dcm", a_document(volumetric()))
    rig.run()
    assert findings(rig).keys() == {"3"}


def test_the_pixels_are_not_kept(rig: DocumentRig) -> None:
    rig.put("seg.dcm", a_segmentation())
    rig.run()
    (kept,) = rig.state.documents(STUDY)
    assert kept.content is not None
    assert b"\xe0\x7f\x10\x00" not in kept.content


def test_a_segmentation_that_names_no_version_is_parked(rig: DocumentRig) -> None:
    made = a_segmentation()
    for segment in made.SegmentSequence:
        del segment.SegmentationAlgorithmIdentificationSequence
    del made.SoftwareVersions
    rig.put("seg.dcm", made)
    rig.run()
    (error,) = rig.parked().values()
    assert "SegmentSequence names no program with a version" in error
