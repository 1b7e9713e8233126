"""Takes results of AI, whatever door they come in by: read, held against their study, kept once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from enum import StrEnum
from typing import Protocol

from bridge.errors import InvalidFile, Refusal, RefusedResult
from bridge.findings.contract import as_json, read_result, run_id_of
from bridge.findings.fhir_bundle import read_bundle
from bridge.findings.model import AiResult
from bridge.findings.placement import misplaced
from bridge.findings.sr import read_sr, series_of
from bridge.findings.sr_uid import is_document_of, series_uid
from bridge.model import ImagingStudyStatus, KeptResult, Resource
from bridge.translate.codes import CodeTables
from bridge.translate.uids import imaging_study_id

MOST_OF_A_STUDY = 500
"""Results kept of one study: every translation of it looks at all of them."""


class Outcome(StrEnum):
    """What became of a result that was sent."""

    KEPT = "kept"
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    CONFLICT = "conflict"


@dataclass(frozen=True)
class Taken:
    """The answer to one result. `run_id` "" when it has none that can be read."""

    run_id: str
    outcome: Outcome
    refusals: tuple[Refusal, ...] = ()


class IntakeState(Protocol):
    """What of the state results are held against, and kept in."""

    def keep_results(
        self, results: Sequence[KeptResult], now: float, quiet_s: float, max_wait_s: float
    ) -> frozenset[str]: ...

    def kept_contents(self, run_ids: Sequence[str]) -> Mapping[str, bytes]: ...

    def ai_results(self, study_instance_uid: str) -> tuple[KeptResult, ...]: ...

    def result_counts(self, studies: Sequence[str]) -> Mapping[str, int]: ...

    def waiting_studies(self, studies: Sequence[str]) -> frozenset[str]: ...

    def newest_contents(self, resource_type: str, ids: Sequence[str]) -> Mapping[str, Resource]: ...


def _nothing(_content: bytes) -> None:
    return None


@dataclass(frozen=True)
class Intake:
    """What decides whether a result is taken: the state, the site's codes; when its study is translated after it."""

    state: IntakeState
    tables: CodeTables
    clock: Callable[[], float]
    quiet_s: float = 0.0
    max_wait_s: float = 0.0
    zone: tzinfo | None = None
    """Of the times of DICOM documents that carry no offset."""

    look: Callable[[bytes], object] = _nothing
    """Looks at a DICOM document before it is read; raises InvalidFile, or Unavailable when it cannot look now."""

    def take(self, items: Sequence[object]) -> list[Taken]:
        """Keeps results in their JSON form, or as FHIR Bundles; each has an answer of its own, in order."""
        return self._keep([self.read(item) for item in items])

    def take_sr(self, content: bytes) -> Taken:
        """The same of a DICOM SR document. Raises Unavailable when it cannot be looked at now."""
        try:
            self.look(content)
            read = read_sr(content, self.tables.coding_scheme, self.zone)
        except InvalidFile as error:
            refusal = Refusal("", f"cannot be read as a DICOM SR document: {error}")
            return Taken("", Outcome.REFUSED, (refusal,))
        except RefusedResult as error:
            return Taken("", Outcome.REFUSED, error.refusals)
        series = series_of(content)
        ours = (
            one.run_id for one in self.state.ai_results(read.study_instance_uid) if series_uid(one.run_id) == series
        )
        if (run_id := next(ours, None)) is not None:
            return Taken(run_id, Outcome.UNCHANGED)
        return self._keep([read])[0]

    def judged(self, results: Sequence[AiResult | Taken]) -> list[KeptResult | Taken]:
        """Of each result what to keep, or its answer when there is nothing to keep; a run comes in once."""
        contents: dict[str, bytes] = dict(
            self.state.kept_contents([r.run_id for r in results if isinstance(r, AiResult)])
        )
        against = _Against(self.state, [r for r in results if isinstance(r, AiResult) and r.run_id not in contents])
        found: list[KeptResult | Taken] = []
        for one in results:
            if isinstance(one, AiResult):
                found.append(self._judged(one, contents, against))
            else:
                found.append(one)
        return found

    def study(self, uid: str) -> Resource | None:
        """The ImagingStudy of a study that archives hold; None of one that is not known, announced or withdrawn."""
        return _available(self.state, [uid]).get(uid)

    def read(self, item: object) -> AiResult | Taken:
        """A result from its JSON form or a FHIR Bundle, or the answer to what is none."""
        try:
            if isinstance(item, dict) and item.get("resourceType") == "Bundle":
                return read_bundle(item, self.tables)
            return read_result(item, self.tables.coding_scheme)
        except RefusedResult as error:
            return Taken(run_id_of(item), Outcome.REFUSED, error.refusals)

    def _keep(self, read: Sequence[AiResult | Taken]) -> list[Taken]:
        judged = self.judged(read)
        new = [one for one in judged if isinstance(one, KeptResult)]
        if not new:
            return [one for one in judged if isinstance(one, Taken)]
        kept = self.state.keep_results(new, self.clock(), self.quiet_s, self.max_wait_s)
        late = [one.run_id for one in new if one.run_id not in kept]
        others = self.state.kept_contents(late) if late else {}
        return [
            one if isinstance(one, Taken)
            else Taken(one.run_id, Outcome.KEPT) if one.run_id in kept
            else _compared(one, others[one.run_id])
            for one in judged
        ]  # fmt: skip

    def _judged(self, result: AiResult, contents: dict[str, bytes], against: _Against) -> KeptResult | Taken:
        kept = KeptResult(result.run_id, result.study_instance_uid, as_json(result))
        if kept.run_id in contents:
            return _compared(kept, contents[kept.run_id])
        if (known := against.document_of(result)) is not None:
            return Taken(known, Outcome.UNCHANGED)
        if wrong := against.wrong(result):
            return Taken(kept.run_id, Outcome.REFUSED, wrong)
        contents[kept.run_id] = kept.content
        against.count(result)
        return kept


class _Against:
    """What only the state knows of the studies of some results."""

    def __init__(self, state: IntakeState, results: Sequence[AiResult]) -> None:
        studies = sorted({r.study_instance_uid for r in results})
        self._state = state
        self._counts = dict(state.result_counts(studies)) if studies else {}
        self._waiting = state.waiting_studies(studies) if studies else frozenset()
        self._available = _available(state, [uid for uid in studies if uid not in self._waiting])

    def count(self, result: AiResult) -> None:
        """One more is to be kept of its study."""
        self._counts[result.study_instance_uid] = self._counts.get(result.study_instance_uid, 0) + 1

    def document_of(self, result: AiResult) -> str | None:
        """The run whose document this is, by its SOP Instance UID."""
        if not result.run_id.startswith("2.25."):
            return None
        kept = self._state.ai_results(result.study_instance_uid)
        return next((known.run_id for known in kept if is_document_of(result.run_id, known)), None)

    def wrong(self, result: AiResult) -> tuple[Refusal, ...]:
        """A study that waits to be read again may have more images than are known yet: they are not judged."""
        uid = result.study_instance_uid
        if self._counts.get(uid, 0) >= MOST_OF_A_STUDY:
            return (Refusal("study_instance_uid", f"has {MOST_OF_A_STUDY} results, the most it can have"),)
        study = self._available.get(uid)
        return misplaced(result, study) if study is not None else ()


def _available(state: IntakeState, studies: Sequence[str]) -> dict[str, Resource]:
    ids = {imaging_study_id(uid): uid for uid in studies}
    found = state.newest_contents("ImagingStudy", list(ids)) if ids else {}
    return {ids[i]: content for i, content in found.items() if content["status"] == ImagingStudyStatus.AVAILABLE.value}


def _compared(result: KeptResult, before: bytes) -> Taken:
    if before == result.content:
        return Taken(result.run_id, Outcome.UNCHANGED)
    reason = "names a run whose result is kept already and is another one: give each run an id of its own"
    return Taken(result.run_id, Outcome.CONFLICT, (Refusal("run_id", reason),))
