"""The reference model of docs/examples, a real Orthanc and a real bridge: from pixels to a report and back."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pydicom import dcmread

from bridge.findings.sr_uid import document_uid
from bridge.model_calls.token import Tokens
from tests.dicom_files import dicom_bytes
from tests.services.orthanc_server import OrthancServer
from tests.services.peers import free_port
from tests.services.test_documents_in_archives import STOW, held, running

STUDY = "1.2.826.0.1.3680043.10.1561.8"
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
MODEL = """
[[models]]
name = "density"
version = "1.0.0"
url = "http://127.0.0.1:{port}/studies"
bearer_token = "${{ORTHANC_PASSWORD}}"
stable_s = 0.5
[models.rule]
modalities = ["CT"]
"""


@contextmanager
def reference_model(port: int, folder: Path, token: str) -> Iterator[Path]:
    """The service until the block ends; its log."""
    log = folder / "model.log"
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLES), "lung_density:app", "--port", str(port)]
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=os.environ | {"MODEL_TOKEN": token})
    try:
        until = time.monotonic() + 100
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/", trust_env=False)
                break
            except httpx.TransportError:
                assert process.poll() is None and time.monotonic() < until, log.read_text()
                time.sleep(0.1)
        yield log
    finally:
        process.terminate()
        process.wait(20)


def slices(densities: list[list[float]], **attributes: Any) -> list[bytes]:
    """CT images, each a row of 8 by 8 voxels with these densities in turn."""
    files = []
    for n, some in enumerate(densities, 1):
        stored = np.resize(np.array(some) + 1024, (8, 8)).astype(np.uint16)
        scaled = {"PixelData": stored.tobytes(), "RescaleSlope": 1, "RescaleIntercept": -1024}
        files.append(dicom_bytes(STUDY, f"{STUDY}.1", f"{STUDY}.1.{n}", **scaled, **attributes))
    return files


@pytest.mark.timeout(200)
def test_a_study_in_orthanc_gets_a_report_and_a_document(orthanc: OrthancServer, tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path, orthanc, STOW + MODEL.replace("{port}", str(port))) as bridge:
        orthanc.upload(slices([[-900, 40], [-700, -1000]], BodyPartExamined="CHEST"))
        bridge.study(STUDY, numberOfInstances=2)
        bridge.wait_for("a call that fails", lambda: bridge.queue("model:density").get("error"))
        with reference_model(port, tmp_path, orthanc.password) as log:
            (report,) = bridge.wait_for("its report", lambda: _found(bridge.get("/fhir/DiagnosticReport")) or None, 90)
            assert report["status"] == "preliminary"
            values = [o["valueQuantity"] for o in _found(bridge.get("/fhir/Observation")) if "valueQuantity" in o]
            assert [(v["value"], v["code"]) for v in values] == [(-800.0, "[hnsf'U]")]
            (kept,) = bridge.get("/ai-results", study_instance_uid=STUDY)
            uid = document_uid(kept["run_id"], 0)
            assert bridge.wait_for("the document", lambda: held(orthanc, uid)).StudyInstanceUID == STUDY
            bridge.study(STUDY, numberOfInstances=3)
            bridge.until_settled()
            bridge.wait_for("no more calls", lambda: not bridge.queue("model:density"))
            time.sleep(2)
            assert log.read_text().count('"POST /studies') == 1
            assert len(bridge.get("/ai-results", study_instance_uid=STUDY)) == 1
            assert bridge.get("/operations/parked") == []


def test_a_token_of_a_call_opens_that_study_alone(orthanc: OrthancServer, tmp_path: Path) -> None:
    orthanc.upload(slices([[-900, 40]]))
    other = f"{STUDY}.5"
    orthanc.upload([dicom_bytes(other, f"{other}.1", f"{other}.1.1")])
    with running(tmp_path, orthanc, MODEL.replace("{port}", str(free_port()))) as bridge:
        bridge.study(STUDY, numberOfInstances=1)
        bridge.study(other, numberOfInstances=1)
        token = Tokens(bridge.data_dir / "image-token.key").issue(STUDY, time.time() + 60)
        base = f"http://127.0.0.1:{bridge.port}/wado-rs/studies"
        bearer = {"Authorization": f"Bearer {token}"}
        got = httpx.get(f"{base}/{STUDY}", headers=bearer, trust_env=False)
        assert got.status_code == 200
        part = got.content.split(b"\r\n\r\n", 1)[1]
        assert dcmread(BytesIO(part)).StudyInstanceUID == STUDY
        metadata = httpx.get(f"{base}/{STUDY}/metadata", headers=bearer | {"Accept": "application/dicom+json"})
        assert metadata.json()[0]["0020000D"]["Value"] == [STUDY]
        assert httpx.get(f"{base}/{other}", headers=bearer, trust_env=False).status_code == 401
        assert httpx.get(f"{base}/{STUDY}", trust_env=False).status_code == 401


def _found(bundle: dict[str, Any]) -> list[dict[str, Any]]:
    return [entry["resource"] for entry in bundle.get("entry", [])]
