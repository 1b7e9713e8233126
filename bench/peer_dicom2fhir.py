"""dicom2fhir on the studies of a folder, in an environment of its own. Run by peer_environment.py.

Prints wall and CPU seconds and instances of the studies it can translate, and how many studies it cannot.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from dicom2fhir import dicom2fhir

CONFIG = {"dicom_timezone": "UTC"}


async def each(items: list[dict[str, Any]]) -> AsyncGenerator[dict[str, Any], None]:
    for item in items:
        yield item


def translated(study: Path) -> str:
    if study.is_dir():
        found = dicom2fhir.from_directory(study, dict(CONFIG))
    else:
        found = dicom2fhir.from_generator(each(json.loads(study.read_bytes())), dict(CONFIG))
    return asyncio.run(found).model_dump_json()


def instances_in(study: Path) -> int:
    return sum(1 for _ in study.rglob("*.dcm")) if study.is_dir() else len(json.loads(study.read_bytes()))


seconds, cpu_seconds, instances, failed = 0.0, 0.0, 0, 0
for entry in sorted(p for p in Path(sys.argv[1]).iterdir() if p.is_dir() or p.suffix == ".json"):
    started, cpu_started = time.perf_counter(), time.process_time()
    try:
        text = translated(entry)
    except Exception:  # noqa: BLE001  whatever stops the peer, the study is not counted for it
        failed += 1
        continue
    seconds += time.perf_counter() - started
    cpu_seconds += time.process_time() - cpu_started
    entries = [e["resource"] for e in json.loads(text)["entry"]]
    (made,) = [r for r in entries if r["resourceType"] == "ImagingStudy"]
    assert made["numberOfInstances"] == instances_in(entry)
    instances += made["numberOfInstances"]
print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds, "instances": instances, "failed": failed}))
