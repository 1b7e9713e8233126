"""Instances that a rejection note of their study takes back (IHE RAD Imaging Object Change Management)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from bridge.model import ImagingStudyStatus
from bridge.translate.headers import Headers
from bridge.translate.merge import Remarks, Study
from bridge.translate.wanted import REJECTION_TITLES

EVIDENCE = "CurrentRequestedProcedureEvidenceSequence"
_STATUSES = {
    "113037": ImagingStudyStatus.ENTERED_IN_ERROR,  # Rejected for Patient Safety Reasons
    "113038": ImagingStudyStatus.ENTERED_IN_ERROR,  # Incorrect Modality Worklist Entry
    "113001": ImagingStudyStatus.CANCELLED,  # Rejected for Quality Reasons
    "113039": ImagingStudyStatus.UNKNOWN,  # Data Retention Policy Expired: it took place, and R4 has no inactive
}
"""DCM title code (PS3.16 CID 7010) → what a study is of which everything was rejected; of several the first here."""


@dataclass(frozen=True)
class Remaining:
    """A study without what its rejection notes reject.

    Result  `study` as readers should see it; `status` instead of available when nothing but notes is left, else None
    """

    study: Study
    status: ImagingStudyStatus | None = None


def remaining(study: Study, remarks: Remarks) -> Remaining:
    """The study without the instances that Key Object Selection Documents in it reject.

    From    PS3.3 C.17.6.2 ConceptNameCodeSequence (113001, 113037, 113038, 113039 DCM),
            CurrentRequestedProcedureEvidenceSequence
    """
    notes = [(code, headers) for headers in study.instances if (code := rejection_code(headers))]
    if not notes:
        return Remaining(study)
    rejected: dict[str, str] = {}
    for code in reversed(_STATUSES):
        for note_code, note in notes:
            if note_code == code:
                rejected |= dict.fromkeys(_rejected_by(note, study.study_instance_uid), code)
    held = {headers.text("SOPInstanceUID") for headers in study.instances}
    gone = {uid: code for uid, code in rejected.items() if uid in held}
    for code in gone.values():
        remarks.add(EVIDENCE, f"of a rejection note (DCM {code}) names instances that are held; they are left out")
    left = _without(study, frozenset(gone))
    if gone and all(rejection_code(headers) for headers in left.instances):
        return Remaining(replace(study, series=()), next(s for code, s in _STATUSES.items() if code in gone.values()))
    return Remaining(left)


def rejection_code(headers: Headers) -> str:
    """The code of the title of a rejection note; "" for anything else."""
    if EVIDENCE not in headers:
        return ""
    title = headers.item("ConceptNameCodeSequence")
    code = title.text("CodeValue")
    return code if code in REJECTION_TITLES and title.text("CodingSchemeDesignator") == "DCM" else ""


def _rejected_by(note: Headers, study_instance_uid: str) -> Iterator[str]:
    for study in note.items_of(EVIDENCE):
        if study.text("StudyInstanceUID") == study_instance_uid:
            for series in study.items_of("ReferencedSeriesSequence"):
                for reference in series.items_of("ReferencedSOPSequence"):
                    yield reference.text("ReferencedSOPInstanceUID")


def _without(study: Study, gone: frozenset[str]) -> Study:
    def left(instances: tuple[Headers, ...]) -> tuple[Headers, ...]:
        return tuple(h for h in instances if h.text("SOPInstanceUID") not in gone)

    series = tuple(replace(s, instances=kept) for s in study.series if (kept := left(s.instances)))
    return replace(study, series=series, first=left(study.first) or tuple(h for s in series for h in s.instances))
