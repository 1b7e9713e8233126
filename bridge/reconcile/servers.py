"""State ↔ FHIR server: each study as the state has it, looked up by identifier in order of UID."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bridge.model import StudyState
from bridge.ports import STUDY_QUEUE, sink_queue
from bridge.reconcile.archives import Found
from bridge.reconcile.ports import ReconciledState, ServerParty
from bridge.reconcile.report import Comparison, Difference, Level

AT_ONCE = 50


class Server:
    """One FHIR server beside the state."""

    def __init__(self, name: str, party: ServerParty, state: ReconciledState) -> None:
        self._name, self._party, self._state = name, party, state

    def compare(self, found: Comparison, *, whole: bool) -> Iterator[Found]:
        """What differs, each seen twice."""
        after = ""
        while uids := self._state.known_studies(after, AT_ONCE):
            after = uids[-1]
            states = self._states(uids)
            for state in states.values():
                study = next((r.content for r in state.of_type("ImagingStudy") if r.content), {})
                found.compared["studies"] += 1
                found.compared["series"] += int(study.get("numberOfSeries", 0))
                found.compared["instances"] += int(study.get("numberOfInstances", 0))
            first = self._party.differing(list(states.values()), whole=whole)
            if not first:
                continue
            work = self._state.in_work(STUDY_QUEUE, list(first))
            work |= self._state.in_work(sink_queue(self._name), list(first))
            again = self._party.differing(list(self._states(list(first)).values()), whole=whole)
            for uid, (level, problem) in sorted(again.items()):
                yield Difference(uid, Level(level), problem), work.get(uid)

    def _states(self, uids: list[str]) -> Mapping[str, StudyState]:
        receipts, resources = self._state.receipts(self._name, uids), self._state.studies_resources(uids)
        return {
            uid: StudyState(uid, max((r.revision for r in held), default=0), held, {}, receipts.get(uid))
            for uid, held in resources.items()
        }
