"""What must hold once everything is well again: state, FHIR server and lake say what the archive holds, each once."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from bridge.errors import ProjectError
from bridge.ports import WorkItem
from bridge.state import State
from cohort.lake import Lake
from cohort.sandbox import run_sql
from cohort.store.place import place_of
from tests.faults.world import World

SETTLES_IN_S = 60.0
"""Every difference is gone so long after the end of the last fault."""

BUGS = ("unexpected ", "Traceback (most recent", "ended by ")


def never(world: World) -> list[str]:
    """What must never happen, and has."""
    found = [f"a bridge ended by itself {died}" for died in world.bridges.died]
    return found + [
        f"in the log: {line}" for line in world.bridges.log.splitlines() if any(bug in line for bug in BUGS)
    ]


def settled(world: World) -> tuple[float, list[str]]:
    """After how many seconds nothing was wrong any more, and what still was after SETTLES_IN_S."""
    began = time.monotonic()
    while True:
        late = time.monotonic() - began > SETTLES_IN_S
        try:
            wrong = [*_wrong(world)] if late else [*islice(_wrong(world), 1)]
        except ProjectError as error:
            wrong = [str(error)]
        if not wrong or late:
            return time.monotonic() - began, wrong
        world.wait(0.5)


@dataclass(frozen=True)
class Tally:
    """`studies` that archive and receiver hold. `lost` have less on the FHIR server or in the lake; `doubled` have
    several ImagingStudies there, or several rows of an instance."""

    studies: int
    lost: int
    doubled: int


def tally(world: World) -> Tally:
    """As it is now."""
    truth, there = world.truth(), _on_the_server(world)
    try:
        rows = _in_the_lake(Lake(place_of(world.load())))
    except ProjectError:
        rows = {}
    lost = [u for u, n in truth.items() if max(there[u], default=0) < n or rows.get(u, (0, 0))[1] < n]
    doubled = [u for u in truth if len(there[u]) > 1 or rows.get(u, (0, 0))[0] > rows.get(u, (0, 0))[1]]
    return Tally(len(truth), len(lost), len(doubled))


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
    return "\n".join([world.bridges.log[-20_000:], *waiting])


def _wrong(world: World) -> Iterator[str]:
    state = State(world.state_url)
    try:
        parked, bad = list[WorkItem](), set(world.bad_documents)
        for item in state.items(parked=True):
            if item.evidence.get("sop_instance_uid") in bad and "and was ended" in item.error:
                bad.remove(str(item.evidence["sop_instance_uid"]))
            else:
                parked.append(item)
        for item in parked:  # what a person does once the FHIR server is well again
            state.replay(item.queue, item.key, time.time())
        yield from (f"parked in {item.queue}: {item.error}" for item in parked)
        yield from (f"not parked: document {uid}" for uid in sorted(bad))
        for uid in world.known:
            yield from _wrong_study(world, uid, {r.resource_type: r.content for r in state.study_resources(uid)})
    finally:
        state.close()
    yield from _wrong_on_the_server(world)
    yield from _wrong_in_the_lake(world)


def _wrong_study(world: World, uid: str, held: dict[str, dict[str, Any] | None]) -> Iterator[str]:
    wanted, study, patient = world.truth().get(uid, 0), held.get("ImagingStudy"), held.get("Patient")
    if not wanted:
        if study is not None and study["status"] != "entered-in-error":
            yield f"state: study {uid} is gone from the archive and not withdrawn"
        return
    if study is None or study.get("numberOfInstances") != wanted or study["status"] != "available":
        yield f"state: study {uid} has {(study or {}).get('numberOfInstances')} of {wanted} instances"
    elif patient is None or patient["name"][0]["family"] != world.family(uid):
        yield f"state: study {uid} has an earlier patient's name"


def _wrong_on_the_server(world: World) -> Iterator[str]:
    there, truth = _on_the_server(world), world.truth()
    for uid in sorted(there.keys() | truth.keys()):
        if uid in truth and len(there[uid]) != 1:
            yield f"FHIR server: study {uid} is there {len(there[uid])} times"
        elif any(instances != truth.get(uid) for instances in there[uid]):
            yield f"FHIR server: study {uid} has {there[uid]} of {truth.get(uid, 0)} instances"


def _on_the_server(world: World) -> dict[str, list[int]]:
    """Study → the number of instances in each ImagingStudy of it."""
    found = defaultdict[str, list[int]](list)
    for key, history in list(world.fhir.history.items()):
        newest = history[-1] if history else None
        if key.startswith("ImagingStudy/") and newest is not None and newest["status"] != "entered-in-error":
            found[newest["identifier"][0]["value"].removeprefix("urn:oid:")].append(newest["numberOfInstances"])
    return found


def _wrong_in_the_lake(world: World) -> Iterator[str]:
    lake = Lake(place_of(world.load()))
    if lake.current() is None or lake.pending():
        yield "lake: not all is published"
        return
    found, wanted = _in_the_lake(lake), {uid: (n, n) for uid, n in world.truth().items()}
    for uid in sorted(found.keys() | wanted.keys()):
        if found.get(uid) != wanted.get(uid):
            yield f"lake: study {uid} has {found.get(uid)} rows and instances, not {wanted.get(uid)}"


def _in_the_lake(lake: Lake) -> dict[str, tuple[int, int]]:
    """Study → rows, and different instances in them."""
    asked = "SELECT study_instance_uid, count(*), count(DISTINCT sop_instance_uid) FROM dicom_instance GROUP BY 1"
    generation = lake.current()
    return {row[0]: (row[1], row[2]) for row in run_sql(generation, asked).rows} if generation else {}
