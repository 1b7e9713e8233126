"""The SR documents that an archive is to hold of the results of a study."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence

from bridge.errors import RefusedResult
from bridge.findings.attached import standing_of
from bridge.findings.placement import misplaced
from bridge.findings.review import ReportStatus, Standing
from bridge.findings.sr_uid import document_uid
from bridge.model import Document, KeptResult, Resource
from bridge.translate.headers import Headers


def documents(
    results: Sequence[KeptResult], imaging_study: Resource, instance: Headers, there: Container[str]
) -> Iterator[Document | RefusedResult]:
    """The document of each result as it stands, or why there can be none; nothing of what is `there` already.

    Results that were rejected, and those of images that the study does not have, have no document to be stored.
    """
    for one in results:
        try:
            found = standing_of(one)
            uid = document_uid(one.run_id, len(one.reviews))
            if uid not in there and _wanted(found, imaging_study):
                yield Document(uid, written_document(found, imaging_study, instance))
        except RefusedResult as error:
            yield error


def written_document(standing: Standing, imaging_study: Resource, instance: Headers) -> bytes:
    """The result as a Part 10 file. Raises RefusedResult, and ImportError where highdicom is not installed."""
    from bridge.findings.sr_writing import written

    return written(standing, imaging_study, instance)


def _wanted(standing: Standing, imaging_study: Resource) -> bool:
    return standing.status is not ReportStatus.ENTERED_IN_ERROR and not misplaced(standing.result, imaging_study)
