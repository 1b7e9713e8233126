from __future__ import annotations

import random
from typing import Any

import orjson
import pytest
from fhir.resources.R4B.imagingstudy import ImagingStudy
from pydicom.dataset import Dataset

from bridge.errors import RejectedInput
from bridge.model import Rejection, Resource, StudyResult
from bridge.translate.headers import Headers
from bridge.translate.identifiers import Issuers
from bridge.translate.procedure_step import ProcedureStep, ProcedureStepStatus
from tests.builders import STUDY, a_translator, headers

IN_PROGRESS, COMPLETED, DISCONTINUED = ProcedureStepStatus


def item(**attributes: Any) -> Dataset:
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def scheduled(study: str = STUDY, **attributes: Any) -> Dataset:
    defaults = {"AccessionNumber": "A1", "RequestedProcedureDescription": "CT chest"}
    return item(StudyInstanceUID=study, **(defaults | attributes))


def a_step(
    status: ProcedureStepStatus = IN_PROGRESS, uid: str = "1.2.3.1", *items: Dataset, **attributes: Any
) -> ProcedureStep:
    values: dict[str, Any] = {
        "PatientID": "P1",
        "PatientName": "Test^Eva",
        "Modality": "CT",
        "PerformedProcedureStepStartDate": "20240301",
        "PerformedProcedureStepStartTime": "0915",
        "TimezoneOffsetFromUTC": "+0100",
        "ScheduledStepAttributesSequence": list(items or (scheduled(),)),
    } | attributes
    return ProcedureStep(uid, status, Headers.from_dataset(item(**values)))


def told(*steps: ProcedureStep, previous: tuple[Resource, ...] = (), **site: Any) -> StudyResult:
    return a_translator(**site).without_instances(STUDY, previous, {"a": steps})


def the_study(result: StudyResult) -> dict[str, Any]:
    (found,) = (r for r in result.resources if r["resourceType"] == "ImagingStudy")
    ImagingStudy.model_validate(found)
    return found


def test_a_step_in_progress_registers_its_study_with_all_it_says() -> None:
    code = item(CodeValue="24627-2", CodingSchemeDesignator="LN", CodeMeaning="CT Chest")
    step = a_step(IN_PROGRESS, "1.2.3.1", scheduled(RequestedProcedureCodeSequence=[code]))
    result = told(step, issuers=Issuers({}, accession_system="http://h.example/acc"))
    study = the_study(result)
    assert study["status"] == "registered"
    assert [i["value"] for i in study["identifier"]] == [f"urn:oid:{STUDY}", "A1"]
    assert study["basedOn"][0]["identifier"]["system"] == "http://h.example/acc"
    assert study["started"] == "2024-03-01T09:15:00+01:00"
    assert study["description"] == "CT chest"
    assert study["modality"][0]["code"] == "CT"
    assert study["procedureCode"][0]["coding"][0]["code"] == "24627-2"
    assert (study["numberOfSeries"], study["numberOfInstances"]) == (0, 0)
    assert "endpoint" not in study and "series" not in study
    assert result.patient is not None and study["subject"]["reference"] == f"Patient/{result.patient['id']}"


def test_the_patient_and_the_study_have_the_ids_that_instances_give_them() -> None:
    announced, held = told(a_step()), a_translator().translate(STUDY, {"a": [headers()]})
    assert the_study(announced)["id"] == the_study(held)["id"]
    assert announced.patient_key == held.patient_key


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([COMPLETED], "registered"),
        ([DISCONTINUED], "cancelled"),
        ([DISCONTINUED, DISCONTINUED], "cancelled"),
        ([DISCONTINUED, IN_PROGRESS], "registered"),
        ([DISCONTINUED, COMPLETED], "registered"),
    ],
)
def test_a_study_is_cancelled_only_when_every_step_was(statuses: list[ProcedureStepStatus], expected: str) -> None:
    steps = [a_step(status, f"1.2.3.{n}") for n, status in enumerate(statuses)]
    assert the_study(told(*steps))["status"] == expected


def test_several_steps_of_one_study_give_its_earliest_start_and_every_accession_number() -> None:
    late = a_step(COMPLETED, "1.2.3.1", PerformedProcedureStepStartTime="1015", Modality="PT")
    early = a_step(COMPLETED, "1.2.3.2", scheduled(AccessionNumber="A2"))
    result = told(late, early)
    study = the_study(result)
    assert study["started"] == "2024-03-01T09:15:00+01:00"
    assert [i["value"] for i in study["identifier"][1:]] == ["A1", "A2"]
    assert [m["code"] for m in study["modality"]] == ["CT", "PT"]
    assert result.remarks == ()


def test_one_step_says_of_each_of_its_studies_only_what_concerns_it() -> None:
    step = a_step(IN_PROGRESS, "1.2.3.1", scheduled(), scheduled("1.2.9", AccessionNumber="A9"))
    assert [i["value"] for i in the_study(told(step))["identifier"]] == [f"urn:oid:{STUDY}", "A1"]
    other = a_translator().without_instances("1.2.9", (), {"a": (step,)})
    assert [i["value"] for i in the_study(other)["identifier"]] == ["urn:oid:1.2.9", "A9"]


def test_a_step_begun_for_the_wrong_patient_and_discontinued_says_nothing_beside_the_right_one() -> None:
    wrong = a_step(DISCONTINUED, "1.2.3.1", PatientID="P2")
    right = a_step(IN_PROGRESS, "1.2.3.2")
    result = told(wrong, right)
    assert result.patient_key == told(right).patient_key


def test_steps_that_name_different_patients_park_a_study_without_instances() -> None:
    with pytest.raises(RejectedInput, match="PatientID"):
        told(a_step(), a_step(IN_PROGRESS, "1.2.3.2", PatientID="P2"))


def test_instances_make_a_study_available_whatever_its_steps_say() -> None:
    translator = a_translator()
    alone = translator.translate(STUDY, {"a": [headers()]})
    for status in ProcedureStepStatus:
        assert translator.translate(STUDY, {"a": [headers()]}, steps={"b": (a_step(status),)}) == alone


def test_a_step_for_another_patient_is_remarked_and_the_images_stay() -> None:
    step = a_step(COMPLETED, PatientID="P2")
    result = a_translator().translate(STUDY, {"a": [headers()]}, steps={"a": (step,)})
    assert the_study(result)["status"] == "available"
    (remark,) = result.remarks
    assert remark.keyword == "PatientID"
    assert "P2" not in remark.problem


def test_a_study_whose_instances_are_gone_is_in_error_unless_every_step_was_discontinued() -> None:
    (held,) = a_translator().translate(STUDY, {"a": [headers()]}).resources
    for status, expected in (
        (IN_PROGRESS, "entered-in-error"),
        (COMPLETED, "entered-in-error"),
        (DISCONTINUED, "cancelled"),
    ):
        study = the_study(told(a_step(status), previous=(held,)))
        assert (study["status"], study["description"]) == (expected, "CT chest")
        assert "series" not in study


def test_what_was_announced_and_is_no_longer_is_unknown_and_what_was_cancelled_stays_so() -> None:
    registered, cancelled = the_study(told(a_step())), the_study(told(a_step(DISCONTINUED)))
    assert the_study(told(previous=(registered,)))["status"] == "unknown"
    assert the_study(told(previous=(cancelled,)))["status"] == "cancelled"
    unknown = the_study(told(previous=(registered,)))
    assert the_study(told(a_step(), previous=(unknown,)))["status"] == "registered"


def test_steps_that_name_another_study_announce_nothing() -> None:
    assert told(a_step(IN_PROGRESS, "1.2.3.1", scheduled("1.2.9"))).resources == ()


def test_of_one_step_known_to_two_sources_the_final_state_counts() -> None:
    translator = a_translator()
    for first, second in ((IN_PROGRESS, DISCONTINUED), (DISCONTINUED, IN_PROGRESS)):
        steps = {"a": (a_step(first),), "b": (a_step(second),)}
        assert the_study(translator.without_instances(STUDY, (), steps))["status"] == "cancelled"


def test_an_announced_study_is_the_same_whatever_the_order_of_its_steps() -> None:
    steps = [
        a_step(s, f"1.2.3.{n}", scheduled(AccessionNumber=f"A{n % 2}"), PerformedProcedureStepStartTime=f"1{n % 3}00")
        for n, s in enumerate([*ProcedureStepStatus] * 2)
    ]
    first = orjson.dumps(told(*steps).resources)
    for seed in range(5):
        random.Random(seed).shuffle(steps)
        assert orjson.dumps(told(*steps).resources) == first


def test_what_cannot_be_read_is_told_beside_an_announced_study_and_alone_parks_it() -> None:
    broken = [Rejection("a/1.dcm", "the file is truncated")]
    result = a_translator().without_instances(STUDY, (), {"a": (a_step(),)}, broken)
    assert result.rejected == tuple(broken)
    with pytest.raises(RejectedInput, match="truncated"):
        a_translator().without_instances(STUDY, (), {}, broken)


def test_a_step_survives_being_written_down() -> None:
    step = a_step(DISCONTINUED)
    assert ProcedureStep.from_json(orjson.loads(orjson.dumps(step.as_json()))) == step
