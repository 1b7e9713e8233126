"""Compares every two parties that must agree, and marks what differs, where that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from bridge.errors import ProjectError
from bridge.ports import STUDY_QUEUE, ImagingSource, sink_queue
from bridge.reconcile.archives import Archive, Found
from bridge.reconcile.lakes import LAKE, LakeSide
from bridge.reconcile.ports import LakeParty, ReconciledState, ServerParty
from bridge.reconcile.report import Comparison, Difference, Level, Report, Standing
from bridge.reconcile.servers import Server

STATE = "state"
PAGE = 500


class _Side(Protocol):
    def compare(self, found: Comparison, *, whole: bool) -> Iterator[Found]: ...


@dataclass
class Reconciler:
    """Archives ↔ state ↔ FHIR servers and lake. `told` hears of each comparison as it begins.

    Streams are read beside live traffic: what differs is looked at twice, and what is marked already only waits.
    """

    state: ReconciledState
    sources: Mapping[str, ImagingSource]
    servers: Mapping[str, ServerParty]
    lake: LakeParty | None
    clock: Callable[[], float]
    told: Callable[[str], None] = field(default=lambda _what: None)

    def run(self, *, repair: bool = False, whole: bool = False) -> Report:
        """Everything once. With `repair`, what differs is marked: read, translated or delivered again by a bridge that
        runs. With `whole`, archives are read and FHIR servers compared element by element. Raises StateUnavailable."""
        started, found = self.clock(), list[Comparison]()
        for source in self.sources.values():
            marks = self._marking(partial(self.state.mark_studies, source.name))
            found.append(self._compared(source.name, STATE, Archive(source, self.state), marks, repair, whole))
        again = self._marking(partial(self.state.mark, STUDY_QUEUE))
        found.append(self._compared("headers", "resources", _Translated(self.state), again, repair, whole))
        for name, server in self.servers.items():
            marks = self._marking(partial(self.state.mark, sink_queue(name)))
            found.append(self._compared(STATE, name, Server(name, server, self.state), marks, repair, whole))
        if self.lake is not None:
            marks = self._marking(partial(self.state.mark, sink_queue(LAKE)))
            found.append(self._compared(STATE, LAKE, LakeSide(self.lake, self.state), marks, repair, whole))
        return Report(started, self.clock(), tuple(found))

    def _compared(
        self, left: str, right: str, side: _Side, mark: Callable[[str], bool], repair: bool, whole: bool
    ) -> Comparison:
        self.told(f"{left} and {right}")
        found = Comparison(left, right)
        try:
            for difference, parked in side.compare(found, whole=whole):
                found.add(self._settled(difference, parked, mark if repair else _never))
        except ProjectError as error:
            found.error = str(error)
        return found

    @staticmethod
    def _settled(difference: Difference, parked: bool | None, mark: Callable[[str], bool]) -> Difference:
        if parked is not None:
            return replace(difference, standing=Standing.PARKED if parked else Standing.WAITING)
        return replace(difference, standing=Standing.MARKED) if mark(difference.key) else difference

    def _marking(self, mark: Callable[[list[str], float], None]) -> Callable[[str], bool]:
        def marked(key: str) -> bool:
            """False for a resource of which no study is known: nothing can make it again, or take it away."""
            if "/" in key:
                return False
            mark([key], self.clock())
            return True

        return marked


def _never(_key: str) -> bool:
    return False


class _Translated:
    """What is kept of the headers ↔ the resources made of it."""

    def __init__(self, state: ReconciledState) -> None:
        self._state = state

    def compare(self, found: Comparison, *, whole: bool) -> Iterator[Found]:
        after, going = "", True
        while going:
            different, last = self._state.untranslated(after, PAGE)
            work = self._state.in_work(STUDY_QUEUE, different)
            for uid in different:
                problem = "its resources were made from other headers than those kept"
                yield Difference(uid, Level.CONTENT, problem), work.get(uid)
            after, going = last, bool(last)
