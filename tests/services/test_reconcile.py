"""`bridge reconcile` beside a real bridge, between a real Orthanc, a real HAPI FHIR server and the lake."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.dicom_files import study_bytes
from tests.services.bridge_process import BridgeProcess
from tests.services.hapi import HapiPeer
from tests.services.orthanc_server import OrthancServer

SETTINGS = """
[[sources]]
kind = "orthanc"
name = "pacs"
url = "{url}"
username = "{username}"
password = "${{ORTHANC_PASSWORD}}"
poll_s = 0.2
sweep_s = 3600
verify_s = 3600
[[sinks]]
kind = "fhir_server"
name = "ehr"
url = "{fhir}"
"""


class Rig:
    def __init__(self, orthanc: OrthancServer, hapi: HapiPeer, folder: Path) -> None:
        self.orthanc, self.hapi = orthanc, hapi
        settings = SETTINGS.format(url=orthanc.url, username=orthanc.username, fhir=hapi.url)
        self._environment = {"ORTHANC_PASSWORD": orthanc.password}
        self.bridge = BridgeProcess(folder, settings, self._environment)
        self.studies = [f"2.25.{uuid4().int}" for _ in range(3)]

    def command(self, *words: str) -> tuple[int, Any]:
        """Exit code and the JSON of a command."""
        command = [str(Path(sys.executable).with_name("bridge")), *words, "--json", "--config", str(self.bridge.config)]
        done = subprocess.run(command, env=os.environ | self._environment, capture_output=True, timeout=120)
        assert done.returncode in (0, 1), done.stderr.decode()
        return done.returncode, json.loads(done.stdout)

    def reconcile(self, *options: str) -> tuple[int, dict[str, Any]]:
        """Exit code and comparisons by their parties."""
        code, told = self.command("reconcile", *options)
        return code, {f"{c['left']} {c['right']}": c for c in told["comparisons"]}

    def on_server(self, uid: str) -> dict[str, Any]:
        (found,) = self.hapi.search("ImagingStudy", identifier=f"urn:dicom:uid|urn:oid:{uid}")
        return dict(found)


@pytest.fixture
def rig(orthanc: OrthancServer, hapi_r4: HapiPeer, tmp_path: Path) -> Iterator[Rig]:
    made = Rig(orthanc, hapi_r4, tmp_path)
    for uid in made.studies:
        orthanc.upload(study_bytes(uid, series=2, instances=2))
    made.bridge.start()
    for uid in made.studies:
        made.bridge.study(uid, numberOfInstances=4)
    made.bridge.until_settled()
    yield made
    made.bridge.close()


@pytest.mark.parametrize("options", [(), ("--whole",)])
def test_all_agree_after_delivery(rig: Rig, options: tuple[str, ...]) -> None:
    code, found = rig.reconcile(*options)
    assert code == 0, found
    assert found["pacs state"]["compared"] == {"studies": 3, "instances": 12}
    assert found["state ehr"]["compared"] == {"studies": 3, "series": 6, "instances": 12}
    assert found["state lake"]["compared"]["instances"] == 12


def test_what_changed_behind_the_bridge_is_found_and_put_right(rig: Rig) -> None:
    changed, lost, _ = rig.studies
    there = rig.on_server(changed)
    rig.hapi.put(there | {"description": "somebody else's"})
    rig.orthanc.delete_study(lost)
    code, found = rig.reconcile()
    assert code == 1
    assert [(d["key"], d["level"]) for d in found["state ehr"]["differences"]] == [(changed, "content")]
    assert [d["key"] for d in found["pacs state"]["differences"]] == [lost]
    rig.reconcile("--repair")
    rig.bridge.study(lost, status="entered-in-error")
    rig.bridge.until_settled()
    assert rig.reconcile("--whole")[0] == 0
    assert rig.on_server(changed).get("description") == there.get("description")


def test_it_is_done_by_the_running_bridge_when_asked_for(rig: Rig) -> None:
    rig.bridge.post("/operations/reconciliation", {})
    kept = rig.bridge.wait_for(
        "the report", lambda: rig.bridge.get("/operations/status").get("reconciliation"), within_s=60
    )
    assert kept["agrees"] is True
    assert {c["right"] for c in kept["comparisons"]} == {"state", "resources", "ehr", "lake"}


@pytest.mark.timeout(400)
def test_a_bridge_that_lost_everything_is_restored_to_no_difference(rig: Rig, tmp_path: Path) -> None:
    late, lost = f"2.25.{uuid4().int}", rig.studies[0]
    assert rig.command("backup", str(tmp_path / "saved"))[0] == 0
    rig.orthanc.upload(study_bytes(late))
    rig.bridge.study(late, numberOfInstances=2)
    rig.bridge.kill()
    rig.orthanc.delete_study(lost)
    shutil.rmtree(rig.bridge.data_dir)
    rig.command("restore", str(tmp_path / "saved"))
    rig.bridge.start()
    rig.bridge.study(late, numberOfInstances=2)
    rig.bridge.study(lost, status="entered-in-error")
    rig.bridge.until_settled()
    code, found = rig.reconcile("--whole")
    assert code == 0, found
    assert found["state ehr"]["compared"]["studies"] == 4
    assert {uid: rig.on_server(uid)["status"] for uid in (late, lost)} == {late: "available", lost: "entered-in-error"}
    assert rig.command("verify")[0] == 0
