"""State ↔ lake: every resource by digest of its content; every study by its series and instances."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from bridge.model import Resource
from bridge.ports import STUDY_QUEUE, sink_queue
from bridge.reconcile.archives import Found
from bridge.reconcile.ordered import Row, in_order, side_by_side, some_at_once
from bridge.reconcile.ports import HeldResource, HeldStudy, LakeParty, ReconciledState
from bridge.reconcile.report import Comparison, Difference, Level

AT_ONCE = 100
LAKE = "lake"


class LakeSide:
    """The lake beside the state."""

    def __init__(self, party: LakeParty, state: ReconciledState) -> None:
        self._party, self._state = party, state

    def compare(self, found: Comparison, *, whole: bool) -> Iterator[Found]:
        """What differs, each seen twice. Contents are compared by digest always: `whole` changes nothing."""
        self._party.refresh()
        suspects, studies = _whole(self._resources(found)), _whole(self._studies(found))
        self._party.refresh()
        for keys in some_at_once(suspects, AT_ONCE):
            yield from self._confirmed_resources(keys)
        for uids in some_at_once(studies, AT_ONCE):
            yield from self._confirmed_studies(uids)

    def _resources(self, found: Comparison) -> Iterator[str]:
        held = in_order(self._state.held_resources())
        for key, here, there in side_by_side(held, in_order(self._party.resources())):
            found.compared["resources"] += 1
            if not _alike(here, there):
                yield key

    def _studies(self, found: Comparison) -> Iterator[str]:
        for uid, here, there in side_by_side(in_order(self._held()), in_order(self._party.studies())):
            found.compared["studies"] += 1
            found.compared["series"] += here[1] if here else 0
            found.compared["instances"] += here[2] if here else 0
            if _difference(uid, here, there) is not None:
                yield uid

    def _held(self) -> Iterator[HeldStudy]:
        after = ""
        while uids := self._state.known_studies(after, AT_ONCE):
            after = uids[-1]
            yield from self._held_of(uids)

    def _held_of(self, uids: Sequence[str]) -> Iterator[HeldStudy]:
        return (_of(uid, study) for uid, study in self._state.imaging_studies(uids))

    def _confirmed_resources(self, keys: list[str]) -> Iterator[Found]:
        here, there = self._state.resource_digests(keys), self._party.resource_digests(keys)
        for key in keys:
            if _alike(here.get(key), there.get(key)):
                continue
            uids = self._state.studies_of(key)
            problem = f"{key.partition('/')[0]}: the lake has another content"
            if key not in there:
                problem = f"{key.partition('/')[0]}: the lake does not have it"
            elif key not in here:
                problem = f"{key.partition('/')[0]}: the lake has it, the state does not know it"
            yield Difference(uids[0] if uids else key, Level.CONTENT, problem), self._work(uids)

    def _confirmed_studies(self, uids: list[str]) -> Iterator[Found]:
        here, there = {row[0]: row for row in self._held_of(uids)}, self._party.studies_of(uids)
        for uid in uids:
            difference = _difference(uid, here.get(uid), there.get(uid))
            if difference is not None:
                yield difference, self._work([uid])

    def _work(self, uids: list[str]) -> bool | None:
        work = self._state.in_work(STUDY_QUEUE, uids) | self._state.in_work(sink_queue(LAKE), uids)
        return next(iter(work.values()), None)


def _whole(keys: Iterable[str]) -> Iterator[str]:
    """All keys, once the last of them is known: what they come from is read to its end before this returns."""
    rows = in_order((key,) for key in keys)
    first = next(rows, None)
    return (row[0] for row in chain([] if first is None else [first], rows))


def instances_digest(sop_instance_uids: Iterable[str]) -> str:
    """One number for a set of SOP Instance UIDs, whatever their order: their MD5s' last 64 bits, by exclusive or.

    >>> instances_digest(["1.2", "1.3"]) == instances_digest(["1.3", "1.2"])
    True
    """
    found = 0
    for uid in sop_instance_uids:
        digest = hashlib.md5(uid.encode(), usedforsecurity=False).digest()
        found ^= int.from_bytes(digest[8:], "little")
    return str(found)


def _of(uid: str, study: Resource) -> HeldStudy:
    """A study as its ImagingStudy has it. Its digest is "" when the instances are too many to be listed."""
    listed = [i["uid"] for series in study.get("series", []) for i in series.get("instance", [])]
    instances = int(study.get("numberOfInstances", 0))
    digest = instances_digest(listed) if len(listed) == instances else ""
    return uid, int(study.get("numberOfSeries", 0)), instances, digest


def _alike(here: Row | HeldResource | None, there: Row | HeldResource | None) -> bool:
    """Alike by digest; what is deleted may be gone."""
    mine = "" if here is None or here[1] else here[2]
    return bool(mine == ("" if there is None or there[1] else there[2]))


def _difference(uid: str, here: Row | HeldStudy | None, there: Row | HeldStudy | None) -> Difference | None:
    _, series, instances, digest = here or (uid, 0, 0, "0")
    _, its_series, its_instances, its_digest = there or (uid, 0, 0, "0")
    if bool(instances) != bool(its_instances):
        return Difference(uid, Level.STUDY, "the lake has no rows of it" if instances else "the lake still has rows")
    if series != its_series:
        return Difference(uid, Level.SERIES, f"{series} series, {its_series} in the lake")
    if instances != its_instances:
        return Difference(uid, Level.INSTANCE, f"{instances} instances, {its_instances} in the lake")
    if digest and digest != its_digest:
        return Difference(uid, Level.INSTANCE, "the lake has other instances")
    return None
