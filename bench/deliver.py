"""Studies into a FHIR server, beside a plain loop of the same PUTs: HAPI FHIR JPA on this machine.

    make bench-deliver             needs Java and Maven; checks what the server holds before it times

Every run delivers studies that the server has never seen. The peers write what the bridge writes and nothing else: no
reading before, no patients, no orders, no receipts. Both loops keep their connections.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import orjson

from bench.results_file import Measured, write
from bridge.model import Receipt, Resource, StoredResource, StudyState
from bridge.sinks.fhir_server import FhirServerSink
from tests.builders import a_translator, headers
from tests.services.hapi import HapiPeer, running_hapi

SEED, RUNS, STUDIES, SERIES, INSTANCES, SMALL = 0, 5, 100, 4, 50, 400
FHIR_JSON = {"Content-Type": "application/fhir+json", "Prefer": "return=minimal"}
Deliver = Callable[[str, Sequence[StudyState]], None]


def states(number: int, series: int, instances: int) -> list[StudyState]:
    """So many studies with UIDs of their own; each of a patient of its own."""
    translator = a_translator(endpoints={"a": "http://pacs.example/dicom-web"})
    model = tuple(
        headers(study="2.25.1", series=s, instance=i) for s in range(1, series + 1) for i in range(1, instances + 1)
    )
    result = translator.translate("2.25.1", {"a": model})
    endpoint, study = result.resources
    return [_state(endpoint, study, result.patient or {}) for _ in range(number)]


def _state(endpoint: Resource, study: Resource, patient: Resource) -> StudyState:
    uid, who = f"2.25.{uuid4().int}", str(uuid4())
    identifier = {"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}
    one = study | {"id": str(uuid4()), "identifier": [identifier, *study["identifier"][1:]]}
    one |= {"subject": {"reference": f"Patient/{who}", "type": "Patient"}}
    person = patient | {"id": who, "identifier": [{"system": "http://mrn.example", "value": who}]}
    contents = (endpoint, person, one)
    stored = tuple(StoredResource(c["resourceType"], c["id"], 1, 0.0, n, c) for n, c in enumerate(contents))
    return StudyState(uid, 2, stored, {})


def by_bridge(url: str, studies: Sequence[StudyState]) -> list[Receipt]:
    sink = FhirServerSink("ehr", url)
    receipts: list[Receipt] = []
    for start in range(0, len(studies), sink.batch_size):
        for outcome in sink.deliver(studies[start : start + sink.batch_size]):
            assert isinstance(outcome, Receipt), outcome
            receipts.append(outcome)
    sink.close()
    return receipts


def by_loop(url: str, studies: Sequence[StudyState]) -> None:
    with httpx.Client(timeout=60, trust_env=False, headers=FHIR_JSON) as client:
        for state in studies:
            study = as_delivered(state)
            client.put(f"{url}/ImagingStudy/{study['id']}", content=orjson.dumps(study)).raise_for_status()


def by_two_loops(url: str, studies: Sequence[StudyState]) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda n: by_loop(url, studies[n::2]), range(2)))


def as_delivered(state: StudyState) -> Resource:
    """What the bridge writes for a patient whom the server does not know."""
    (patient,) = (r.content for r in state.of_type("Patient"))
    (study,) = (r.content for r in state.of_type("ImagingStudy"))
    assert patient is not None
    assert study is not None
    return study | {"subject": {"type": "Patient", "identifier": patient["identifier"][0]}}


def check(peer: HapiPeer) -> None:
    """Both ways leave the same resources."""
    ours, theirs = states(3, 2, 3), states(3, 2, 3)
    by_bridge(peer.url, ours)
    by_loop(peer.url, theirs)
    for state in (*ours, *theirs):
        (found,) = peer.search("ImagingStudy", identifier=f"urn:dicom:uid|urn:oid:{state.study_instance_uid}")
        wanted: dict[str, Any] = as_delivered(state)
        assert {k: v for k, v in found.items() if k != "meta"} == wanted
        assert found["meta"]["versionId"] == "1"


def timed(deliver: Callable[[str, Sequence[StudyState]], object], url: str, studies: Sequence[StudyState]) -> float:
    """Studies a second."""
    started = time.perf_counter()
    deliver(url, studies)
    return len(studies) / (time.perf_counter() - started)


def rates(peer: HapiPeer, number: int, series: int, instances: int) -> dict[str, float]:
    """Medians; the ways take turns, so that the noise of the machine meets all of them."""
    found: dict[str, list[float]] = {"bridge": [], "loop": [], "two loops": [], "again": [], "changed": []}
    for _ in range(RUNS):
        studies = states(number, series, instances)
        found["loop"].append(timed(by_loop, peer.url, states(number, series, instances)))
        found["bridge"].append(timed(by_bridge, peer.url, studies))
        found["two loops"].append(timed(by_two_loops, peer.url, states(number, series, instances)))
        receipts = by_bridge(peer.url, studies)
        known = [replace(s, receipt=r) for s, r in zip(studies, receipts, strict=True)]
        found["again"].append(timed(by_bridge, peer.url, known))
    return {way: statistics.median(values) for way, values in found.items() if values}


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as scratch, running_hapi(Path(scratch)) as peer:
        check(peer)
        by_loop(peer.url, states(200, 1, 10))  # a Java server is slow at first
        sizes = {"one instance": (SMALL, 1, 1), "200 instances": (STUDIES, SERIES, INSTANCES)}
        for what, size in sizes.items():
            rate = rates(peer, *size)
            for way in ("loop", "two loops"):
                ratio = rate["bridge"] / rate[way]
                rows.append(
                    Measured(
                        f"studies of {what} into HAPI", rate["bridge"], "studies/s", f"plain PUTs, {way}", rate[way],
                        ratio, ">= 0.9 of the peer", ratio >= 0.9,
                    )
                )  # fmt: skip
            rows.append(Measured(f"studies of {what}, unchanged, compared", rate["again"], "studies/s"))
    write(
        "deliver",
        SEED,
        {name: dict(zip(("studies", "series", "instances each"), size, strict=True)) for name, size in sizes.items()},
        rows,
        RUNS,
    )


if __name__ == "__main__":
    main()
