"""Runs a whole bridge until nothing is left to do, or kills itself when a stage is reached. A process of its own.

python -m tests.kill_runner FOLDER STAGE NTH [PEER]      STAGE "-" never kills

With the address of a PEER, it is a model that is called and an archive that gets documents by STOW-RS, and a result of
each study is sent to the bridge as well.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import orjson
from pydicom import dcmread

from bridge import config
from bridge.ai_peers import Model, ModelRule
from bridge.compose import Bridge
from bridge.intake import Outcome
from bridge.ports import STUDY_QUEUE, model_queue, send_queue, sink_queue
from cohort.sandbox import run_sql
from tests.ai_results import a_result
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
    peer = sys.argv[4] if len(sys.argv) > 4 else ""
    if peer:
        rule = ModelRule(modalities=("CT",))
        model = Model(name="lungnet", url=f"{peer}/model", version="1", rule=rule, stable_s=0.1)
        archive = config.StowArchive(kind="stow", name="vna", url=f"{peer}/dw")
        settings = settings.model_copy(update={"models": (model,), "archives": (archive,)})
    with Bridge(settings, at).running() as bridge:
        until = time.monotonic() + 60
        while not settled(bridge, folder, send(bridge, folder) if peer else 0):
            assert time.monotonic() < until, bridge.state.items()
            time.sleep(0.05)
        sys.stdout.buffer.write(orjson.dumps(summary(bridge) | {"stages": sorted(reached)}))


def send(bridge: Bridge, folder: Path) -> int:
    """Sends a result of each study that has files; how many results there are to be: these, and the model's."""
    studies = sorted({dcmread(p, stop_before_pixels=True).StudyInstanceUID for p in (folder / "inbox").rglob("*.dcm")})
    items = [a_result(run_id=f"sent-{uid}", study_instance_uid=uid) for uid in studies]
    assert all(one.outcome in (Outcome.KEPT, Outcome.UNCHANGED) for one in bridge.intake.take(items))
    return 2 * len(studies)


def settled(bridge: Bridge, folder: Path, results: int) -> bool:
    # in the order in which work moves on, so that nothing slips by between two looks
    files = sum(1 for p in (folder / "inbox").rglob("*.dcm"))
    if len(bridge.state.known_files("inbox")) != files:
        return False
    for queue in (STUDY_QUEUE, model_queue("lungnet"), STUDY_QUEUE, send_queue("vna"), sink_queue("lake")):
        if bridge.state.items(queue=queue, parked=False, limit=1):
            return False
    if sum(len(bridge.state.ai_results(uid)) for uid, _ in bridge.state.indexed_studies("inbox")) < results:
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
    results = sorted(r.run_id for u in studies for r in bridge.state.ai_results(u))
    return {"lake": list(counted.rows[0]), "resources": resources, "results": results}


if __name__ == "__main__":
    main()
