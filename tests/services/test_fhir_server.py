"""A real `bridge run` delivers to a real FHIR server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.builders import STUDY, write_file
from tests.services.bridge_process import BridgeProcess
from tests.services.fhir_peer import FhirPeer, running_fhir_server

OTHER = STUDY + ".2"
SYSTEM = "http://hospital.example/mrn"


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FhirPeer]:
    with running_fhir_server(tmp_path_factory.mktemp("fhir")) as found:
        yield found


@pytest.fixture
def bridge(peer: FhirPeer, tmp_path: Path) -> Iterator[BridgeProcess]:
    (tmp_path / "in").mkdir()
    settings = (
        f'[identity]\npatient_id_system = "{SYSTEM}"\n'
        '[[sources]]\nkind = "folder"\nname = "in"\npath = "in"\npoll_s = 0.2\nsettle_s = 0\n'
        f'[[sinks]]\nkind = "fhir_server"\nname = "ehr"\nurl = "{peer.url}"\n'
    )
    bridge = BridgeProcess(tmp_path, settings, {})
    bridge.start()
    yield bridge
    bridge.close()


def delivered(peer: FhirPeer, bridge: BridgeProcess, study: str, **elements: Any) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found = peer.search("ImagingStudy", identifier=f"urn:dicom:uid|urn:oid:{study}")
        assert len(found) <= 1
        return next((s for s in found if all(s.get(k) == v for k, v in elements.items())), None)

    return bridge.wait_for("the delivered study", look)


def test_a_study_arrives_refers_to_the_ehrs_patient_and_follows_its_changes(
    peer: FhirPeer, bridge: BridgeProcess, tmp_path: Path
) -> None:
    identifier = [{"system": SYSTEM, "value": "EHR-7"}]
    name = [{"family": "Test", "text": "As the EHR has it"}]
    peer.put(
        {
            "resourceType": "Patient",
            "id": "11111111-1111-4111-8111-111111111111",
            "identifier": identifier,
            "name": name,
        }
    )
    write_file(tmp_path / "in" / "1.dcm", PatientID="EHR-7")
    study = delivered(peer, bridge, STUDY, numberOfInstances=1)
    assert study["subject"]["reference"] == "Patient/11111111-1111-4111-8111-111111111111"
    write_file(tmp_path / "in" / "2.dcm", instance=2, PatientID="EHR-7")
    again = delivered(peer, bridge, STUDY, numberOfInstances=2)
    assert again["id"] == study["id"]
    (patient,) = peer.search("Patient", identifier=f"{SYSTEM}|EHR-7")
    assert patient["name"] == name


def test_a_server_that_fails_loses_nothing_and_gets_everything_once(
    peer: FhirPeer, bridge: BridgeProcess, tmp_path: Path
) -> None:
    peer.fail_with(500)
    write_file(tmp_path / "in" / "1.dcm", study=OTHER)
    error = bridge.wait_for("the failing sink in the status", lambda: bridge.queue("sink:ehr").get("error"))
    assert error.startswith("sink ehr: HTTP 500")
    assert bridge.study(OTHER)["status"] == "available"
    bridge.wait_for("delivery to the lake", lambda: bridge.queue("sink:lake") == {})
    bridge.kill()
    peer.fail_with(0)
    bridge.start()
    study = delivered(peer, bridge, OTHER)
    bridge.until_settled()
    assert peer.versions("ImagingStudy", study["id"]) == 1


def test_a_resource_the_server_refuses_is_parked_and_can_be_replayed(
    peer: FhirPeer, bridge: BridgeProcess, tmp_path: Path
) -> None:
    peer.fail_with(422)
    study = STUDY + ".3"
    write_file(tmp_path / "in" / "1.dcm", study=study)
    (parked,) = bridge.wait_for("the parked delivery", lambda: bridge.get("/operations/parked") or None)
    assert (parked["queue"], parked["key"]) == ("sink:ehr", study)
    peer.fail_with(0)
    bridge.post("/operations/parked/replay", {"queue": "sink:ehr", "key": study})
    delivered(peer, bridge, study)
    assert bridge.get("/operations/parked") == []
