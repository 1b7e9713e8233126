"""The AI results of a study from every door: those that were sent, and those that its documents are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import tzinfo
from functools import partial

from pydantic import ValidationError
from pydicom import config

from bridge.documents.document import Document
from bridge.documents.objects import KEY_OBJECTS, SEGMENTATIONS, SR
from bridge.documents.reader_report import signed_report
from bridge.documents.rejections import rejecting
from bridge.documents.segmentation import segmentation_result
from bridge.errors import RefusedResult
from bridge.findings.attached import standing_of
from bridge.findings.contract import as_json, kept
from bridge.findings.judgement import ReadersReport, kept_report, reviews_by
from bridge.findings.model import AiResult, Finding
from bridge.findings.names import result_names
from bridge.findings.placement import misplaced
from bridge.findings.review import ReportStatus, review_as_json
from bridge.findings.sr import is_by_person, is_measurement_report, result_of
from bridge.findings.sr_tree import predecessors
from bridge.findings.sr_uid import document_uids, series_uid
from bridge.model import KeptReport, KeptResult, Rejection, Resource
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
    documents: Sequence[Document],
    sent: Sequence[KeptResult],
    tables: CodeTables,
    zone: tzinfo | None,
    study: Resource | None = None,
    reports: Sequence[KeptReport] = (),
) -> Results:
    """Every result once: a document that was sent as well, and one of ours that came back, make no second one.

    `reports` that readers sent count as reviews like those among the documents; `study` as it is, if it is there.
    """
    rejected: list[Rejection] = []
    candidates: list[Document] = []
    signed: dict[str, ReadersReport] = {}
    for document in documents:
        with rejecting(document, rejected):
            candidates += [document] if is_result(document) else []
        report = _signed(document, tables, zone)
        signed |= {document.uid: report} if report is not None else {}
    said = _in_force(documents, signed) + [one for kept in reports if (one := kept_report(kept.content)) is not None]
    said.sort(key=lambda one: one.signed_at)
    read = [KeptResult(one.uid, one.name.study_instance_uid, b"", one.reviews) for one in candidates]
    ours = {one.run_id: document_uids(one, len(said)) | _in_series(documents, one) for one in (*sent, *read)}
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
    kept_now = tuple(_reviewed(one, said, ours.get(one.run_id, frozenset()), study) for one in (*sent, *found))
    return Results(kept_now, frozenset(one.run_id for one in found), tuple(rejected))


def _signed(document: Document, tables: CodeTables, zone: tzinfo | None) -> ReadersReport | None:
    """What a document says of results. One that cannot be read says nothing of them; what is wrong with it is told
    where its own report is made."""
    told_elsewhere: list[Rejection] = []
    with rejecting(document, told_elsewhere):
        return signed_report(document, tables, zone)
    return None


def _in_force(documents: Sequence[Document], signed: Mapping[str, ReadersReport]) -> list[ReadersReport]:
    """The signed reports without those that a signed one replaces (PS3.3 C.17.2 PredecessorDocumentsSequence)."""
    replaced = {uid for one in documents if one.uid in signed for uid in predecessors(one.dataset) - {one.uid}}
    return [report for uid, report in signed.items() if uid not in replaced]


def _in_series(documents: Sequence[Document], result: KeptResult) -> frozenset[str]:
    """Documents of ours of a result, after whatever reviews: all lie in one series."""
    mine = series_uid(result.run_id)
    return frozenset(one.uid for one in documents if one.name.series_instance_uid == mine)


def _kept(result: AiResult, document: Document) -> KeptResult:
    return KeptResult(result.run_id, result.study_instance_uid, as_json(result), document.reviews)


def _reviewed(
    one: KeptResult, reports: Sequence[ReadersReport], ours: frozenset[str], study: Resource | None
) -> KeptResult:
    """The result with the reviews that reports are, each of the result as it stood before it; without those that speak
    of images the study does not have."""
    names = result_names(one.run_id, ours)
    for report in reports:
        try:
            before = standing_of(one, report.signed_at)
        except RefusedResult:  # of another version, and not shown
            return one
        if before.status is ReportStatus.ENTERED_IN_ERROR:
            return one
        holding = tuple(f for f in before.result.findings if not before.takes_back(f))
        made = reviews_by(report, replace(before.result, findings=holding), names)
        changed = tuple(f for review in made for f in review.findings)
        if study is not None and misplaced(replace(before.result, findings=changed), study):
            continue
        one = replace(one, reviews_by_report=(*one.reviews_by_report, *map(review_as_json, made)))
    return one


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
