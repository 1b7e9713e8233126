"""The plainest backfill: every study of an Orthanc, one after the other, as a minimal ImagingStudy into a FHIR server.

    python -m bench.peer_backfill ORTHANC USER PASSWORD FHIR       prints how many studies, and seconds

Nothing else: no patients, no state, no going on after an error, no second look.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

import httpx
import orjson

DCM = "http://dicom.nema.org/resources/ontology/DCM"
FHIR_JSON = {"Content-Type": "application/fhir+json", "Prefer": "return=minimal"}


def main() -> None:
    orthanc, user, password, fhir = sys.argv[1:5]
    with (
        httpx.Client(base_url=orthanc, auth=(user, password), timeout=60, trust_env=False) as archive,
        httpx.Client(base_url=fhir, headers=FHIR_JSON, timeout=60, trust_env=False) as server,
    ):
        began, studies = time.perf_counter(), archive.get("/studies").raise_for_status().json()
        for study in studies:
            tags = archive.get(f"/studies/{study}/instances-tags?simplify").raise_for_status().json()
            resource = imaging_study(study, list(tags.values()))
            server.put(f"/ImagingStudy/{study}", content=orjson.dumps(resource)).raise_for_status()
        print(len(studies), time.perf_counter() - began)


def imaging_study(id_: str, instances: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What a study is in FHIR R4, as far as its required elements and counts go."""
    by_series: dict[str, list[Mapping[str, Any]]] = {}
    for instance in instances:
        by_series.setdefault(instance["SeriesInstanceUID"], []).append(instance)
    series = [_series(uid, some) for uid, some in sorted(by_series.items())]
    one = next(iter(by_series.values()))[0]
    return {
        "resourceType": "ImagingStudy",
        "id": id_,
        "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{one['StudyInstanceUID']}"}],
        "status": "available",
        "subject": {"identifier": {"value": one["PatientID"]}},
        "started": f"{one['StudyDate'][:4]}-{one['StudyDate'][4:6]}-{one['StudyDate'][6:8]}",
        "numberOfSeries": len(series),
        "numberOfInstances": sum(s["numberOfInstances"] for s in series),
        "series": series,
    }


def _series(uid: str, instances: list[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "uid": uid,
        "number": int(instances[0]["SeriesNumber"]),
        "modality": {"system": DCM, "code": instances[0]["Modality"]},
        "numberOfInstances": len(instances),
        "instance": [
            {
                "uid": instance["SOPInstanceUID"],
                "sopClass": {"system": "urn:ietf:rfc:3986", "code": f"urn:oid:{instance['SOPClassUID']}"},
                "number": int(instance["InstanceNumber"]),
            }
            for instance in instances
        ],
    }


if __name__ == "__main__":
    main()
