"""dicom2fhir on a folder, in an environment of its own. Run by pipeline.py.

Prints seconds and instances of the studies it can translate, and how many studies it cannot.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

from dicom2fhir import dicom2fhir

CONFIG = {"dicom_timezone": "UTC"}
seconds, instances, failed = 0.0, 0, 0
for folder in sorted(p for p in Path(sys.argv[1]).iterdir() if p.is_dir()):
    started = time.perf_counter()
    try:
        text = asyncio.run(dicom2fhir.from_directory(folder, dict(CONFIG))).model_dump_json()
    except Exception:  # noqa: BLE001  whatever stops the peer, the study is not counted for it
        failed += 1
        continue
    seconds += time.perf_counter() - started
    entries = [e["resource"] for e in json.loads(text)["entry"]]
    (study,) = [r for r in entries if r["resourceType"] == "ImagingStudy"]
    assert study["numberOfInstances"] == sum(1 for _ in folder.rglob("*.dcm"))
    instances += study["numberOfInstances"]
print(json.dumps({"seconds": seconds, "instances": instances, "failed": failed}))
