"""The documents that an archive is to hold of the results of a study."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet

from bridge.errors import RefusedResult
from bridge.findings.attached import standing_of
from bridge.findings.placement import misplaced
from bridge.findings.review import ReportStatus, Standing
from bridge.findings.sr_uid import document_uids, newest_uid, note_uid, series_uid
from bridge.model import Document, KeptResult, Resource
from bridge.translate.headers import Headers


def documents(
    results: Sequence[KeptResult],
    imaging_study: Resource,
    instance: Headers,
    there: AbstractSet[str],
    in_series: Callable[[str], AbstractSet[str]] | None,
) -> Iterator[Document | RefusedResult]:
    """The SR document of each result as it stands, or why there can be none; nothing of what is `there` already.

    Results of images that the study does not have have no document to be stored. Nor have those that were rejected:
    of these, one rejection note for the documents that are there, also by `in_series`; None: there are to be no notes.
    """
    for one in results:
        try:
            found = standing_of(one)
            if found.status is ReportStatus.ENTERED_IN_ERROR:
                if in_series is None:
                    continue
                rejected = sorted((document_uids(one) & there) | in_series(series_uid(one.run_id)))
                uid = note_uid(one.run_id, rejected)
                if rejected and uid not in there:
                    yield Document(uid, written_note(found, rejected, imaging_study, instance))
            elif (uid := newest_uid(one)) not in there and not misplaced(found.result, imaging_study):
                yield Document(uid, written_document(found, imaging_study, instance, uid))
        except RefusedResult as error:
            yield error


def written_document(standing: Standing, imaging_study: Resource, instance: Headers, uid: str) -> bytes:
    """The result as a Part 10 file. Raises RefusedResult, and ImportError where highdicom is not installed."""
    from bridge.findings.sr_writing import written

    return written(standing, imaging_study, instance, uid)


def written_note(standing: Standing, rejected: Sequence[str], imaging_study: Resource, instance: Headers) -> bytes:
    """The rejection note as a Part 10 file. Raises ImportError where highdicom is not installed."""
    from bridge.findings import note_writing

    return note_writing.written_note(standing, rejected, imaging_study, instance)
