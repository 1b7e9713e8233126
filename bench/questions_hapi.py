"""The founding question as a person asks a FHIR server: searches, the rest in Python. The server is HAPI FHIR JPA."""

from __future__ import annotations

import shutil
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import orjson

from bench.population import TODAY, Population
from bench.population_files import write
from tests.services.hapi import HapiPeer, running_hapi

TRANSACTION, PAGE, PATIENTS = 250, "500", 50
TYPES = ("Patient", "Condition", "MedicationRequest", "DiagnosticReport")
"""What the question is about, besides ImagingStudy: searches of it need no more."""
BORN_BEFORE = TODAY.replace(year=TODAY.year - 45).isoformat()
SINCE = TODAY.replace(year=TODAY.year - 2).isoformat()

Resource = dict[str, Any]


def founding_by_search(
    scratch: Path, codes: str, population: Population, answer: Sequence[Any], runs: int
) -> list[float]:
    """Seconds of each run after one that is not counted, about diagnoses with these codes (system|code,…).

    Raises  AssertionError where the studies, reports or numbers of medications are others than those of `answer`, rows
            of the ready question
    """
    wanted = sorted((row[4], sorted(row[10]), len(row[12])) for row in answer)
    walls = []
    with running_hapi(scratch, referential_integrity=False, search_reuse_ms=0) as peer:
        _fill(peer, scratch / "for-hapi", population)
        for _ in range(runs + 1):
            started = time.perf_counter()
            found = sorted(_asked(peer, codes))
            walls.append(time.perf_counter() - started)
            assert found == wanted, f"HAPI: {len(found)} studies, not {len(wanted)}"
    return walls[1:]


def _fill(peer: HapiPeer, folder: Path, population: Population) -> None:
    with httpx.Client(timeout=300, trust_env=False) as client:
        for clinical, bridge in write(population, folder):
            people: dict[str, str] = {}
            for some in _batches(_resources(clinical, bridge, people)):
                entries = [
                    {"resource": one, "request": {"method": "PUT", "url": f"{one['resourceType']}/{one['id']}"}}
                    for one in some
                ]
                bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
                headers = {"Content-Type": "application/fhir+json", "Prefer": "return=minimal"}
                client.post(peer.url, content=orjson.dumps(bundle), headers=headers).raise_for_status()
            shutil.rmtree(clinical)
    shutil.rmtree(folder)


def _resources(clinical: Path, bridge: Iterable[Path], people: dict[str, str]) -> Iterator[Resource]:
    """All that the server shall hold: a person is one Patient, whom the studies name by the id that it has there."""
    for kind in TYPES:
        for resource in map(orjson.loads, (clinical / f"{kind}.ndjson").open("rb")):
            if kind == "Patient":
                people[resource["identifier"][0]["value"]] = resource["id"]
            yield resource
    ids: dict[str, str] = {}
    lines = (orjson.loads(line) for file in bridge for line in file.open("rb"))
    for resource in (line["resource"] for line in lines if line["kind"] == "resource"):
        if resource["resourceType"] == "Patient":
            number = resource["identifier"][0]["value"]
            ids[resource["id"]] = people.get(number, resource["id"])
            if number not in people:
                yield resource
        elif resource["resourceType"] == "ImagingStudy":
            (_, _, imaging_id) = resource["subject"]["reference"].partition("/")
            yield resource | {"subject": {"reference": f"Patient/{ids[imaging_id]}"}}


def _batches(resources: Iterable[Resource]) -> Iterator[list[Resource]]:
    batch: list[Resource] = []
    for resource in resources:
        batch.append(resource)
        if len(batch) == TRANSACTION:
            yield batch
            batch = []
    if batch:
        yield batch


def _asked(peer: HapiPeer, codes: str) -> Iterator[tuple[str, list[str], int]]:
    """Study Instance UID, ids of its reports, number of different prescriptions of its patient."""
    found = peer.search("Condition", code=codes, _include="Condition:subject", _count=PAGE)
    born = {f"Patient/{r['id']}": r.get("birthDate", "9") for r in found if r["resourceType"] == "Patient"}
    ill = {r["subject"]["reference"] for r in found if r["resourceType"] == "Condition" and _counts(r)}
    asked = sorted(one for one in ill if born[one] < BORN_BEFORE)
    for start in range(0, len(asked), PATIENTS):
        who = ",".join(asked[start : start + PATIENTS])
        studies = peer.search("ImagingStudy", subject=who, modality="CT", status="available", _count=PAGE)
        reports = _reports(peer.search("DiagnosticReport", subject=who, _count=PAGE))
        drugs = defaultdict(set)
        for order in peer.search("MedicationRequest", subject=who, _count=PAGE):
            if order["status"] not in ("entered-in-error", "cancelled", "draft") and "order" in order["intent"]:
                coding = order["medicationCodeableConcept"]["coding"][0]
                drugs[order["subject"]["reference"]].add((coding["display"], order["authoredOn"]))
        for study in studies:
            uid, accession = (identifier["value"] for identifier in study["identifier"])
            names = (uid, accession, f"ImagingStudy/{study['id']}")
            ids = sorted({id_ for name in names for id_ in reports[name]})
            yield uid.removeprefix("urn:oid:"), ids, len(drugs[study["subject"]["reference"]])


def _counts(condition: Resource) -> bool:
    day = condition.get("onsetDateTime") or condition["recordedDate"]
    verified = condition["verificationStatus"]["coding"][0]["code"]
    return SINCE <= day <= date.isoformat(TODAY) and verified not in ("refuted", "entered-in-error")


def _reports(resources: Iterable[Resource]) -> dict[str, set[str]]:
    """What a report names a study by → its id."""
    found: dict[str, set[str]] = defaultdict(set)
    for report in resources:
        (named,) = report.get("imagingStudy") or report["basedOn"]
        if report["status"] not in ("entered-in-error", "cancelled"):
            found[named.get("reference") or named["identifier"]["value"]].add(report["id"])
    return found
