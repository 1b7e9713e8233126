"""Our SR documents in real archives: stored by STOW-RS and by C-STORE, read by others, no second result of what comes
back."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom.sr as hd
import pytest
from pydicom import Dataset, dcmread
from pydicom.sr.coding import Code

from bridge.findings.sr_uid import document_uid, note_uid
from tests.ai_results import a_finding, a_result
from tests.dicom_files import study_bytes
from tests.other_documents import verifying
from tests.services.bridge_process import BridgeProcess
from tests.services.orthanc_server import OrthancServer
from tests.services.peers import free_port, program
from tests.sr_documents import NODULE, an_evaluation, as_bytes, by_a_person
from tests.unit.test_sr_writing import FINDINGS, document

STUDY = "1.2.826.0.1.3680043.10.1561.7"
SOURCE = """
[[sources]]
kind = "orthanc"
name = "pacs"
url = "{url}"
username = "{username}"
password = "${{ORTHANC_PASSWORD}}"
poll_s = 0.2
sweep_s = 2
"""
STOW = """
[[archives]]
kind = "stow"
name = "documents"
url = "{url}/dicom-web"
username = "{username}"
password = "${{ORTHANC_PASSWORD}}"
"""
C_STORE = """
[[archives]]
kind = "c_store"
name = "documents"
host = "127.0.0.1"
port = {dicom_port}
ae_title = "ORTHANC"
"""
NO_VR_CHECK = "W: The VR checker does not support this Specific Character Set"
ACCEPT = {"decision": "accept", "reader": {"name": "L"}, "reviewed_at": "2025-12-02T08:00:00Z"}


@contextmanager
def running(folder: Path, orthanc: OrthancServer, archives: str) -> Iterator[BridgeProcess]:
    toml = (SOURCE + archives).format(url=orthanc.url, username=orthanc.username, dicom_port=orthanc.dicom_port)
    bridge = BridgeProcess(folder, toml, {"ORTHANC_PASSWORD": orthanc.password})
    try:
        bridge.start()
        yield bridge
    finally:
        bridge.close()


def the_result(**more: Any) -> dict[str, Any]:
    image = {"series_instance_uid": f"{STUDY}.1", "sop_instance_uid": f"{STUDY}.1.1"}
    return a_result(a_finding(images=[image]), study_instance_uid=STUDY, **more)


def held(orthanc: OrthancServer, sop_instance_uid: str) -> Dataset | None:
    with orthanc.client() as client:
        found = client.post("/tools/lookup", content=sop_instance_uid).raise_for_status().json()
        return dcmread(BytesIO(client.get(f"{found[0]['Path']}/file").content)) if found else None


@pytest.mark.parametrize("archives", [STOW, C_STORE], ids=["STOW-RS", "C-STORE"])
def test_a_result_is_in_the_archive_and_comes_back_as_no_second_one(
    orthanc: OrthancServer, tmp_path: Path, archives: str
) -> None:
    orthanc.upload(study_bytes(STUDY))
    with running(tmp_path, orthanc, archives) as bridge:
        bridge.study(STUDY, numberOfInstances=2)
        assert bridge.post("/ai-results", the_result())["outcome"] == "kept"
        first = bridge.wait_for("the document", lambda: held(orthanc, document_uid("run-1", 0)))
        assert (first.StudyInstanceUID, first.Modality, first.VerificationFlag) == (STUDY, "SR", "UNVERIFIED")
        study = bridge.study(STUDY, numberOfInstances=3)
        assert [s["modality"]["code"] for s in study["series"]] == ["CT", "SR"]
        assert bridge.post("/ai-results/run-1/review", ACCEPT)["status"] == "final"
        bridge.wait_for("the document after the review", lambda: held(orthanc, document_uid("run-1", 1)))
        bridge.study(STUDY, numberOfInstances=4)
        bridge.until_settled()
        time.sleep(1)
        bridge.until_settled()
        assert len(bridge.get("/ai-results", study_instance_uid=STUDY)) == 1
        assert bridge.get("/fhir/DiagnosticReport")["total"] == 1
        assert bridge.get("/operations/parked") == []
        with orthanc.client() as client:
            assert len(client.get("/instances").json()) == 4


@pytest.mark.parametrize("archives", [STOW, C_STORE], ids=["STOW-RS", "C-STORE"])
def test_documents_of_a_rejected_result_are_rejected_in_the_archive_once(
    orthanc: OrthancServer, tmp_path: Path, archives: str
) -> None:
    orthanc.upload(study_bytes(STUDY))
    uids = [document_uid("run-1", n) for n in (0, 1)]
    with running(tmp_path, orthanc, archives) as bridge:
        bridge.study(STUDY, numberOfInstances=2)
        bridge.post("/ai-results", the_result())
        bridge.wait_for("the document", lambda: held(orthanc, uids[0]))
        bridge.post("/ai-results/run-1/review", ACCEPT)
        bridge.wait_for("the document after the review", lambda: held(orthanc, uids[1]))
        bridge.study(STUDY, numberOfInstances=4)
        told = bridge.post("/ai-results/run-1/review", ACCEPT | {"decision": "reject"})
        assert told["status"] == "entered-in-error"
        note = bridge.wait_for("the note", lambda: held(orthanc, note_uid("run-1", uids)))
        assert (note.StudyInstanceUID, note.Modality) == (STUDY, "KO")
        study = bridge.study(STUDY, numberOfInstances=3)
        assert [s["modality"]["code"] for s in study["series"]] == ["CT", "KO"]
        bridge.until_settled()
        time.sleep(1)
        bridge.until_settled()
        assert len(bridge.get("/ai-results", study_instance_uid=STUDY)) == 1
        assert bridge.get("/fhir/DiagnosticReport")["entry"][0]["resource"]["status"] == "entered-in-error"
        assert bridge.get("/operations/parked") == []
        with orthanc.client() as client:
            assert len(client.get("/instances").json()) == 5
    note.save_as(tmp_path / "note.dcm", enforce_file_format=True)
    assert_verified(tmp_path / "note.dcm", "KeyObjectSelectionDocument")
    done = subprocess.run(
        [str(program("dsrdump")), str(tmp_path / "note.dcm")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "Rejected for Quality Reasons" in done.stdout) == (0, True)


def test_a_readers_report_in_the_archive_rejects_a_result_and_its_document(
    orthanc: OrthancServer, tmp_path: Path
) -> None:
    orthanc.upload(study_bytes(STUDY))
    with running(tmp_path, orthanc, STOW) as bridge:
        bridge.study(STUDY, numberOfInstances=2)
        bridge.post("/ai-results", the_result())
        first = bridge.wait_for("the document", lambda: held(orthanc, document_uid("run-1", 0)))
        bridge.study(STUDY, numberOfInstances=3)
        orthanc.upload([as_bytes(a_reading_without(first))])
        bridge.wait_for("the note", lambda: held(orthanc, note_uid("run-1", [document_uid("run-1", 0)])))
        bridge.study(STUDY, numberOfInstances=4)
        bridge.until_settled()
        (told,) = bridge.get("/ai-results", study_instance_uid=STUDY)
        assert (told["status"], [r["decision"] for r in told["reviews"]]) == ("entered-in-error", ["reject"])
        with orthanc.client() as client:
            assert len(client.get("/instances").json()) == 5


def a_reading_without(document: Dataset) -> Dataset:
    """A verified Measurement Report by a person, for whom the one lesion of the document is absent."""
    group = hd.MeasurementReport.from_sequence([document]).get_image_measurement_groups()[0]
    absent = hd.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.TrackingIdentifier(uid=group.tracking_uid, identifier="1"),
        finding_type=NODULE,
        qualitative_evaluations=[an_evaluation(NODULE, Code("2667000", "SCT", "Absent"))],
    )
    made = hd.Comprehensive3DSR(
        evidence=[document],
        content=hd.MeasurementReport(by_a_person(), Code("363679005", "SCT", "Imaging procedure"), [absent]),
        series_instance_uid=f"{STUDY}.950",
        series_number=950,
        sop_instance_uid=f"{STUDY}.950.1",
        instance_number=1,
        manufacturer="Fictive PACS",
    )
    made.VerificationFlag, made.VerifyingObserverSequence = "VERIFIED", [verifying()]
    made.TimezoneOffsetFromUTC = "+0100"
    return made


def test_what_somebody_deleted_in_the_archive_stays_deleted(orthanc: OrthancServer, tmp_path: Path) -> None:
    orthanc.upload(study_bytes(STUDY))
    with running(tmp_path, orthanc, STOW) as bridge:
        bridge.study(STUDY, numberOfInstances=2)
        bridge.post("/ai-results", the_result())
        bridge.wait_for("the document", lambda: held(orthanc, document_uid("run-1", 0)))
        bridge.study(STUDY, numberOfInstances=3)
        with orthanc.client() as client:
            (found,) = client.post("/tools/lookup", content=document_uid("run-1", 0)).json()
            client.delete(found["Path"]).raise_for_status()
        bridge.study(STUDY, numberOfInstances=2)
        bridge.until_settled()
        assert held(orthanc, document_uid("run-1", 0)) is None


def test_an_archive_that_was_away_gets_it_when_it_is_back(orthanc: OrthancServer, tmp_path: Path) -> None:
    orthanc.upload(study_bytes(STUDY))
    with running(tmp_path, orthanc, STOW) as bridge:
        bridge.study(STUDY, numberOfInstances=2)
        orthanc.stop()
        bridge.post("/ai-results", the_result())
        told = bridge.wait_for("a failure", lambda: bridge.queue("send:documents").get("error"))
        assert "archive documents: connection refused" in told
        orthanc.start()
        bridge.wait_for("the document", lambda: held(orthanc, document_uid("run-1", 0)))


@contextmanager
def storescp(folder: Path) -> Iterator[tuple[int, Path]]:
    """DCMTK's receiver: its port, and the folder it writes to."""
    port, into = free_port(), folder / "storescp"
    into.mkdir()
    command = [str(program("storescp")), "-aet", "ORTHANC", "-od", str(into), str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while subprocess.run(
            [str(program("echoscu")), "127.0.0.1", str(port)], capture_output=True, check=False
        ).returncode:
            assert time.monotonic() < until
            time.sleep(0.1)
        yield port, into
    finally:
        process.kill()
        process.wait()


def test_storescp_of_dcmtk_takes_it_by_c_store(orthanc: OrthancServer, tmp_path: Path) -> None:
    orthanc.upload(study_bytes(STUDY))
    with storescp(tmp_path) as (port, into):
        archives = C_STORE.replace("{dicom_port}", str(port))
        with running(tmp_path, orthanc, archives) as bridge:
            bridge.study(STUDY, numberOfInstances=2)
            bridge.post("/ai-results", the_result())
            (path,) = bridge.wait_for("the document", lambda: list(into.iterdir()) or None)
            bridge.wait_for("its note", lambda: not bridge.queue("send:documents"))
        assert dcmread(path).SOPInstanceUID == document_uid("run-1", 0)
        assert not list((tmp_path / "data" / "documents").rglob("*.dcm"))


@pytest.fixture(params=sorted(FINDINGS))
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "document.dcm"
    path.write_bytes(document(a_result(FINDINGS[request.param], conclusion="one")))
    return path


def test_dciodvfy_finds_nothing_wrong(written: Path) -> None:
    assert_verified(written, "Comprehensive3DSR")


def assert_verified(path: Path, kind: str) -> None:
    done = subprocess.run([str(program("dciodvfy")), str(path)], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert kind in said
    assert not [line for line in said.splitlines() if line.startswith("Error")]
    assert done.returncode == 0


def test_dsrdump_reads_it(written: Path) -> None:
    done = subprocess.run([str(program("dsrdump")), str(written)], capture_output=True, text=True, check=False)
    told = [line for line in done.stderr.splitlines() if not line.startswith(NO_VR_CHECK)]
    assert (done.returncode, told) == (0, [])
    assert "Imaging Measurement Report" in done.stdout
    assert "LungNet" in done.stdout


def test_highdicom_reads_it(written: Path) -> None:
    read = hd.srread(written)
    assert isinstance(read.content, hd.MeasurementReport)
    groups = [*read.content.get_image_measurement_groups()]
    groups += [*read.content.get_planar_roi_measurement_groups(), *read.content.get_volumetric_roi_measurement_groups()]
    assert groups
