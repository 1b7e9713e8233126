"""Instances that a rejection note takes back, and what is left of their study."""

from __future__ import annotations

from typing import Any

import pytest
from pydicom.uid import KeyObjectSelectionDocumentStorage

from bridge.model import ImagingStudyStatus
from bridge.translate.headers import Headers
from tests.builders import STUDY, a_translator, headers
from tests.studies import a_code, item, patient_of, remarked, study_of, translated


def a_note(code: str, *rejected: str, study: str = STUDY, scheme: str = "DCM", **attributes: Any) -> Headers:
    references = [item(ReferencedSOPInstanceUID=uid) for uid in rejected]
    series = item(SeriesInstanceUID=f"{STUDY}.1", ReferencedSOPSequence=references)
    evidence = item(StudyInstanceUID=study, ReferencedSeriesSequence=[series])
    return headers(
        series=9,
        Modality="KO",
        SOPClassUID=KeyObjectSelectionDocumentStorage,
        ImageType=None,
        ConceptNameCodeSequence=[a_code(code, scheme, "Rejected")],
        CurrentRequestedProcedureEvidenceSequence=[evidence],
        **attributes,
    )


ONE, TWO = f"{STUDY}.1.1", f"{STUDY}.1.2"
IMAGES = (headers(instance=1), headers(instance=2))


@pytest.mark.parametrize("code", ["113001", "113037", "113038", "113039"])
def test_rejected_instances_are_left_out_and_remarked(code: str) -> None:
    result = translated(*IMAGES, a_note(code, ONE))
    study = study_of(result)
    assert study["status"] == "available"
    assert study["numberOfInstances"] == 2
    assert [i["uid"] for i in study["series"][0]["instance"]] == [TWO]
    assert study["series"][1]["instance"][0]["title"] == "Rejected"
    (remark,) = result.remarks
    assert (remark.keyword, remark.count) == ("CurrentRequestedProcedureEvidenceSequence", 1)
    assert code in remark.problem
    assert [r["sop_instance_uid"] for r in a_translator().rows(STUDY, {"a": (*IMAGES, a_note(code, ONE))})[
        "dicom_instance"
    ]] == [TWO, f"{STUDY}.9.1"]  # fmt: skip


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("113001", ImagingStudyStatus.CANCELLED),
        ("113037", ImagingStudyStatus.ENTERED_IN_ERROR),
        ("113038", ImagingStudyStatus.ENTERED_IN_ERROR),
        ("113039", ImagingStudyStatus.UNKNOWN),
    ],
)
def test_a_study_of_which_everything_is_rejected_says_why_and_offers_nothing(
    code: str, status: ImagingStudyStatus
) -> None:
    result = translated(*IMAGES, a_note(code, ONE, TWO), endpoints={"a": "http://a/dw"})
    study = study_of(result)
    assert study["status"] == status
    assert (study["numberOfSeries"], study["numberOfInstances"]) == (0, 0)
    assert not {"series", "endpoint"} & study.keys()
    assert study["description"] == "CT chest"
    assert patient_of(result)["identifier"][0]["value"] == "P1"
    assert a_translator().rows(STUDY, {"a": (*IMAGES, a_note(code, ONE, TWO))})["dicom_instance"] == ()


def test_of_several_reasons_the_gravest_counts() -> None:
    notes = (a_note("113001", ONE), a_note("113038", TWO, instance=2))
    assert study_of(translated(*IMAGES, *notes))["status"] == "entered-in-error"


def test_a_status_given_for_a_rejection_stays_when_the_archive_deletes_the_rest() -> None:
    before = translated(*IMAGES, a_note("113001", ONE, TWO)).resources
    (gone,) = a_translator().withdraw(STUDY, before).resources
    assert gone["status"] == "cancelled"


@pytest.mark.parametrize(
    "note",
    [
        a_note("113000", ONE, TWO),
        a_note("113001", ONE, TWO, scheme="99DCM"),
        a_note("113001", ONE, TWO, study=STUDY + ".5"),
        a_note("113001", "1.2.3"),
        a_note("113001"),
    ],
)
def test_what_rejects_nothing_here_changes_nothing(note: Headers) -> None:
    result = translated(*IMAGES, note)
    assert study_of(result)["numberOfInstances"] == 3
    assert not remarked(result)


def test_instances_taken_back_for_the_wrong_patient_do_not_make_the_study_ambiguous() -> None:
    wrong = headers(instance=1, PatientID="OTHER")
    result = translated(wrong, headers(instance=2), a_note("113037", ONE))
    assert patient_of(result)["identifier"][0]["value"] == "P1"
