"""A real `bridge run` follows the simulated DICOM server over TCP: created, re-identified, deleted, created again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.dicom_files import study_bytes
from tests.dicom_server.archive import SimulatedArchive
from tests.dicom_server.serving import over_tcp
from tests.services.bridge_process import BridgeProcess

STUDY = "1.2.826.0.1.3680043.10.1561.9"


@pytest.mark.parametrize("api_version", ["v1", "v2"])
def test_fhir_ends_true_whatever_happens_to_a_study(tmp_path: Path, api_version: str) -> None:
    archive = SimulatedArchive()
    with over_tcp(archive) as url:
        source = f'[[sources]]\nkind = "dicom_server"\nname = "cloud"\nurl = "{url}"\n'
        bridge = BridgeProcess(tmp_path, source + f'api_version = "{api_version}"\npoll_s = 0.2\noverlap_s = 5\n', {})
        bridge.start()
        try:
            for content in study_bytes(STUDY, series=2, instances=2):
                archive.store(content)
            found = bridge.study(STUDY, numberOfInstances=4, numberOfSeries=2, status="available")
            assert len(found["endpoint"]) == 1
            archive.update(STUDY, PatientID="TEST-3")
            renamed = bridge.wait_for(
                "another subject",
                lambda: bridge.studies(STUDY)[0]["subject"] != found["subject"] and bridge.studies(STUDY),
            )
            assert renamed[0]["numberOfInstances"] == 4
            archive.delete(STUDY)
            bridge.study(STUDY, status="entered-in-error", numberOfInstances=0)
            for content in study_bytes(STUDY, instances=1, PatientID="TEST-2"):
                archive.store(content)
            again = bridge.study(STUDY, status="available", numberOfInstances=1)
            assert again["subject"] not in (found["subject"], renamed[0]["subject"])
        finally:
            bridge.close()
