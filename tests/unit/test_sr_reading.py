from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC
from typing import Any
from zoneinfo import ZoneInfo

import highdicom.sr as hd
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import DeflatedExplicitVRLittleEndian

from bridge.api.ai_results import router
from bridge.code_tables import code_tables
from bridge.document_process import DocumentProcesses, ReadingLimits
from bridge.errors import InvalidFile, RefusedResult
from bridge.findings.contract import as_json
from bridge.findings.model import AiResult, PlanarShape, Presence, SpatialShape
from bridge.findings.part10 import opened
from bridge.findings.sr import read_sr
from bridge.intake import Intake
from tests.builders import STUDY, a_dataset, as_file, headers
from tests.raw_elements import DEFLATED, element, identity, part10
from tests.sr_documents import (
    DIAMETER,
    SEG_UID,
    SR_UID,
    a_document,
    a_measurement,
    an_algorithm,
    an_evaluation,
    as_bytes,
    by_a_person,
    of_images,
    planar,
    planar_in_space,
    volumetric,
)
from tests.unit.test_ai_results_attached import state as state
from tests.unit.test_fhir_api import TestClient
from tests.unit.test_sync import Rig


def read(document: Dataset, **how: Any) -> AiResult:
    return read_sr(as_bytes(document), how.get("schemes", code_tables().coding_scheme), how.get("zone"))


def items(item: Dataset) -> Iterator[Dataset]:
    """Every content item below one."""
    for child in item.get("ContentSequence", ()):
        yield child
        yield from items(child)


def refused(document: Dataset, **how: Any) -> str:
    with pytest.raises(RefusedResult) as caught:
        read(document, **how)
    return str(caught.value)


def test_a_planar_group_is_a_finding_with_its_region_and_measurement() -> None:
    result = read(a_document(planar()))
    assert (result.run_id, result.study_instance_uid) == (SR_UID, STUDY)
    assert (result.model.name, result.model.version, result.model.vendor) == ("LungNet", "2.1.0", "Fictive AI")
    assert result.produced_at.astimezone(UTC).isoformat() == "2025-12-01T10:05:00+00:00"
    assert result.preliminary
    (finding,) = result.findings
    assert (finding.code.scheme, finding.code.code, finding.presence) == ("SCT", "427359005", Presence.PRESENT)
    assert [(m.value, m.unit, m.code.code) for m in finding.measurements] == [(8.5, "mm", DIAMETER.value)]
    assert (finding.tracking_uid, finding.tracking_identifier) == (f"{STUDY}.99", "nodule 1")
    assert finding.location.body_site is not None
    assert (finding.location.body_site.code, finding.location.laterality) == ("39607008", "right")
    (region,) = finding.location.planar_regions
    assert (region.shape, region.points) == (PlanarShape.CIRCLE, ((120.5, 88.0), (126.5, 88.0)))
    assert (region.image.series_instance_uid, region.image.sop_instance_uid) == (f"{STUDY}.1", f"{STUDY}.1.1")


def test_a_region_in_space_keeps_its_frame_of_reference() -> None:
    (finding,) = read(a_document(planar_in_space())).findings
    (region,) = finding.location.spatial_regions
    assert (region.frame_of_reference_uid, region.shape, len(region.points)) == ("1.2.9", SpatialShape.POLYGON, 4)


def test_a_volumetric_group_names_its_segment_and_the_images_it_was_made_of() -> None:
    (finding,) = read(a_document(volumetric())).findings
    (segment,) = finding.location.segments
    assert (segment.series_instance_uid, segment.sop_instance_uid, segment.number) == (f"{STUDY}.800", SEG_UID, 2)
    assert [i.sop_instance_uid for i in finding.images] == [f"{STUDY}.1.1"]


def test_a_group_without_a_region_names_its_images() -> None:
    (finding,) = read(a_document(of_images())).findings
    assert [i.sop_instance_uid for i in finding.images] == [f"{STUDY}.1.1"]


def test_points_of_a_multipoint_are_regions_of_their_own() -> None:
    document = a_document(planar())
    (region,) = [i for i in items(document) if i.get("ValueType") == "SCOORD"]
    region.GraphicType = "MULTIPOINT"
    (finding,) = read(document).findings
    assert [r.points for r in finding.location.planar_regions] == [((120.5, 88.0),), ((126.5, 88.0),)]


def test_an_evaluation_is_a_finding_of_its_own_in_the_same_place() -> None:
    one, evaluated = read(a_document(planar(qualitative_evaluations=[an_evaluation()]))).findings
    assert evaluated.classification is not None
    assert evaluated.classification.display == "Spiculated lesion"
    assert (evaluated.presence, evaluated.location) == (None, one.location)
    assert evaluated.tracking_uid == one.tracking_uid
    assert one.presence is Presence.PRESENT


@pytest.mark.parametrize(
    ("code", "meaning", "presence"),
    [("2667000", "Absent", Presence.ABSENT), ("373068000", "Undetermined", Presence.UNDETERMINED)],
)
def test_a_finding_that_is_evaluated_as_not_there_is_not_present(code: str, meaning: str, presence: Presence) -> None:
    evaluation = an_evaluation(value=Code(code, "SCT", meaning))
    assert read(a_document(planar(qualitative_evaluations=[evaluation]))).findings[0].presence is presence


def test_measurements_without_a_finding_claim_none() -> None:
    (finding,) = read(a_document(planar(finding_type=None))).findings
    assert (finding.code.code, finding.presence, len(finding.measurements)) == ("125007", None, 1)


def test_a_derivation_tells_measurements_of_one_kind_apart() -> None:
    mean, maximum = Code("373098007", "SCT", "Mean"), Code("56851009", "SCT", "Maximum")
    measured = [a_measurement(derivation=mean), a_measurement(9, derivation=maximum)]
    (finding,) = read(a_document(planar(measurements=measured))).findings
    assert [m.derivation.display for m in finding.measurements if m.derivation] == ["Mean", "Maximum"]


def test_certainty_in_percent_is_the_confidence() -> None:
    certainty = hd.Measurement(Code("111012", "DCM", "Certainty of Finding"), 93.1, Code("%", "UCUM", "%"))
    (finding,) = read(a_document(planar(measurements=[a_measurement(), certainty]))).findings
    assert finding.confidence is not None
    assert finding.confidence.percent == 93.1
    assert len(finding.measurements) == 1


def test_retired_snomed_codes_become_those_of_today() -> None:
    (finding,) = read(a_document(planar(finding_type=Code("T-28000", "SRT", "Lung")))).findings
    assert (finding.code.scheme, finding.code.code) == ("SCT", "39607008")


def test_a_verified_document_needs_no_reader_any_more() -> None:
    assert not read(a_document(VerificationFlag="VERIFIED")).preliminary


def test_a_time_without_an_offset_is_the_site_s_or_is_refused() -> None:
    document = a_document(TimezoneOffsetFromUTC=None)
    assert "time_zone" in refused(document)
    assert read(document, zone=ZoneInfo("Europe/Vienna")).produced_at.isoformat() == "2025-12-01T11:05:00+01:00"


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (a_document(planar(), planar(algorithm_id=an_algorithm("3"))), "several programs"),
        (a_document(planar(algorithm_id=None)), "no program with a version"),
        (a_document(planar(algorithm_id=None), observed=by_a_person()), "a person"),
        (a_document(planar(measurements=[a_measurement(unit=Code("99", "99ODD", "odd"))])), "UCUM"),
        (a_document(planar(finding_type=Code("1", "99ODD", "odd"))), "findings[0].code.scheme"),
        (a_document(volumetric()), "evidence"),
        (a_document(ContentTime=""), "ContentTime"),
    ],
)
def test_what_cannot_be_told_without_guessing_is_refused(document: Dataset, told: str) -> None:
    if "evidence" in told:
        del document.CurrentRequestedProcedureEvidenceSequence
    assert told in refused(document)


def test_a_device_that_observed_is_the_program_where_no_algorithm_is_named() -> None:
    result = read(a_document(planar(algorithm_id=None), SoftwareVersions="7.1"))
    assert (result.model.name, result.model.version) == ("Station", "7.1")


def test_other_documents_and_images_are_refused() -> None:
    other = a_document()
    other.ConceptNameCodeSequence[0].CodeValue = "113704"
    assert "TID 1500" in refused(other)
    with pytest.raises(RefusedResult, match="TID 1500"):
        read_sr(as_file(a_dataset()), code_tables().coding_scheme, None)


def test_a_deflated_document_is_not_opened() -> None:
    document = a_document()
    document.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    assert "uncompressed" in refused(document)


def test_what_is_deflated_is_refused_before_it_is_inflated() -> None:
    bomb = part10(identity() + element(0x0040A160, b"UT", bytes(60_000_000)), DEFLATED)
    assert len(bomb) < 1_000_000
    tracemalloc.start()
    try:
        with pytest.raises(InvalidFile, match="deflated"):
            opened(bomb)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


GOOD = as_bytes(a_document(planar(qualitative_evaluations=[an_evaluation()]), volumetric(), of_images()))


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_damaged_document_is_read_or_refused_and_tells_nothing(data: st.DataObject) -> None:
    damaged = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 5))):
        damaged[data.draw(st.integers(132, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    damaged = damaged[: data.draw(st.integers(0, len(damaged)))]
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read_sr(bytes(damaged), code_tables().coding_scheme, None)
        except RefusedResult as error:
            assert "Test^Eva" not in str(error)


def test_a_document_is_taken_at_the_same_door_once(state: Any) -> None:
    rig = Rig(state)
    rig.a.put(headers())
    rig.run()
    app = FastAPI()
    app.include_router(router(Intake(state, code_tables(), lambda: rig.now), state))
    client = TestClient(app)
    sr = {"Content-Type": "application/dicom"}
    content = as_bytes(a_document(planar()))
    answers = [client.post("/ai-results", content=content, headers=sr) for _ in range(2)]
    assert [(a.status_code, a.json()["outcome"]) for a in answers] == [(201, "kept"), (200, "unchanged")]
    rig.run()
    shown = client.get(f"/ai-results/{SR_UID}").json()
    assert (shown["attached"], shown["status"]) == (True, "preliminary")
    elsewhere = as_bytes(a_document(volumetric(), SOPInstanceUID=f"{SR_UID}.2"))
    assert client.post("/ai-results", content=b"no", headers=sr).status_code == 422
    assert client.post("/ai-results", content=elsewhere, headers=sr).status_code == 422


@pytest.mark.parametrize(
    ("module", "status", "told"),
    [("tests.hanging_worker", 422, "longer than 1.5 s"), ("tests.no_such_module", 503, "process that reads them")],
)
def test_a_document_whose_reading_hangs_is_refused_at_the_door(state: Any, module: str, status: int, told: str) -> None:
    with closing(DocumentProcesses(1, ReadingLimits(1.5), module=module)) as processes:
        intake = Intake(state, code_tables(), lambda: 0.0, look=lambda content: processes.kept_part(content, None))
        app = FastAPI()
        app.include_router(router(intake, state))
        client = TestClient(app)
        sr = {"Content-Type": "application/dicom"}
        hangs = as_bytes(a_document(planar(), SeriesDescription="HANG"))
        answer = client.post("/ai-results", content=hangs, headers=sr)
        assert (answer.status_code, told in answer.text) == (status, True)
        good = client.post("/ai-results", content=as_bytes(a_document(planar())), headers=sr)
        assert good.status_code == (201 if status == 422 else 503)


def test_the_json_form_of_a_document_reads_as_the_same_result() -> None:
    from bridge.findings.contract import read_result

    result = read(a_document(planar(qualitative_evaluations=[an_evaluation()]), planar_in_space(), volumetric()))
    assert read_result(json.loads(as_json(result)), code_tables().coding_scheme) == result
