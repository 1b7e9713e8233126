"""Runs whole bridges until nothing is left to do, each of which kills itself when it reaches a stage. A process of its
own that imports everything once; each run is a fork of it.

Lines of JSON: {"folder", "stage", "nth", "peer", "out", "err"} is a run, and its exit code the answer; stage "-": it
never kills itself. With the address of a `peer`, that is a model that is called and an archive that gets documents by
STOW-RS, and a result of each study is sent to the bridge as well.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

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

LONGEST_S = 100


def main() -> None:
    gc.freeze()
    for line in sys.stdin:
        order = orjson.loads(line)
        child = os.fork()
        if not child:
            _become(order)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()


def _become(order: dict[str, Any]) -> None:
    code = 1
    try:
        for standard, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(order[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), standard)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        signal.alarm(LONGEST_S)
        run(Path(order["folder"]), order["stage"], order["nth"], order["peer"])
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def run(folder: Path, stage: str, nth: int, peer: str) -> None:
    """Until nothing is left to do. What is there then is printed as JSON."""
    reached: Counter[str] = Counter()

    def at(where: str) -> None:
        reached[where] += 1
        if where == stage and reached[where] == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    source = config.FolderSource(kind="folder", name="inbox", path=folder / "inbox", poll_s=0.2, settle_s=0)
    api = config.Api(port=free_port())
    settings = config.Settings(data_dir=folder / "data", quiet_s=0.1, sources=(source,), api=api)
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
