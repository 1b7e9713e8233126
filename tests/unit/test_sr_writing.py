from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom.sr as hd
import pytest
from fastapi import FastAPI
from pydicom import dcmread
from pydicom.uid import EnhancedCTImageStorage, SegmentationStorage

from bridge.api.ai_results import router
from bridge.code_tables import code_tables
from bridge.errors import RefusedResult
from bridge.findings.contract import read_result
from bridge.findings.model import AiResult
from bridge.findings.review import standing
from bridge.findings.sr import read_sr
from bridge.findings.sr_uid import document_uid
from bridge.findings.sr_writing import written
from bridge.intake import Intake
from bridge.state import State
from bridge.translate.headers import Headers
from tests.ai_results import LUNG, NODULE, a_finding, a_full_finding, a_result, an_image
from tests.builders import STUDY, a_translator, headers
from tests.unit.test_ai_result_fhir import a_review
from tests.unit.test_fhir_api import TestClient
from tests.unit.test_sync import Rig

SEG = {"series_instance_uid": f"{STUDY}.8", "sop_instance_uid": f"{STUDY}.8.1", "number": 2}
HELD = (headers(SOPClassUID=EnhancedCTImageStorage), headers(series=8, Modality="SEG", SOPClassUID=SegmentationStorage))


def document(item: dict[str, Any], *reviews: Any, held: tuple[Headers, ...] = HELD) -> bytes:
    result = read_result(item, code_tables().coding_scheme)
    (study,) = a_translator().translate(STUDY, {"a": held}).resources
    return written(standing(result, reviews), study, held[0], document_uid(result.run_id, len(reviews)))


def there_and_back(*findings: dict[str, Any]) -> AiResult:
    return read_sr(document(a_result(*findings)), code_tables().coding_scheme, None)


def plain(result: AiResult) -> list[tuple[Any, ...]]:
    return [(f.code, f.presence, f.score, f.classification, f.confidence, f.measurements) for f in result.findings]


CLASS = {"scheme": "RADLEX", "code": "RID36032", "display": "BI-RADS 4"}
OPEN = [[0, 0, n] for n in range(4)]
FINDINGS: dict[str, dict[str, Any]] = {
    "present": a_finding(confidence={"value": 93.1, "scale": "percent"}, text="spiculated\nborder"),
    "absent": a_finding(presence="absent"),
    "undetermined": a_finding(presence="undetermined"),
    "a class": a_finding(
        presence=None, classification={"scheme": "RADLEX", "code": "RID36032", "display": "BI-RADS 4"}
    ),
    "a site's side": a_finding(location={"body_site": LUNG, "laterality": "bilateral"}),
    "images": a_finding(images=[an_image(frames=[1, 3])]),
    "a tracked lesion": a_finding(tracking_uid="1.2.99", tracking_identifier="nodule 1"),
}


@pytest.mark.parametrize("name", FINDINGS)
def test_a_finding_comes_back_as_it_went(name: str) -> None:
    item = FINDINGS[name]
    sent = read_result(a_result(item), code_tables().coding_scheme)
    back = there_and_back(item)
    assert plain(back) == plain(sent)
    one, other = sent.findings[0], back.findings[0]
    assert (other.text, other.images, other.location) == (one.text, one.images, one.location)
    assert other.tracking_uid.startswith("2.25.") if not one.tracking_uid else other.tracking_uid == one.tracking_uid
    assert (back.model.name, back.model.version, back.model.vendor) == ("LungNet", "2.1.0", "Fictive AI")
    assert back.produced_at == sent.produced_at


def test_every_place_of_a_finding_is_a_group_and_the_first_says_all() -> None:
    places = a_full_finding()["location"] | {"segments": [SEG]}
    item = a_full_finding() | {"location": places}
    back = there_and_back(item)
    assert {f.tracking_uid for f in back.findings} == {f"{STUDY}.99"}
    assert [len(f.measurements) for f in back.findings] == [1, 0, 0, 0]
    assert [f.confidence is not None for f in back.findings] == [True, False, False, False]
    regions = [f.location for f in back.findings]
    assert [len(r.planar_regions) for r in regions] == [1, 0, 0, 0]
    assert [len(r.spatial_regions) for r in regions] == [0, 1, 0, 0]
    assert [s.number for r in regions for s in r.segments] == [2]
    assert back.findings[-1].images[0].frames == (1, 3)


def test_a_score_is_a_measurement_of_what_it_rates() -> None:
    (back,) = there_and_back(a_finding(presence=None, score={"value": 17.5})).findings
    assert [(m.code.code, m.value, m.unit) for m in back.measurements] == [(NODULE["code"], 17.5, "1")]
    assert back.presence is None


def test_the_same_result_is_the_same_bytes_in_its_study() -> None:
    item = a_result(a_full_finding() | {"location": {}})
    content = document(item)
    assert content == document(item)
    found = dcmread(BytesIO(content))
    assert (found.StudyInstanceUID, found.PatientID, str(found.PatientName)) == (STUDY, "P1", "Test^Eva")
    assert found.SOPInstanceUID == document_uid("run-1", 0)
    assert (found.PreliminaryFlag, found.ContentDate, found.TimezoneOffsetFromUTC) == (
        "PRELIMINARY",
        "20251201",
        "+0000",
    )
    series = found.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert [s.SeriesInstanceUID for s in series] == [f"{STUDY}.1"]


def test_another_program_reads_it() -> None:
    content = document(a_result(a_full_finding() | {"location": a_full_finding()["location"] | {"segments": [SEG]}}))
    report = hd.srread(BytesIO(content)).content
    (planar,) = report.get_planar_roi_measurement_groups(graphic_type=hd.GraphicTypeValues.CIRCLE)
    assert planar.tracking_uid == f"{STUDY}.99"
    assert planar.finding_type.value == NODULE["code"]
    assert planar.get_measurements()[0].value == 8.5


def test_a_signed_result_is_a_document_of_its_own() -> None:
    found = dcmread(BytesIO(document(a_result(), a_review("accept"))))
    assert (found.SOPInstanceUID, found.PreliminaryFlag) == (document_uid("run-1", 1), "FINAL")


def test_what_a_reader_refused_is_not_written_nor_measures_of_what_is_absent() -> None:
    nowhere = a_full_finding() | {"location": {}, "images": []}
    item = a_result(nowhere, a_finding(id="2", tracking_uid="1.2.5"))
    amended = a_review("amend", findings=[nowhere | {"presence": "absent"}], refused=["2"])
    (back,) = read_sr(document(item, amended), code_tables().coding_scheme, None).findings
    assert (back.presence, back.tracking_uid, back.measurements) == ("absent", f"{STUDY}.99", ())


@pytest.mark.parametrize(
    "location",
    [
        {"segments": [SEG | {"sop_instance_uid": "1.2.3"}]},
        {
            "spatial_regions": [
                {"frame_of_reference_uid": "1.2", "shape": "polygon", "points": [[0, 0, n] for n in range(4)]}
            ]
        },
    ],
)
def test_what_the_template_cannot_hold_is_refused(location: dict[str, Any]) -> None:
    with pytest.raises(RefusedResult, match="TID 1500"):
        document(a_result(a_finding(location=location)))


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    state = State(f"sqlite:///{tmp_path / 's.sqlite'}")
    yield state
    state.close()


def test_a_document_of_ours_that_comes_back_makes_no_second_result(state: State) -> None:
    rig = Rig(state)
    app = FastAPI()
    app.include_router(router(Intake(state, code_tables(), lambda: rig.now), state))
    client = TestClient(app)
    assert client.post("/ai-results", json=a_result()).status_code == 201
    assert client.get("/ai-results/run-1/sr").status_code == 409
    assert client.get("/ai-results/run-2/sr").status_code == 404
    rig.a.put(headers())
    rig.run()
    answer = client.get("/ai-results/run-1/sr")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/dicom")
    review = {"decision": "accept", "reader": {"name": "L"}, "reviewed_at": "2025-12-02T08:00:00Z"}
    assert client.post("/ai-results/run-1/review", json=review).status_code == 200
    for content in (answer.content, client.get("/ai-results/run-1/sr").content):
        back = client.post("/ai-results", content=content, headers={"Content-Type": "application/dicom"})
        assert (back.status_code, back.json()) == (200, {"run_id": "run-1", "outcome": "unchanged"})
    assert len(state.ai_results(STUDY)) == 1


def test_the_frame_of_an_image_that_has_but_one_has_no_number() -> None:
    content = document(a_result(a_finding(images=[an_image(frames=[1])])), held=(headers(),))
    assert b"\x08\x00\x60\x11" not in content  # ReferencedFrameNumber
    (found,) = read_sr(content, code_tables().coding_scheme, None).findings
    assert [i.frames for i in found.images] == [()]
