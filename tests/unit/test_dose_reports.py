"""Radiation dose reports: their numbers as Observations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import highdicom as hd
import pytest
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from tests import other_documents as others
from tests.builders import STUDY
from tests.document_rig import DocumentRig
from tests.validity import told_wrong_in_both


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[DocumentRig]:
    rig = DocumentRig(tmp_path)
    yield rig
    rig.state.close()


def doses(rig: DocumentRig) -> set[tuple[str, float, str]]:
    found = rig.of("Observation")
    assert [told for one in found for told in told_wrong_in_both(one)] == []
    return {(o["code"]["coding"][0]["code"], o["valueQuantity"]["value"], o["valueQuantity"]["code"]) for o in found}


def test_a_ct_dose_report_is_its_numbers(rig: DocumentRig) -> None:
    rig.put("dose.dcm", others.a_dose_report())
    rig.run()
    assert rig.parked() == {}
    assert doses(rig) == {
        ("113812", 2, "{events}"),
        ("113813", 530.5, "mGy.cm"),
        ("113830", 8.1, "mGy"),
        ("113838", 30.5, "mGy.cm"),
        ("113830", 12.5, "mGy"),
        ("113838", 500, "mGy.cm"),
    }
    found = {o["valueQuantity"]["value"]: o for o in rig.of("Observation")}
    event = found[12.5]
    assert event["status"] == "final"
    assert event["device"]["display"] == "Fictive Imaging"
    assert "meta" not in event
    assert event["identifier"][1]["value"] == f"urn:oid:{STUDY}.77.2"
    assert [c.get("valueString") or c["valueCodeableConcept"]["coding"][0]["code"] for c in event["component"]] == [
        "51185008",
        "113691",
        "Thorax",
    ]
    (reference,) = rig.of("DocumentReference")
    assert event["derivedFrom"][0]["reference"] == f"DocumentReference/{reference['id']}"
    assert rig.of("DiagnosticReport") == []


def test_a_projection_report_tells_its_total_dose_area_product(rig: DocumentRig) -> None:
    product = Code("Gy.m2", "UCUM", "Gy.m2")
    total = hd.sr.ContainerContentItem(codes.DCM.AccumulatedXRayDoseData, relationship_type="CONTAINS")
    total.ContentSequence = hd.sr.ContentSequence(
        [
            hd.sr.NumContentItem(codes.DCM.DoseAreaProductTotal, 0.0021, product, relationship_type="CONTAINS"),
            hd.sr.NumContentItem(codes.DCM.DoseRPTotal, 3, Code("gray", "99X", "gray"), relationship_type="CONTAINS"),
        ]
    )
    event = hd.sr.ContainerContentItem(codes.DCM.IrradiationEventXRayData, relationship_type="CONTAINS")
    event.ContentSequence = hd.sr.ContentSequence(
        [hd.sr.NumContentItem(codes.DCM.DoseAreaProduct, 0.001, product, relationship_type="CONTAINS")]
    )
    rig.put("dose.dcm", others.a_dose_report(ContentSequence=[total, event]))
    rig.run()
    assert doses(rig) == {("113722", 0.0021, "Gy.m2"), ("122130", 0.001, "Gy.m2")}


def test_a_partial_report_is_preliminary_and_a_gone_one_in_error(rig: DocumentRig) -> None:
    rig.put("dose.dcm", others.a_dose_report(CompletionFlag="PARTIAL"))
    rig.run()
    assert {o["status"] for o in rig.of("Observation")} == {"preliminary"}
    rig.remove("dose.dcm")
    rig.run()
    assert {o["status"] for o in rig.of("Observation")} == {"entered-in-error"}
