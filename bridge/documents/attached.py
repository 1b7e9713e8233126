"""What the documents of a study say, as part of what the study's translation makes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from pydicom import config

from bridge.documents.document import Context, Document, documents_of
from bridge.documents.dose import dose_observations, is_dose_report
from bridge.documents.encapsulated import attachment, pdf_report
from bridge.documents.objects import ENCAPSULATED, ENCAPSULATED_PDF, SEGMENTATIONS
from bridge.documents.reader_report import is_readers_report, readers_findings, readers_report
from bridge.documents.reference import document_reference
from bridge.documents.rejections import rejecting, rejection
from bridge.documents.results import Results, results_of
from bridge.documents.withdrawal import withdrawn
from bridge.errors import RefusedResult
from bridge.findings.attached import attached, standing_of
from bridge.findings.observations import Surroundings, observations
from bridge.findings.placement import misplaced
from bridge.model import ImagingStudyStatus, KeptDocument, KeptReport, KeptResult, Rejection, Resource, StudyResult


@config.disable_value_validation()  # its warnings quote values; what matters is checked where it is used
def with_documents(
    made: StudyResult,
    kept: Sequence[KeptDocument],
    sent: Sequence[KeptResult],
    previous: Sequence[Resource],
    context: Context,
    reports: Sequence[KeptReport] = (),
) -> StudyResult:
    """A translated study with its AI results and all that its documents say behind its own resources.

    `sent`: results that came by themselves; `reports` of readers that did; `previous`: all resources of the study
    so far. What a document said that is gone, or says it no longer, is entered in error; what cannot be taken is
    rejected and stays what it was.
    """
    study = next((r for r in made.resources if r["resourceType"] == "ImagingStudy"), None)
    documents: list[Document] = []
    if study is not None and study["status"] == ImagingStudyStatus.AVAILABLE.value:
        documents = [one for one in documents_of(kept, context) if is_in(one, study)]
    results = results_of(documents, sent, context.site.tables, context.site.zone, study, reports)
    shown, rejected = _placed(results, documents, study)
    before = {_key(r) for r in made.resources}
    made = attached(made, shown, context.site.tables)
    refused = [*results.rejected, *rejected]
    if study is not None:
        more = [r for one in documents for r in _said(one, study, context, refused)]
        made = replace(made, resources=(*made.resources, *more))
    new = [r for r in made.resources if _key(r) not in before]
    staying = {one.run_id for one in sent} | {str(one.evidence["sop_instance_uid"]) for one in refused}
    gone = withdrawn(previous, new, staying)
    return replace(made, resources=(*made.resources, *gone), rejected=(*made.rejected, *refused))


def _said(document: Document, study: Resource, context: Context, refused: list[Rejection]) -> list[Resource]:
    """What a document is in FHIR beside the results of AI; what cannot be read of it is rejected and stops no other."""
    made: list[Resource] = []
    with rejecting(document, refused):
        for one in _resources(document, study, context, refused):
            made.append(one)
    return made


def _resources(document: Document, study: Resource, context: Context, refused: list[Rejection]) -> Iterator[Resource]:
    """A DocumentReference; of a PDF and of a reader's document a report, of doses numbers."""
    tables, zone = context.site.tables, context.site.zone
    if document.sop_class in SEGMENTATIONS:
        return
    encapsulated = document.sop_class in ENCAPSULATED
    more = (attachment(document, zone, inline=False),) if encapsulated else ()
    yield document_reference(document, more, study, tables, zone)
    if document.sop_class == ENCAPSULATED_PDF:
        yield pdf_report(document, study, tables, zone)
    elif is_dose_report(document):
        yield from dose_observations(document, study, tables, zone)
    elif is_readers_report(document):
        found = _measured(document, study, context, refused)
        yield from found
        yield readers_report(document, study, tables, zone, found)


def _measured(document: Document, study: Resource, context: Context, refused: list[Rejection]) -> list[Resource]:
    """What a person measured, as Observations; what cannot be taken of it is rejected, and the report stays."""
    tables = context.site.tables
    with rejecting(document, refused):
        found = readers_findings(document, tables, context.site.zone)
        if found is not None and (wrong := misplaced(found.result, study)):
            raise RefusedResult(wrong)
        return observations(Surroundings(found, study, None, tables)) if found is not None else []
    return []


def _placed(
    results: Results, documents: Sequence[Document], study: Resource | None
) -> tuple[list[KeptResult], list[Rejection]]:
    """The results without those of documents that name images the study does not have: these are rejected."""
    shown, rejected = [], []
    by_uid = {one.uid: one for one in documents}
    for one in results.kept:
        wrong = misplaced(standing_of(one).result, study) if one.run_id in results.read and study else ()
        if wrong:
            rejected.append(rejection(by_uid[one.run_id], RefusedResult(wrong)))
        else:
            shown.append(one)
    return shown, rejected


def is_in(document: Document, study: Resource) -> bool:
    """Whether the study shows the instance: not one that was rejected. A series that lists none shows all."""
    for series in study.get("series", ()):
        if series["uid"] == document.name.series_instance_uid:
            return "instance" not in series or any(i["uid"] == document.uid for i in series["instance"])
    return False


def _key(resource: Resource) -> tuple[str, str]:
    return resource["resourceType"], resource["id"]
