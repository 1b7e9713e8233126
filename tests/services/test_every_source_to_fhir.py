"""A real `bridge run` follows one real Orthanc by every way it offers: FHIR and the lake say the same each time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.dicom_files import study_bytes
from tests.services.bridge_process import BridgeProcess
from tests.services.orthanc_server import OrthancServer, running_orthanc
from tests.services.peers import free_port

STUDY = "1.2.826.0.1.3680043.10.1561.1"
OFTEN = "poll_s = 0.3\nsweep_s = 3\nverify_s = 1\n"


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
    return (
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


DCM = "http://dicom.nema.org/resources/ontology/DCM"
