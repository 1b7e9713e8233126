"""Real bridges deliver to a real HAPI FHIR server that fails, dies and is raced for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.builders import STUDY, write_file
from tests.services.bridge_process import BridgeProcess
from tests.services.fault_proxy import Rates, running_fault_proxy
from tests.services.hapi import HapiPeer, running_hapi

MRN = "http://hospital.example/mrn"
STUDIES, PATIENTS = 1000, 100
SETTLED_S = 240.0


def settings(folder: Path, url: str) -> str:
    return (
        f'[identity]\npatient_id_system = "{MRN}"\n'
        f'[[sources]]\nkind = "folder"\nname = "in"\npath = "{folder}"\npoll_s = 0.3\nsettle_s = 0\n'
        f'[[sinks]]\nkind = "fhir_server"\nname = "ehr"\nurl = "{url}"\npatients = "create"\ntimeout_s = 10\n'
    )


def a_folder(folder: Path, studies: int, patients: int) -> list[str]:
    """So many studies of one instance each, of so many patients. Result: their UIDs."""
    uids = [f"{STUDY}.{n}" for n in range(1, studies + 1)]
    for n, uid in enumerate(uids):
        write_file(folder / f"{n}.dcm", study=uid, PatientID=f"P{n % patients}", PixelData=b"")
    return uids


def held(peer: HapiPeer) -> Counter[str]:
    """Study Instance UID → how many ImagingStudy resources the server has of it."""
    found = peer.search("ImagingStudy", _count="500", _elements="identifier")
    return Counter(i["value"].removeprefix("urn:oid:") for s in found for i in s["identifier"][:1])


def versions(peer: HapiPeer, kind: str) -> Counter[str]:
    return Counter(r["meta"]["versionId"] for r in peer.search(kind, _count="500", _elements="identifier"))


def until_delivered(bridge: BridgeProcess, peer: HapiPeer, uids: list[str]) -> None:
    def delivered() -> bool:
        status: dict[str, Any] = bridge.get("/operations/status")
        waiting = [q for q in status["queues"] if q["queue"] in ("study", "sink:ehr") and q["waiting"]]
        return not waiting and len(held(peer)) == len(uids)

    bridge.wait_for("every study on the server", delivered, SETTLED_S)


@pytest.mark.timeout(600)
def test_a_thousand_studies_reach_a_server_that_throttles_fails_forgets_to_answer_and_is_killed(
    tmp_path: Path,
) -> None:
    (tmp_path / "hapi").mkdir()
    uids = a_folder(tmp_path / "in", STUDIES, PATIENTS)
    with running_hapi(tmp_path / "hapi") as peer, running_fault_proxy(peer.url, seed=4) as proxy:
        proxy.rates, proxy.retry_after_s = Rates(throttled=0.06, unavailable=0.06, cut=0.08, halved=0.05), 1
        bridge = BridgeProcess(tmp_path, settings(tmp_path / "in", proxy.url), {})
        try:
            bridge.start()
            bridge.wait_for("a part of the studies", lambda: len(held(peer)) >= STUDIES // 4 or None, SETTLED_S)
            peer.kill()
            bridge.wait_for("the failing sink in the status", lambda: bridge.queue("sink:ehr").get("error"))
            bridge.kill()
            peer.start()
            bridge.start()
            bridge.wait_for("most of the studies", lambda: len(held(peer)) >= STUDIES * 3 // 4 or None, SETTLED_S)
            proxy.rates = Rates()
            until_delivered(bridge, peer, uids)
            assert bridge.get("/operations/parked") == []
        finally:
            bridge.close()
        assert {what for what, n in proxy.counts.items() if n} > {"throttled", "unavailable", "cut", "halved"}
        assert held(peer) == Counter(uids)
        assert versions(peer, "ImagingStudy") == {"1": STUDIES}
        assert versions(peer, "Patient") == {"1": PATIENTS}


@pytest.fixture(params=[{}, {"client_ids": "NOT_ALLOWED"}], ids=["our ids", "ids of the server's"])
def peer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HapiPeer]:
    (tmp_path / "hapi").mkdir()
    with running_hapi(tmp_path / "hapi", **request.param) as found:
        yield found


@pytest.mark.timeout(300)
def test_two_bridges_that_race_leave_one_of_everything(peer: HapiPeer, tmp_path: Path) -> None:
    uids = a_folder(tmp_path / "in", 60, 5)
    with ExitStack() as stack:
        bridges = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            bridge = BridgeProcess(tmp_path / name, settings(tmp_path / "in", peer.url), {})
            stack.callback(bridge.close)
            bridges.append(bridge)
        for bridge in bridges:
            bridge.start()
        for bridge in bridges:
            until_delivered(bridge, peer, uids)
            assert bridge.get("/operations/parked") == []
    assert held(peer) == Counter(uids)
    assert len(peer.search("Patient")) == 5
    assert len(peer.search("Endpoint")) == len({e["id"] for e in peer.search("Endpoint")})
