"""The AI results of a study from every door: those that were sent, and those that its documents are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import tzinfo
from functools import partial

from pydantic import ValidationError
from pydicom import config

from bridge.documents.document import Document
from bridge.documents.objects import KEY_OBJECTS, SEGMENTATIONS, SR
from bridge.documents.reader_report import reviews
from bridge.documents.rejections import rejecting
from bridge.documents.segmentation import segmentation_result
from bridge.findings.contract import as_json, kept
from bridge.findings.model import AiResult, Finding
from bridge.findings.sr import is_by_person, is_measurement_report, result_of
from bridge.findings.sr_uid import document_uids
from bridge.model import KeptResult, Rejection
from bridge.translate.codes import CodeTables


@dataclass(frozen=True)
class Results:
    """`kept`: all results, sent ones first; `read`: the runs that came as documents; `rejected`: documents that are
    results and cannot be taken."""

    kept: tuple[KeptResult, ...]
    read: frozenset[str] = frozenset()
    rejected: tuple[Rejection, ...] = ()


@config.disable_value_validation()  # as in `attached`
def results_of(
    documents: Sequence[Document], sent: Sequence[KeptResult], tables: CodeTables, zone: tzinfo | None
) -> Results:
    """Every result once: a document that was sent as well, and one of ours that came back, make no second one."""
    rejected: list[Rejection] = []
    candidates: list[Document] = []
    said: list[tuple[set[str], bytes]] = []
    for document in documents:
        with rejecting(document, rejected):
            candidates += [document] if is_result(document) else []
            said += reviews([document], tables, zone)
    read = [KeptResult(one.uid, one.name.study_instance_uid, b"", one.reviews) for one in candidates]
    ours = {one.run_id: document_uids(one, len(said)) for one in (*sent, *read)}
    known = {one.run_id for one in sent}.union(*ours.values())
    found: list[KeptResult] = []
    for document in (one for one in candidates if one.uid not in known):
        with rejecting(document, rejected):
            found.append(_kept(result_of(document.dataset, tables.coding_scheme, zone), document))
    carried = _Carried((*sent, *found))
    for document in (one for one in documents if one.sop_class in SEGMENTATIONS and one.uid not in known):
        with rejecting(document, rejected):
            segments = segmentation_result(document, tables.coding_scheme, zone, partial(carried, document.uid))
            found += [_kept(segments, document)] if segments is not None else []
    kept_now = tuple(_reviewed(one, said, ours.get(one.run_id, frozenset())) for one in (*sent, *found))
    return Results(kept_now, frozenset(one.run_id for one in found), tuple(rejected))


def _kept(result: AiResult, document: Document) -> KeptResult:
    return KeptResult(result.run_id, result.study_instance_uid, as_json(result), document.reviews)


def _reviewed(one: KeptResult, said: Sequence[tuple[set[str], bytes]], ours: frozenset[str]) -> KeptResult:
    """The result with the reviews that reports are which refer to its document, or to one that was written of it."""
    mine = ours | {one.run_id}
    found = tuple(review for referred, review in said if not mine.isdisjoint(referred))
    return replace(one, reviews_by_report=found) if found else one


class _Carried:
    """The segments and the lesions that results speak of."""

    def __init__(self, results: Sequence[KeptResult]) -> None:
        self._segments: set[tuple[str, int]] = set()
        self._tracked: set[str] = set()
        for one in results:
            for finding in _findings(one):
                self._segments |= {(s.sop_instance_uid, s.number) for s in finding.location.segments}
                self._tracked.add(finding.tracking_uid)
        self._tracked.discard("")

    def __call__(self, sop_instance_uid: str, tracking_uid: str, number: int) -> bool:
        return tracking_uid in self._tracked or (sop_instance_uid, number) in self._segments


def _findings(one: KeptResult) -> tuple[Finding, ...]:
    try:
        return kept(one.content).findings
    except ValidationError:  # of another version, and not shown
        return ()


def is_result(document: Document) -> bool:
    """Whether it is a Measurement Report that no person observed."""
    if not document.sop_class.startswith(SR) or document.sop_class == KEY_OBJECTS:
        return False
    return is_measurement_report(document.dataset) and not is_by_person(document.dataset)
