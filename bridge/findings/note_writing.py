"""A rejection note by highdicom (an extra): our documents of a result that a reader rejected are not to be shown.

Source: IHE RAD Imaging Object Change Management, Rejected for Quality Reasons; PS3.3 C.17.6, PS3.16 TID 2010, CID 7010
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import Comprehensive3DSRStorage

from bridge.findings.concepts import study_instance_uid
from bridge.findings.review import Standing
from bridge.findings.sr_uid import note_series_uid, note_uid, series_uid
from bridge.findings.sr_writing import of_the_study, with_moment
from bridge.model import Resource
from bridge.translate.headers import Headers

_TITLE = Code("113001", "DCM", "Rejected for Quality Reasons")
_WORDS = "Result of a program, rejected by a reader."


def written_note(standing: Standing, rejected: Sequence[str], imaging_study: Resource, instance: Headers) -> bytes:
    """A Key Object Selection that rejects documents of a result, as a Part 10 file; same input, same bytes.

    From    the SOP Instance UIDs of the `rejected`; `instance` of the study says whose they are
    """
    run_id = standing.result.run_id
    documents = [_document(uid, run_id, imaging_study, instance) for uid in rejected]
    note = hd.ko.KeyObjectSelectionDocument(
        evidence=documents,
        content=hd.ko.KeyObjectSelection(_TITLE, documents, description=_WORDS),
        series_instance_uid=note_series_uid(run_id),
        series_number=9001,
        sop_instance_uid=note_uid(run_id, rejected),
        instance_number=1,
        manufacturer=standing.result.model.vendor[:64] or None,
    )
    with_moment(note, standing)
    buffer = BytesIO()
    note.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _document(uid: str, run_id: str, imaging_study: Resource, instance: Headers) -> Dataset:
    made = of_the_study(instance)
    made.StudyInstanceUID, made.SeriesInstanceUID = study_instance_uid(imaging_study), series_uid(run_id)
    made.SOPInstanceUID, made.SOPClassUID = uid, Comprehensive3DSRStorage
    return made
