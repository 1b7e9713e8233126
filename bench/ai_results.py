"""AI results by HTTP: how many a second a running bridge takes, and how soon they are reports.

    make bench-ai-results                   checks every answer before it counts; five runs, medians
    python -m bench.ai_results --hapi       beside HAPI FHIR, which gets the same Observations and reports as
                                            transactions of a hundred results; needs Java and Maven

The bridge is a process of its own with all its loops: what it has taken it translates while it takes the next. Every
result has a finding with a region, a measurement and a confidence, on an image that the bridge looks for in its study.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import orjson

from bench.results_file import Measured, write
from bridge.code_tables import code_tables
from bridge.findings.contract import read_result
from bridge.findings.report import resources
from bridge.findings.review import standing
from tests.ai_results import a_finding, a_full_finding, a_result
from tests.dicom_files import study_bytes
from tests.services.bridge_process import BridgeProcess
from tests.services.hapi import running_hapi

SEED, RUNS, STUDIES, INSTANCES, RESULTS, BATCH, SINGLE = 0, 5, 200, 20, 2_000, 100, 300
ROOT_UID = "1.2.826.0.1.3680043.10.1561.40"
SOURCE = '[[sources]]\nkind = "folder"\nname = "inbox"\npath = "inbox"\npoll_s = 0.5\nsettle_s = 0\n'
Batches = Sequence[bytes]


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _fill(folder / "inbox")
        bridge = BridgeProcess(folder, SOURCE, {})
        try:
            bridge.start()
            bridge.wait_for("the studies", lambda: _total(bridge, "ImagingStudy") == STUDIES, 300)
            rows = _measured(bridge)
            studies = [e["resource"] for e in bridge.get("/fhir/ImagingStudy", _count="200")["entry"]]
        finally:
            bridge.close()
        if "--hapi" in sys.argv[1:]:
            rows.append(_beside_hapi(folder, studies, rows[0].value))
    sizes = {"studies": STUDIES, "instances": STUDIES * INSTANCES, "results": RESULTS, "batch": BATCH}
    rows.append(Measured("load of the machine, one minute", os.getloadavg()[0], ""))
    write("ai-results", SEED, sizes, rows, RUNS)


def _measured(bridge: BridgeProcess) -> list[Measured]:
    url = f"http://127.0.0.1:{bridge.port}/ai-results"
    two, one, again, single, seen = [], [], [], [], []
    kept = 0
    for run in range(RUNS):
        batches = _batches(f"two-{run}", RESULTS, BATCH)
        two.append(RESULTS / _seconds(lambda some=batches: _sent(url, some, 2, "kept")))
        kept += RESULTS
        seen.append(_seconds(lambda total=kept: bridge.wait_for("reports", lambda: _reports(bridge) == total, 600)))
        bridge.until_settled()
        again.append(RESULTS / _seconds(lambda some=batches: _sent(url, some, 2, "unchanged")))
        batches = _batches(f"one-{run}", RESULTS, BATCH)
        one.append(RESULTS / _seconds(lambda some=batches: _sent(url, some, 1, "kept")))
        alone = _batches(f"single-{run}", SINGLE, 1)
        single.append(SINGLE / _seconds(lambda some=alone: _sent(url, some, 2, "kept")))
        kept += RESULTS + SINGLE
        bridge.wait_for("reports", lambda total=kept: _reports(bridge) == total, 600)
        bridge.until_settled()
    rate = statistics.median(two)
    return [
        Measured("batches, two senders", rate, "results/s", goal=">= 1,000", met=rate >= 1000),
        Measured("batches, one sender", statistics.median(one), "results/s"),
        Measured("one by one, two senders", statistics.median(single), "results/s"),
        Measured("batches sent again, two senders", statistics.median(again), "results/s"),
        Measured("last batch answered to all reports in the FHIR API", statistics.median(seen), "s"),
    ]


def _sent(url: str, batches: Batches, senders: int, outcome: str) -> None:
    """Every result of every batch gets this outcome."""

    def send(n: int) -> None:
        with httpx.Client(timeout=60, trust_env=False, headers={"Content-Type": "application/json"}) as client:
            for body in batches[n::senders]:
                for told in client.post(url, content=body).raise_for_status().json()["results"]:
                    assert told["outcome"] == outcome, told

    with ThreadPoolExecutor(senders) as pool:
        list(pool.map(send, range(senders)))


def _batches(run: str, number: int, size: int) -> Batches:
    items = [_item(n, f"{run}-{n}") for n in range(number)]
    return [orjson.dumps({"results": items[start : start + size]}) for start in range(0, number, size)]


def _item(n: int, run_id: str) -> dict[str, Any]:
    study = f"{ROOT_UID}.{n % STUDIES}"
    image = {"series_instance_uid": f"{study}.1", "sop_instance_uid": f"{study}.1.{n % INSTANCES + 1}"}
    region = {"image": image, "shape": "circle", "points": [[120.5, 88], [126.5, 88]]}
    nodule = a_full_finding()
    nodule |= {"images": [image], "location": nodule["location"] | {"planar_regions": [region], "segments": []}}
    return a_result(nodule, a_finding(id="2"), run_id=run_id, study_instance_uid=study)


def _beside_hapi(folder: Path, studies: Sequence[dict[str, Any]], ours: float) -> Measured:
    """The same resources, made beforehand; their studies are there already."""
    tables = code_tables()
    known = {s["identifier"][0]["value"].removeprefix("urn:oid:"): s for s in studies}

    def entries(run: int) -> Batches:
        found = []
        for start in range(0, RESULTS, BATCH):
            told: dict[str, dict[str, Any]] = {}
            for n in range(start, start + BATCH):
                result = read_result(_item(n, f"hapi-{run}-{n}"), tables.coding_scheme)
                made = resources(standing(result, []), known[result.study_instance_uid], tables)
                told |= {f"{r['resourceType']}/{r['id']}": r for r in made}
            found.append(_transaction(told.values()))
        return found

    with running_hapi(folder / "hapi") as peer:
        headers = {"Content-Type": "application/fhir+json", "Prefer": "return=minimal"}
        with httpx.Client(timeout=300, trust_env=False, headers=headers) as client:
            whose = {s["subject"]["reference"].partition("/")[2] for s in studies}
            first = [{"resourceType": "Patient", "id": id_} for id_ in whose]
            bare = [{k: v for k, v in s.items() if k != "endpoint"} for s in studies]
            client.post(peer.url, content=_transaction([*first, *bare])).raise_for_status()
            rates = []
            for run in range(RUNS):
                bundles = entries(run)
                rates.append(RESULTS / _seconds(lambda some=bundles: _posted(peer.url, client, some)))
    rate = statistics.median(rates)
    return Measured("batches", ours, "results/s", "HAPI FHIR, transactions", rate, ours / rate)


def _posted(url: str, client: httpx.Client, bundles: Batches) -> None:
    for bundle in bundles:
        client.post(url, content=bundle).raise_for_status()


def _transaction(told: Any) -> bytes:
    entries = [{"resource": r, "request": {"method": "PUT", "url": f"{r['resourceType']}/{r['id']}"}} for r in told]
    return orjson.dumps({"resourceType": "Bundle", "type": "transaction", "entry": entries})


def _seconds(run: Callable[[], Any]) -> float:
    started = time.monotonic()
    run()
    return time.monotonic() - started


def _fill(folder: Path) -> None:
    for n in range(STUDIES):
        uid = f"{ROOT_UID}.{n}"
        (folder / uid).mkdir(parents=True)
        for i, content in enumerate(study_bytes(uid, instances=INSTANCES, PatientID=f"P{n}")):
            (folder / uid / f"{i}.dcm").write_bytes(content)


def _total(bridge: BridgeProcess, kind: str) -> int:
    return int(bridge.get(f"/fhir/{kind}", _summary="count")["total"])


def _reports(bridge: BridgeProcess) -> int:
    return _total(bridge, "DiagnosticReport")


if __name__ == "__main__":
    main()
