"""What must hold once everything is well again: state, FHIR server and lake say what the archive holds, each once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from bridge import config
from bridge.errors import ProjectError
from bridge.state import State
from cohort.lake import Lake
from cohort.sandbox import run_sql
from cohort.store.place import place_of
from tests.faults.world import World

SETTLES_IN_S = 150.0
BUGS = ("unexpected ", "Traceback (most recent", "ended by ")


def problems(world: World) -> list[str]:
    """What is still wrong when nothing changes any more, or took too long to become right; what must never happen."""
    found = [f"a bridge ended by itself {died}" for died in world.died]
    found += [f"in the log: {line}" for line in world.log.splitlines() if any(bug in line for bug in BUGS)]
    until = time.monotonic() + SETTLES_IN_S
    while True:
        try:
            wrong = [*_wrong(world)]
        except ProjectError as error:
            wrong = [str(error)]
        if not wrong or time.monotonic() > until:
            return found + wrong
        time.sleep(0.5)


def evidence(world: World) -> str:
    """What the bridges said, and what still waits in the work table."""
    state, now = State(world.state_url), time.time()
    try:
        waiting = [
            f"{i.queue} {i.key}: due in {i.due_at - now:.1f} s, leased for "
            f"{(i.leased_until or now) - now:.1f} s, {i.attempts} attempts, {i.error}"
            for i in state.items()
        ]
    finally:
        state.close()
    return "\n".join([world.log[-20_000:], *waiting])


def _wrong(world: World) -> Iterator[str]:
    state = State(world.state_url)
    try:
        bad = set(world.bad_documents)
        for item in state.items(parked=True):  # what a person does once the FHIR server is well again
            if item.evidence.get("sop_instance_uid") in bad and "and was ended" in item.error:
                bad.remove(str(item.evidence["sop_instance_uid"]))
                continue
            state.replay(item.queue, item.key, time.time())
            yield f"parked in {item.queue}: {item.error}"
        yield from (f"not parked: document {uid}" for uid in sorted(bad))
        for uid in world.known:
            yield from _wrong_study(world, uid, {r.resource_type: r.content for r in state.study_resources(uid)})
    finally:
        state.close()
    yield from _wrong_on_the_server(world)
    yield from _wrong_in_the_lake(world)


def _wrong_study(world: World, uid: str, held: dict[str, dict[str, Any] | None]) -> Iterator[str]:
    wanted, study, patient = world.archive.truth().get(uid, 0), held.get("ImagingStudy"), held.get("Patient")
    if not wanted:
        if study is not None and study["status"] != "entered-in-error":
            yield f"state: study {uid} is gone from the archive and not withdrawn"
        return
    if study is None or study.get("numberOfInstances") != wanted or study["status"] != "available":
        yield f"state: study {uid} has {(study or {}).get('numberOfInstances')} of {wanted} instances"
    elif patient is None or patient["name"][0]["family"] != world.family(uid):
        yield f"state: study {uid} has an earlier patient's name"


def _wrong_on_the_server(world: World) -> Iterator[str]:
    there: Counter[str] = Counter()
    truth = world.archive.truth()
    for key, history in list(world.fhir.history.items()):
        newest = history[-1]
        if not key.startswith("ImagingStudy/") or newest is None or newest["status"] == "entered-in-error":
            continue
        uid = newest["identifier"][0]["value"].removeprefix("urn:oid:")
        there[uid] += 1
        if newest.get("numberOfInstances") != truth.get(uid):
            yield f"FHIR server: study {uid} has {newest.get('numberOfInstances')} of {truth.get(uid, 0)} instances"
    for uid in there | Counter(truth.keys()):
        if uid in truth and there[uid] != 1:
            yield f"FHIR server: study {uid} is there {there[uid]} times"


def _wrong_in_the_lake(world: World) -> Iterator[str]:
    lake = Lake(place_of(config.load(world.config)))
    generation = lake.current()
    if generation is None or lake.pending():
        yield "lake: not all is published"
        return
    asked = "SELECT study_instance_uid, count(*), count(DISTINCT sop_instance_uid) FROM dicom_instance GROUP BY 1"
    found = {row[0]: (row[1], row[2]) for row in run_sql(generation, asked).rows}
    wanted = {uid: (n, n) for uid, n in world.archive.truth().items()}
    for uid in sorted(found.keys() | wanted.keys()):
        if found.get(uid) != wanted.get(uid):
            yield f"lake: study {uid} has {found.get(uid)} rows and instances, not {wanted.get(uid)}"
