"""A real `bridge run` follows one real Orthanc by every way it offers: FHIR and the lake say the same each time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from hospital import generate
from hospital.plan import ISSUER_OID
from tests.dicom_files import study_bytes
from tests.services.bridge_process import BridgeProcess
from tests.services.orthanc_server import OrthancServer, running_orthanc
from tests.services.peers import free_port

STUDY = "1.2.826.0.1.3680043.10.1561.1"
VERIFIED = "verify_s = 1\n"
OFTEN = f"poll_s = 0.3\nsweep_s = 3\n{VERIFIED}"


def by_changes(orthanc: OrthancServer, _port: int) -> str:
    return (
        f'[[sources]]\nkind = "orthanc"\nname = "pacs"\nurl = "{orthanc.url}"\nusername = "{orthanc.username}"\n'
        f'password = "{orthanc.password}"\n{OFTEN}'
    )


def by_dicomweb(orthanc: OrthancServer, _port: int) -> str:
    return (
        f'[[sources]]\nkind = "dicomweb"\nname = "web"\nurl = "{orthanc.url}/dicom-web"\nlookback_days = 3650\n'
        f'username = "{orthanc.username}"\npassword = "{orthanc.password}"\n{OFTEN}'
    )


def by_find(orthanc: OrthancServer, _port: int, more: str = "") -> str:
    """Orthanc answers no query for IssuerOfPatientID: the site says whose its bare patient ids are."""
    return (
        f'[identity]\npatient_id_system = "urn:oid:{ISSUER_OID}"\n'
        f'[[sources]]\nkind = "dimse"\nname = "dicom"\nhost = "127.0.0.1"\nport = {orthanc.dicom_port}\n'
        f'ae_title = "{orthanc.ae_title}"\nlookback_days = 3650\nwindow_days = 365\n{OFTEN}{more}'
    )


def by_get(orthanc: OrthancServer, port: int) -> str:
    return by_find(orthanc, port, 'retrieve = "get"\nretrieve_policy = "all"\n')


def by_move(orthanc: OrthancServer, port: int) -> str:
    receiver = f'[[sources]]\nkind = "receiver"\nname = "receiver"\nport = {port}\n'
    return receiver + by_find(orthanc, port, 'retrieve = "move"\nretrieve_policy = "all"\nreceiver = "receiver"\n')


@contextmanager
def followed(folder: Path, *ways: Callable[[OrthancServer, int], str]) -> Iterator[tuple[OrthancServer, BridgeProcess]]:
    port = free_port()
    (folder / "orthanc").mkdir()
    modalities = {"DicomModalities": {"bridge": ["BRIDGE", "127.0.0.1", port]}}
    with running_orthanc(folder / "orthanc", modalities) as orthanc:
        bridge = BridgeProcess(folder, "".join(way(orthanc, port) for way in ways), {})
        bridge.start()
        try:
            yield orthanc, bridge
        finally:
            bridge.close()


def said(study: dict[str, Any]) -> dict[str, Any]:
    """What must not depend on the way a study came by."""
    names = ("id", "status", "subject", "started", "modality", "numberOfSeries", "numberOfInstances", "description")
    series = [(s["uid"], s["modality"], [i["uid"] for i in s["instance"]]) for s in study.get("series", [])]
    return {name: study.get(name) for name in names} | {"series": series}


@pytest.mark.parametrize("way", [by_changes, by_dicomweb, by_find, by_get, by_move])
def test_a_study_comes_grows_and_goes(tmp_path: Path, way: Callable[[OrthancServer, int], str]) -> None:
    with followed(tmp_path, way) as (orthanc, bridge):
        orthanc.upload(study_bytes(STUDY, series=2, instances=2))
        first = said(bridge.study(STUDY, numberOfInstances=4, status="available"))
        assert first["modality"] == [{"system": DCM, "code": "CT", "display": "Computed Tomography"}]
        assert first["description"] == "CT of a phantom"
        assert [len(instances) for _, _, instances in first["series"]] == [2, 2]
        orthanc.upload(study_bytes(STUDY, series=1, instances=3))
        bridge.study(STUDY, numberOfInstances=5)
        bridge.until_settled()
        rows = bridge.wait_for(
            "rows", lambda: (r := bridge.sql("SELECT modality FROM dicom_series ORDER BY 1")) and len(r) == 2 and r
        )
        assert [row["modality"] for row in rows] == ["CT", "CT"]
        orthanc.delete_study(STUDY)
        assert bridge.study(STUDY, status="entered-in-error").get("endpoint") is None
        orthanc.upload(study_bytes(STUDY, series=2, instances=2))
        assert said(bridge.study(STUDY, numberOfInstances=4, status="available")) == first


def test_two_sources_of_one_study_make_one_resource_with_both_endpoints(tmp_path: Path) -> None:
    with followed(tmp_path, by_changes, by_dicomweb) as (orthanc, bridge):
        orthanc.upload(study_bytes(STUDY, series=2, instances=2))
        study = bridge.wait_for(
            "both endpoints", lambda: next((s for s in bridge.studies(STUDY) if len(s.get("endpoint", [])) == 2), None)
        )
        assert (study["numberOfInstances"], study["status"]) == (4, "available")


def found(orthanc: OrthancServer, uid: str) -> str:
    """Orthanc's path of what has this UID."""
    with orthanc.client() as client:
        return str(client.post("/tools/lookup", content=uid).raise_for_status().json()[0]["Path"])


@pytest.mark.parametrize("way", [by_changes, by_dicomweb, by_find])
def test_a_series_deleted_and_a_patient_renamed_under_the_same_study_are_told(
    tmp_path: Path, way: Callable[[OrthancServer, int], str]
) -> None:
    with followed(tmp_path, way) as (orthanc, bridge):
        orthanc.upload(study_bytes(STUDY, series=2, instances=2))
        before = bridge.study(STUDY, numberOfSeries=2, numberOfInstances=4)
        with orthanc.client() as client:
            client.delete(found(orthanc, f"{STUDY}.2")).raise_for_status()
            bridge.study(STUDY, numberOfSeries=1, numberOfInstances=2)
            change = {
                "Replace": {"PatientID": "TEST-9"}, "Force": True, "KeepSource": False,
                "Keep": ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"],
            }  # fmt: skip
            client.post(found(orthanc, "TEST-1") + "/modify", json=change).raise_for_status()
        after = bridge.wait_for(
            "another subject",
            lambda: next((s for s in bridge.studies(STUDY) if s["subject"] != before["subject"]), None),
        )
        assert (after["status"], after["numberOfInstances"], after["id"]) == ("available", 2, before["id"])


def test_a_study_split_over_two_archives_is_one_and_stays_while_one_of_them_has_it(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    files = f'[[sources]]\nkind = "folder"\nname = "files"\npath = "{folder}"\npoll_s = 0.3\nsettle_s = 0\n'
    with followed(tmp_path, by_changes, lambda _orthanc, _port: files) as (orthanc, bridge):
        orthanc.upload(study_bytes(STUDY, instances=2))
        for number, content in enumerate(study_bytes(STUDY, instances=3, first=3)):
            (folder / f"{number}.dcm").write_bytes(content)
        assert len(bridge.study(STUDY, numberOfInstances=5, numberOfSeries=1)["endpoint"]) == 1
        orthanc.delete_study(STUDY)
        left = bridge.study(STUDY, numberOfInstances=3)
        assert (left["status"], left.get("endpoint")) == ("available", None)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("way", [by_changes, by_dicomweb, by_find, by_get, by_move])
def test_the_founding_question_has_its_answer_whatever_the_source(
    tmp_path: Path, way: Callable[[OrthancServer, int], str]
) -> None:
    today = date.today()
    made = generate(tmp_path / "hospital", patients=24, today=today)
    load = ["load", str(tmp_path / "hospital" / "clinical"), "--lake", str(tmp_path / "data" / "lake")]
    subprocess.run([COHORT, *load], check=True, capture_output=True)

    def without_verifying(orthanc: OrthancServer, port: int) -> str:
        return way(orthanc, port).replace(VERIFIED, "")  # all studies each second is most of the machine's time

    with followed(tmp_path, without_verifying) as (orthanc, bridge):
        orthanc.upload([file.read_bytes() for file in sorted((tmp_path / "hospital" / "dicom").rglob("*.dcm"))])

        def answered() -> bool:
            ask = ["ask", "osteosarcoma-ct", "--json", "--config", str(bridge.config), "--date", str(today)]
            done = subprocess.run([COHORT, *ask], capture_output=True, check=True)
            rows = json.loads(done.stdout)["rows"]
            found = sorted((*row["identifiers"], row["study_instance_uid"]) for row in rows)
            return found == sorted(made.osteosarcoma_ct_expected)

        def all_seen() -> bool:
            return bool(bridge.get("/fhir/ImagingStudy", _count="1")["total"] == made.studies)

        bridge.wait_for("every study", all_seen, within_s=240)  # each asking takes seconds that the bridge needs
        bridge.wait_for("the founding answer", answered, within_s=120)


COHORT = str(Path(sys.executable).with_name("cohort"))
DCM = "http://dicom.nema.org/resources/ontology/DCM"
