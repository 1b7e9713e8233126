"""An archive in memory behind the ImagingSource port, and sinks that remember. For tests of the loops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bridge.errors import ProjectError, SinkUnavailable, SourceUnavailable
from bridge.model import Receipt, StudyState, WadoEndpoint
from bridge.ports import ChangePage, StudyHeaders
from bridge.translate.headers import Headers
from bridge.translate.procedure_step import ProcedureStep


class FakeArchive:
    """Holds headers by study; its log is a list of study UIDs, its position an index into it.

    `settled` the studies that the next page names to be counted, `counted` how many each pass asked for;
    `lost_in_total` by how much the total is wrong.
    """

    poll_s, sweep_s, verify_s = 1.0, 1000.0, 10.0

    def __init__(self, name: str, endpoint: WadoEndpoint | None = None) -> None:
        self.name, self.endpoint = name, endpoint
        self.studies: dict[str, dict[str, Headers]] = {}
        self.steps: dict[str, ProcedureStep] = {}
        self.log: list[str] = []
        self.down = False
        self.counted: list[int] = []
        self.lost_in_total = 0
        self.settled: set[str] = set()
        self.reads = 0

    def put(self, *instances: Headers, quietly: bool = False) -> None:
        for headers in instances:
            uid = headers.text("StudyInstanceUID")
            self.studies.setdefault(uid, {})[headers.text("SOPInstanceUID")] = headers
            if not quietly:
                self.log.append(uid)

    def announce(self, step: ProcedureStep, *studies: str) -> None:
        self.steps[step.sop_instance_uid] = step
        self.log += studies

    def changes(self, position: str | None) -> ChangePage:
        self._answer()
        start = int(position or 0)
        page = self.log[start : start + 3]
        recount, self.settled = frozenset(self.settled), set()
        end = start + len(page)
        return ChangePage(frozenset(page), str(end), end >= len(self.log), recount=recount)

    def read(self, study_instance_uid: str) -> StudyHeaders:
        self._answer()
        self.reads += 1
        found = tuple(self.studies.get(study_instance_uid, {}).values())
        steps = tuple(step for step in self.steps.values() if step.items_of(study_instance_uid))
        return StudyHeaders(found, len(found), procedure_steps=steps)

    def inventory(self) -> Iterator[tuple[str, int]]:
        self._answer()
        yield from [(uid, len(found)) for uid, found in self.studies.items()]

    def count(self, study_instance_uids: Sequence[str]) -> dict[str, int]:
        self._answer()
        self.counted.append(len(study_instance_uids))
        return {uid: len(self.studies.get(uid, {})) for uid in study_instance_uids}

    def total(self) -> int:
        self._answer()
        return sum(map(len, self.studies.values())) - self.lost_in_total

    def _answer(self) -> None:
        if self.down:
            raise SourceUnavailable(f"source {self.name}: down")


class FakeSink:
    """Remembers every state it was given; `down` and `refuses` make it fail."""

    batch_size = 5

    def __init__(self, name: str, wants_rows: bool = False) -> None:
        self.name, self.wants_rows = name, wants_rows
        self.states: list[StudyState] = []
        self.down = False
        self.refuses: dict[str, ProjectError] = {}
        self.batches: list[int] = []

    def deliver(self, states: Sequence[StudyState]) -> list[Receipt | ProjectError | None]:
        self.batches.append(len(states))
        if self.down:
            raise SinkUnavailable(f"sink {self.name}: HTTP 500")
        self.states += [s for s in states if s.study_instance_uid not in self.refuses]
        return [self.refuses.get(s.study_instance_uid) or self._receipt(s) for s in states]

    def _receipt(self, state: StudyState) -> Receipt | None:
        return None if self.wants_rows else Receipt(f"http://{self.name}/{state.study_instance_uid}", "1", "digest")

    def newest(self) -> dict[str, StudyState]:
        return {s.study_instance_uid: s for s in self.states}
