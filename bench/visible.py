"""From an archive to FHIR to a question: how long until a study that Orthanc received is counted.

    make bench-visible             needs Orthanc, Java and Maven

A real `bridge run` follows a real Orthanc and delivers to HAPI FHIR JPA and to the lake. For each study, one after the
other: sent, found by a search at HAPI, counted by a ready question over HTTP. Then as many at once. Whether the
numbers of HAPI and of the question are right is checked at the end.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from bench.results_file import Measured, write
from tests.dicom_files import study_bytes
from tests.services.bridge_process import BridgeProcess
from tests.services.hapi import HapiPeer, running_hapi
from tests.services.orthanc_server import OrthancServer, running_orthanc

STUDIES, TOGETHER, GOAL_S, PATIENCE_S = 20, 100, 5.0, 120.0
ROOT = "1.2.826.0.1.3680043.10.1561"


def settings(orthanc: OrthancServer, hapi: HapiPeer) -> str:
    return (
        f'[[sources]]\nkind = "orthanc"\nname = "pacs"\nurl = "{orthanc.url}"\nusername = "{orthanc.username}"\n'
        f'password = "{orthanc.password}"\npoll_s = 0.3\n'
        f'[[sinks]]\nkind = "fhir_server"\nname = "ehr"\nurl = "{hapi.url}"\n'
    )


def counted(web: httpx.Client) -> int:
    """The studies of one series each that a ready question counts."""
    answer = web.post("/cohort/api/questions/series-per-modality", json={})
    if answer.status_code == 409:
        return 0
    return sum(row["series"] for row in answer.raise_for_status().json()["rows"])


def held(hapi: HapiPeer) -> int:
    found = httpx.get(
        f"{hapi.url}/ImagingStudy",
        params={"_summary": "count", "_total": "accurate"},
        headers={"Cache-Control": "no-cache"},
    )
    total: int = found.raise_for_status().json()["total"]
    return total


def reached(number: int, look: Callable[[], int]) -> float:
    """When so many are seen."""
    until = time.perf_counter() + PATIENCE_S
    while look() < number:
        assert time.perf_counter() < until, f"waited {PATIENCE_S:g} s for {number}"
        time.sleep(0.05)
    return time.perf_counter()


def follow(number: int, hapi: HapiPeer, web: httpx.Client) -> tuple[float, float]:
    """When HAPI and when the question has so many, each watched on its own."""
    seen: dict[str, float] = {}
    watchers = [
        threading.Thread(target=lambda: seen.update(hapi=reached(number, lambda: held(hapi)))),
        threading.Thread(target=lambda: seen.update(question=reached(number, lambda: counted(web)))),
    ]
    for watcher in watchers:
        watcher.start()
    for watcher in watchers:
        watcher.join()
    return seen["hapi"], seen["question"]


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch, running_hapi(Path(scratch)) as hapi:
        folder = Path(scratch) / "orthanc"
        folder.mkdir()
        with running_orthanc(folder) as orthanc:
            bridge = BridgeProcess(Path(scratch), settings(orthanc, hapi), {})
            bridge.start()
            try:
                rows = measured(orthanc, hapi, bridge.port)
            finally:
                bridge.close()
    write("visible", 0, {"studies one by one": STUDIES, "studies together": TOGETHER}, rows, STUDIES)


def measured(orthanc: OrthancServer, hapi: HapiPeer, port: int) -> list[Measured]:
    to_fhir, after_fhir = [], []
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as web:
        for n in range(1, STUDIES + 1):
            sent = time.perf_counter()
            orthanc.upload(study_bytes(f"{ROOT}.{n}", series=1, instances=3))
            in_fhir, in_question = follow(n, hapi, web)
            to_fhir.append(in_fhir - sent)
            after_fhir.append(in_question - in_fhir)
        sent = time.perf_counter()
        for n in range(STUDIES + 1, STUDIES + TOGETHER + 1):
            orthanc.upload(study_bytes(f"{ROOT}.{n}", series=1, instances=3))
        all_fhir, all_question = follow(STUDIES + TOGETHER, hapi, web)
        assert (held(hapi), counted(web)) == (STUDIES + TOGETHER, STUDIES + TOGETHER)
    worst, together = max(after_fhir), all_question - all_fhir
    goal = f"<= {GOAL_S:g} s"
    return [
        Measured("from the archive to FHIR, median", statistics.median(to_fhir), "s"),
        Measured("from FHIR to a question, median", statistics.median(after_fhir), "s", goal=goal,
                 met=statistics.median(after_fhir) <= GOAL_S),
        Measured("from FHIR to a question, worst of all", worst, "s", goal=goal, met=worst <= GOAL_S),
        Measured(f"from the last of {TOGETHER} in FHIR to all in a question", together, "s", goal=goal,
                 met=together <= GOAL_S),
        Measured(f"{TOGETHER} studies at once, from the archive to a question", all_question - sent, "s"),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
