"""A real `bridge run` follows a real Orthanc; what a FHIR client sees is what Orthanc holds, whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.dicom_files import dicom_bytes, study_bytes
from tests.services.bridge_process import BridgeProcess
from tests.services.dcmtk import Dcmtk
from tests.services.orthanc_server import OrthancServer

STUDY, OTHER = "1.2.826.0.1.3680043.10.1561.1", "1.2.826.0.1.3680043.10.1561.2"

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


@pytest.fixture
def bridge(orthanc: OrthancServer, tmp_path: Path) -> Iterator[BridgeProcess]:
    source = SOURCE.format(url=orthanc.url, username=orthanc.username)
    bridge = BridgeProcess(tmp_path, source, {"ORTHANC_PASSWORD": orthanc.password})
    bridge.start()
    yield bridge
    bridge.close()


def instances(study: dict[str, Any]) -> set[str]:
    return {i["uid"] for series in study["series"] for i in series["instance"]}


def test_a_study_sent_to_orthanc_appears_whole(
    orthanc: OrthancServer, bridge: BridgeProcess, dcmtk: Dcmtk, tmp_path: Path
) -> None:
    dcmtk.send(orthanc.ae_title, orthanc.dicom_port, study_bytes(STUDY, series=2, instances=3), tmp_path / "files")
    study = bridge.study(STUDY, status="available", numberOfInstances=6)
    assert instances(study) == {f"{STUDY}.{s}.{n}" for s in (1, 2) for n in (1, 2, 3)}
    (endpoint,) = study["endpoint"]
    found = bridge.get(f"/fhir/{endpoint['reference']}")
    assert found["address"] == f"{orthanc.url}/dicom-web"
    assert found["connectionType"]["code"] == "dicom-wado-rs"


def test_late_instances_make_a_new_version_of_the_same_study(orthanc: OrthancServer, bridge: BridgeProcess) -> None:
    orthanc.upload(study_bytes(STUDY))
    first = bridge.study(STUDY, numberOfInstances=2)
    orthanc.upload(study_bytes(STUDY, instances=3, first=3))
    second = bridge.study(STUDY, numberOfInstances=5)
    assert second["id"] == first["id"]
    assert int(second["meta"]["versionId"]) > int(first["meta"]["versionId"])


def test_instances_sent_again_make_no_new_version(orthanc: OrthancServer, bridge: BridgeProcess) -> None:
    orthanc.upload(study_bytes(STUDY))
    bridge.study(STUDY, numberOfInstances=2)
    bridge.until_settled()
    first = bridge.study(STUDY)
    orthanc.upload(study_bytes(STUDY))
    orthanc.upload(study_bytes(OTHER))
    bridge.study(OTHER, numberOfInstances=2)
    bridge.until_settled()
    assert bridge.study(STUDY)["meta"] == first["meta"]


def test_a_deleted_study_is_withdrawn_by_the_sweep(orthanc: OrthancServer, bridge: BridgeProcess) -> None:
    orthanc.upload(study_bytes(STUDY))
    orthanc.upload(study_bytes(OTHER))
    bridge.study(STUDY, status="available")
    bridge.study(OTHER, status="available")
    orthanc.delete_study(STUDY)
    bridge.study(STUDY, status="entered-in-error")
    assert bridge.study(OTHER)["status"] == "available"


def test_an_instance_deleted_from_a_study_goes_by_the_sweep(orthanc: OrthancServer, bridge: BridgeProcess) -> None:
    orthanc.upload(study_bytes(STUDY, instances=3))
    bridge.study(STUDY, numberOfInstances=3)
    with orthanc.client() as client:
        (found,) = client.post("/tools/lookup", content=f"{STUDY}.1.2").json()
        client.delete(found["Path"]).raise_for_status()
    assert instances(bridge.study(STUDY, numberOfInstances=2)) == {f"{STUDY}.1.1", f"{STUDY}.1.3"}


def test_a_study_deleted_and_sent_again_is_available_again(orthanc: OrthancServer, bridge: BridgeProcess) -> None:
    orthanc.upload(study_bytes(STUDY))
    first = bridge.study(STUDY, status="available")
    orthanc.delete_study(STUDY)
    bridge.study(STUDY, status="entered-in-error")
    orthanc.upload(study_bytes(STUDY, StudyDescription="sent again"))
    again = bridge.study(STUDY, status="available", description="sent again")
    assert again["id"] == first["id"]


def test_orthanc_may_be_down_for_a_while(orthanc: OrthancServer, bridge: BridgeProcess) -> None:
    orthanc.upload(study_bytes(STUDY))
    bridge.study(STUDY, status="available")
    orthanc.stop()
    told = "source pacs: connection refused"
    bridge.wait_for("the failing poll in the status", lambda: told in bridge.queue("poll").get("error", ""))
    assert bridge.study(STUDY)["status"] == "available"
    orthanc.start()
    orthanc.upload(study_bytes(OTHER))
    bridge.study(OTHER, status="available")
    assert bridge.study(STUDY)["status"] == "available"


@pytest.mark.parametrize("ending", ["stop", "kill"])
def test_what_came_while_the_bridge_was_down_is_found(
    orthanc: OrthancServer, bridge: BridgeProcess, ending: str
) -> None:
    orthanc.upload(study_bytes(STUDY))
    bridge.study(STUDY, status="available")
    getattr(bridge, ending)()
    orthanc.delete_study(STUDY)
    orthanc.upload(study_bytes(OTHER))
    bridge.start()
    bridge.study(OTHER, status="available")
    bridge.study(STUDY, status="entered-in-error")


def test_a_database_wiped_and_refilled_is_followed(orthanc: OrthancServer, bridge: BridgeProcess) -> None:
    orthanc.upload(study_bytes(STUDY, StudyDescription="before"))
    orthanc.upload(study_bytes(OTHER))
    bridge.study(STUDY, status="available", description="before")
    bridge.study(OTHER, status="available")
    orthanc.reset_database()
    orthanc.upload(study_bytes(STUDY, StudyDescription="after"))
    bridge.study(OTHER, status="entered-in-error")
    bridge.study(STUDY, status="available", description="after")


def test_a_database_refilled_while_the_bridge_was_down_is_followed(
    orthanc: OrthancServer, bridge: BridgeProcess
) -> None:
    orthanc.upload(study_bytes(STUDY, StudyDescription="before"))
    orthanc.upload(study_bytes(OTHER))
    bridge.study(STUDY, status="available", description="before")
    bridge.study(OTHER, status="available")
    bridge.stop()
    orthanc.reset_database()
    orthanc.upload(study_bytes(STUDY, StudyDescription="after"))
    orthanc.upload(study_bytes(f"{STUDY}.9", instances=4))
    bridge.start()
    bridge.study(STUDY, status="available", description="after")
    bridge.study(OTHER, status="entered-in-error")
    bridge.study(f"{STUDY}.9", numberOfInstances=4)


def test_a_study_of_two_patients_waits_for_a_person_until_orthanc_is_corrected(
    orthanc: OrthancServer, bridge: BridgeProcess
) -> None:
    orthanc.upload([dicom_bytes(STUDY, f"{STUDY}.1", f"{STUDY}.1.1", PatientID="A")])
    bridge.study(STUDY, status="available", numberOfInstances=1)
    orthanc.upload([dicom_bytes(STUDY, f"{STUDY}.1", f"{STUDY}.1.2", PatientID="B")])
    (parked,) = bridge.wait_for("the parked study", lambda: bridge.get("/operations/parked") or None)
    assert (parked["queue"], parked["key"]) == ("study", STUDY)
    assert parked["error"].startswith("PatientID: the instances of this study name different patients")
    with orthanc.client() as client:
        (wrong,) = client.post("/tools/lookup", content=f"{STUDY}.1.1").json()
        client.delete(wrong["Path"]).raise_for_status()
    bridge.wait_for("the corrected study", lambda: instances(bridge.study(STUDY)) == {f"{STUDY}.1.2"})
    assert bridge.get("/operations/parked") == []


def test_cohort_questions_see_what_orthanc_holds(orthanc: OrthancServer, bridge: BridgeProcess) -> None:
    query = "SELECT study_instance_uid, number_of_instances FROM imaging_study WHERE status = 'available' ORDER BY 1"
    orthanc.upload(study_bytes(STUDY, series=2, instances=3))
    orthanc.upload(study_bytes(OTHER, instances=1))
    both = [
        {"study_instance_uid": STUDY, "number_of_instances": 6},
        {"study_instance_uid": OTHER, "number_of_instances": 1},
    ]
    bridge.wait_for("both studies in the lake", lambda: bridge.sql(query) == both)
    orthanc.delete_study(STUDY)
    bridge.wait_for("the other study alone in the lake", lambda: bridge.sql(query) == both[1:])
    assert bridge.cohort("SELECT count(*) AS slices FROM dicom_instance") == [{"slices": 1}]


def test_many_studies_arrive_while_others_go(orthanc: OrthancServer, bridge: BridgeProcess) -> None:
    studies = [f"1.2.826.0.1.3680043.10.1561.5.{n}" for n in range(1, 41)]
    for number, study in enumerate(studies):
        orthanc.upload(study_bytes(study))
        if number % 4 == 3:
            orthanc.delete_study(studies[number - 2])
    gone = {studies[n - 2] for n in range(3, 40, 4)}
    for study in studies:
        if study not in gone:
            bridge.study(study, status="available", numberOfInstances=2)
    bridge.wait_for(
        "the deleted ones", lambda: all(s["status"] != "available" for g in gone for s in bridge.studies(g))
    )
