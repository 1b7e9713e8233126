"""Runs a whole bridge until nothing is left to do, or kills itself when a stage is reached. A process of its own.

python -m tests.kill_runner FOLDER STAGE NTH      STAGE "-" never kills
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import orjson

from bridge import config
from bridge.compose import Bridge
from bridge.ports import STUDY_QUEUE, sink_queue
from cohort.sandbox import run_sql
from tests.services.peers import free_port


def main() -> None:
    folder, stage, nth = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    reached: Counter[str] = Counter()

    def at(where: str) -> None:
        reached[where] += 1
        if where == stage and reached[where] == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    source = config.FolderSource(kind="folder", name="inbox", path=folder / "inbox", poll_s=0.2, settle_s=0)
    api = config.Api(port=free_port())
    settings = config.Settings(data_dir=folder / "data", quiet_s=0.1, sources=(source,), api=api)
    with Bridge(settings, at).running() as bridge:
        until = time.monotonic() + 60
        while not settled(bridge, folder):
            assert time.monotonic() < until, bridge.state.items()
            time.sleep(0.05)
        sys.stdout.buffer.write(orjson.dumps(summary(bridge) | {"stages": sorted(reached)}))


def settled(bridge: Bridge, folder: Path) -> bool:
    # in the order in which work moves on, so that nothing slips by between two looks
    files = sum(1 for p in (folder / "inbox").rglob("*.dcm"))
    if len(bridge.state.known_files("inbox")) != files:
        return False
    for queue in (STUDY_QUEUE, sink_queue("lake")):
        if bridge.state.items(queue=queue, parked=False, limit=1):
            return False
    return not bridge.lake.pending()


def summary(bridge: Bridge) -> dict[str, object]:
    """What is held and what questions see."""
    generation = bridge.lake.current()
    assert generation is not None
    counted = run_sql(
        generation,
        "SELECT (SELECT count(*) FROM imaging_study), (SELECT count(*) FROM imaging_series), "
        "(SELECT count(*) FROM dicom_instance), (SELECT count(DISTINCT sop_instance_uid) FROM dicom_instance)",
    )
    studies = [uid for uid, _ in bridge.state.indexed_studies("inbox")]
    resources = {
        f"{r.resource_type}/{r.id}": [r.version, r.content] for u in studies for r in bridge.state.study_resources(u)
    }
    return {"lake": list(counted.rows[0]), "resources": resources}


if __name__ == "__main__":
    main()
