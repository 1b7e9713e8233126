"""Archive ↔ state: the studies an archive has, their instances, and with `whole` all their headers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from bridge.errors import Unavailable
from bridge.ports import BACKFILL_QUEUE, STUDY_QUEUE, ImagingSource
from bridge.reconcile.ordered import in_order, side_by_side, some_at_once
from bridge.reconcile.ports import ReconciledState
from bridge.reconcile.report import Comparison, Difference, Level
from bridge.translate.headers import Headers

Found = tuple[Difference, bool | None]
"""A difference, and whether work that would settle it is parked; None: there is no such work."""

AT_ONCE = 100
READ = 50
"""Studies of one archive that differ and are read, to tell which of their series and instances do."""


class Archive:
    """One archive beside what is kept of it."""

    def __init__(self, source: ImagingSource, state: ReconciledState) -> None:
        self._source, self._state, self._read = source, state, 0

    def compare(self, found: Comparison, *, whole: bool) -> Iterator[Found]:
        """What differs, each seen twice."""
        for some in some_at_once(self._suspects(found, whole), AT_ONCE):
            yield from self._confirmed(some, whole)

    def _suspects(self, found: Comparison, whole: bool) -> Iterator[str]:
        held = in_order(self._state.held(self._source.name))
        for uid, there, here in side_by_side(in_order(self._source.inventory()), held):
            found.compared["studies"] += 1
            found.compared["instances"] += there[1] if there else 0
            if there is None or here is None or there[1] != here[1] or (whole and not self._same(uid)):
                yield uid

    def _confirmed(self, uids: Sequence[str], whole: bool) -> Iterator[Found]:
        """Those that still differ: traffic does not stop while streams are read."""
        there, here = self._source.count(uids), self._state.held_of(self._source.name, uids)
        unread = self._state.unread(self._source.name, uids)
        work = self._state.in_work(STUDY_QUEUE, uids)
        later = self._state.in_work(BACKFILL_QUEUE, [f"{self._source.name}/{uid}" for uid in uids])
        work |= {key.partition("/")[2]: parked for key, parked in later.items()}
        for uid in uids:
            had, kept = there.get(uid, 0), here.get(uid, 0)
            if had == kept and (not whole or self._same(uid)):
                continue
            yield self._difference(uid, had, kept), work.get(uid) if uid in unread or uid in work else None

    def _difference(self, uid: str, there: int, here: int) -> Difference:
        name = self._source.name
        if not here:
            return Difference(uid, Level.STUDY, f"{name} holds it, the state does not know it")
        if not there:
            return Difference(uid, Level.STUDY, f"{name} does not hold it any more")
        if there == here:
            return Difference(uid, Level.CONTENT, f"{name} has other headers than those kept")
        level, problem = Level.INSTANCE, f"{name} holds {there} instances, {here} are known"
        if self._read < READ:
            self._read += 1
            series = self._series(uid)
            if series:
                level, problem = Level.SERIES, f"{problem}; {series} series are of one side alone"
        return Difference(uid, level, problem)

    def _series(self, uid: str) -> int:
        """How many series one side alone has; 0 when the archive cannot be read."""
        try:
            there = _series(self._source.read(uid).instances)
        except Unavailable:
            return 0
        return len(there ^ _series(self._state.snapshots(uid).get(self._source.name, ())))

    def _same(self, uid: str) -> bool:
        return self._state.is_snapshot(self._source.name, uid, self._source.read(uid))


def _series(instances: Iterable[Headers]) -> set[str]:
    return {one.text("SeriesInstanceUID") for one in instances}
