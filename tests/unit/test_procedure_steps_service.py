from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from bridge.errors import SourceUnavailable, StateUnavailable
from bridge.ports import ChangePage
from bridge.sources.procedure_step import PERFORMED_PROCEDURE_STEP, ProcedureSteps
from bridge.sources.services import CommandField, Request, Response, Status
from bridge.translate.procedure_step import ProcedureStep, ProcedureStepStatus
from tests.builders import STUDY
from tests.unit.test_procedure_step import item, scheduled

DAY = 86_400.0
OTHER = "1.2.9"


def created(**attributes: Any) -> Dataset:
    """What an N-CREATE says; an attribute given as None is left out."""
    values: dict[str, Any] = {
        "PatientID": "P1",
        "PatientName": "Test^Eva",
        "Modality": "CT",
        "PerformedProcedureStepID": "S1",
        "PerformedStationAETitle": "CT1",
        "PerformedProcedureStepStartDate": "20240301",
        "PerformedProcedureStepStartTime": "0915",
        "PerformedProcedureStepStatus": "IN PROGRESS",
        "ScheduledStepAttributesSequence": [scheduled()],
    } | attributes
    return item(**{k: v for k, v in values.items() if v is not None})


class Rig:
    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder, self.settings = folder, settings
        self.now, self.down = 1e9, False
        self.marked: list[str] = []
        self.restart()

    def restart(self) -> None:
        self.service = ProcedureSteps(self.folder, self.store, lambda: self.now, **self.settings)

    def store(self, page: ChangePage) -> None:
        if self.down:
            raise StateUnavailable("state: the database cannot answer now")
        self.marked += sorted(page.studies)

    def send(self, field: CommandField, uid: str, data_set: Dataset | None) -> Response:
        return self.service.handle(
            Request(field, PERFORMED_PROCEDURE_STEP, uid, "CT1", "BRIDGE", "127.0.0.1", data_set=data_set)
        )

    def create(self, uid: str = "1.2.3.1", **attributes: Any) -> int:
        return self.send(CommandField.N_CREATE, uid, created(**attributes)).status

    def set(self, uid: str = "1.2.3.1", status: str | None = "COMPLETED", **attributes: Any) -> int:
        values = {"PerformedProcedureStepStatus": status} if status is not None else {}
        return self.send(CommandField.N_SET, uid, item(**values, **attributes)).status

    def steps(self, study: str = STUDY) -> tuple[ProcedureStep, ...]:
        return self.service.of_study(study)

    def statuses(self, study: str = STUDY) -> list[str]:
        return [s.status.value for s in self.steps(study)]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    yield Rig(tmp_path)


@pytest.mark.parametrize("final", ["COMPLETED", "DISCONTINUED"])
def test_a_step_goes_from_in_progress_to_its_end_and_marks_its_study_each_time(rig: Rig, final: str) -> None:
    assert rig.create() == 0
    assert (rig.statuses(), rig.marked) == (["IN PROGRESS"], [STUDY])
    assert rig.set(status=final) == 0
    assert (rig.statuses(), rig.marked) == ([final], [STUDY, STUDY])


def test_a_step_survives_a_restart(rig: Rig) -> None:
    rig.create()
    rig.restart()
    assert rig.statuses() == ["IN PROGRESS"]
    assert rig.set() == 0
    rig.restart()
    assert rig.statuses() == ["COMPLETED"]
    assert rig.steps()[0].headers.text("PatientID") == "P1"


def test_one_step_may_name_several_studies(rig: Rig) -> None:
    rig.create(ScheduledStepAttributesSequence=[scheduled(), scheduled(OTHER), scheduled()])
    assert rig.marked == sorted({STUDY, OTHER})
    assert rig.statuses() == rig.statuses(OTHER) == ["IN PROGRESS"]


def test_a_step_without_an_instance_uid_gets_one(rig: Rig) -> None:
    response = rig.send(CommandField.N_CREATE, "", created())
    assert response.status == 0
    assert rig.set(response.sop_instance_uid) == 0


def test_a_step_that_exists_is_not_created_again(rig: Rig) -> None:
    rig.create()
    assert rig.create(Modality="MR") == Status.DUPLICATE_SOP_INSTANCE
    assert rig.steps()[0].headers.text("Modality") == "CT"


def test_a_step_that_is_not_known_cannot_be_set(rig: Rig) -> None:
    assert rig.set("1.2.3.9") == Status.NO_SUCH_SOP_INSTANCE
    assert rig.marked == []


def test_a_step_that_ended_stays_as_it_is_and_its_sender_is_told_why(rig: Rig) -> None:
    rig.create()
    rig.set(status="DISCONTINUED")
    data_set = item(PerformedProcedureStepStatus="COMPLETED")
    response = rig.send(CommandField.N_SET, "1.2.3.1", data_set)
    assert (response.status, response.error_id) == (Status.PROCESSING_FAILURE, 0xA710)
    assert response.comment == "Performed Procedure Step Object may no longer be updated"
    assert rig.statuses() == ["DISCONTINUED"]


@pytest.mark.parametrize(
    "keyword",
    [
        "PerformedProcedureStepID", "PerformedStationAETitle", "PerformedProcedureStepStartDate",
        "PerformedProcedureStepStartTime", "PerformedProcedureStepStatus", "Modality",
        "ScheduledStepAttributesSequence",
    ],
)  # fmt: skip
def test_what_must_be_there_is_named_when_it_is_absent_or_empty(rig: Rig, keyword: str) -> None:
    for value, status in ((None, 0x0120), ([] if keyword.endswith("Sequence") else "", 0x0121)):
        response = rig.send(CommandField.N_CREATE, "1.2.3.1", created(**{keyword: value}))
        assert response.status == status
        assert keyword in response.comment
    assert rig.steps() == ()


def test_every_scheduled_step_names_a_study(rig: Rig) -> None:
    assert rig.create(ScheduledStepAttributesSequence=[scheduled(), item(AccessionNumber="A")]) == 0x0120
    assert rig.create(ScheduledStepAttributesSequence=[scheduled("")]) == 0x0121
    assert rig.send(CommandField.N_CREATE, "1.2.3.1", None).status == 0x0120


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
@pytest.mark.parametrize("status", ["COMPLETED", "DISCONTINUED", "in progress", "NEW"])
def test_a_step_begins_in_progress(rig: Rig, status: str) -> None:
    assert rig.create(PerformedProcedureStepStatus=status) == Status.INVALID_ATTRIBUTE_VALUE


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_what_is_no_uid_is_refused(rig: Rig) -> None:
    assert rig.create(ScheduledStepAttributesSequence=[scheduled("../x")]) == Status.INVALID_ATTRIBUTE_VALUE
    assert rig.create("../x") == Status.INVALID_ATTRIBUTE_VALUE
    rig.create()
    assert rig.set(status="OVER") == Status.INVALID_ATTRIBUTE_VALUE
    assert rig.set(status="") == 0x0121
    assert rig.statuses() == ["IN PROGRESS"]


def test_other_operations_are_not_recognized(rig: Rig) -> None:
    assert rig.send(CommandField.N_GET, "1.2.3.1", None).status == Status.UNRECOGNIZED_OPERATION


def test_a_set_changes_what_it_may_and_nothing_else(rig: Rig) -> None:
    code = item(CodeValue="1", CodingSchemeDesignator="L", CodeMeaning="m")
    rig.create(PerformedProcedureStepDescription="first", ProcedureCodeSequence=[code])
    rig.set(
        status=None,
        PerformedProcedureStepDescription="",
        ProcedureCodeSequence=[code, code],
        PatientID="P2",
        ScheduledStepAttributesSequence=[scheduled(OTHER)],
    )
    (step,) = rig.steps()
    assert step.status is ProcedureStepStatus.IN_PROGRESS
    assert step.headers.text("PerformedProcedureStepDescription") == ""
    assert len(step.headers.items_of("ProcedureCodeSequence")) == 2
    assert step.headers.text("PatientID") == "P1"
    assert rig.steps(OTHER) == ()


def test_a_state_that_cannot_answer_is_told_later_even_after_a_crash(rig: Rig) -> None:
    rig.down = True
    assert rig.create() == 0
    rig.restart()
    rig.service.catch_up()
    assert rig.marked == []
    rig.down = False
    rig.service.catch_up()
    rig.service.catch_up()
    assert rig.marked == [STUDY]


def test_steps_that_nobody_touched_for_long_are_forgotten_and_their_studies_read_again(rig: Rig) -> None:
    rig.create()
    rig.create("1.2.3.2", ScheduledStepAttributesSequence=[scheduled(OTHER)])
    rig.now += 20 * DAY
    rig.set()
    rig.marked.clear()
    rig.now += 15 * DAY
    rig.service.catch_up()
    assert (rig.statuses(), rig.statuses(OTHER), rig.marked) == (["COMPLETED"], [], [OTHER])
    rig.restart()
    assert rig.statuses(OTHER) == []
    rig.now += 16 * DAY
    rig.service.catch_up()
    assert rig.steps() == ()


def test_steps_and_what_they_say_are_bounded(tmp_path: Path) -> None:
    rig = Rig(tmp_path, maximum_steps=2)
    many = [scheduled(f"1.2.{n}") for n in range(200)]
    assert rig.create(ScheduledStepAttributesSequence=many) == Status.RESOURCE_LIMITATION
    assert rig.create("1.2.3.1") == rig.create("1.2.3.2") == 0
    with pytest.raises(SourceUnavailable, match="too many"):
        rig.create("1.2.3.3")
    with pytest.raises(SourceUnavailable, match="too large"):
        rig.set(status=None, ProcedureCodeSequence=[item(CodeMeaning="x" * 60) for _ in range(5000)])
    assert rig.set() == 0


def test_a_disk_that_refuses_is_told(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("bridge.sources.documents.os.fsync", full)
        with pytest.raises(SourceUnavailable, match="No space left"):
            rig.create()
    assert rig.steps() == ()
    assert rig.create() == 0


def test_any_order_and_number_of_messages_leaves_the_same_steps(tmp_path: Path) -> None:
    """Senders repeat until they are told success; whatever comes between, the end is the same."""
    ends = []
    for seed in range(6):
        rig, shuffle = Rig(tmp_path / str(seed)), random.Random(seed)
        messages = [(rig.create, {"uid": f"1.2.3.{n}"}) for n in range(3)]
        messages += [(rig.set, {"uid": f"1.2.3.{n}", "status": "COMPLETED" if n else "DISCONTINUED"}) for n in range(3)]
        while rig.statuses() != ["DISCONTINUED", "COMPLETED", "COMPLETED"]:
            send, arguments = shuffle.choice(messages)
            assert send(**arguments) in (0, 0x0111, 0x0112, 0x0110)
            if not shuffle.randrange(4):
                rig.restart()
        ends.append(rig.steps())
    assert all(end == ends[0] for end in ends)


def test_no_name_on_disk_and_no_comment_comes_from_the_message(rig: Rig) -> None:
    rig.create()
    names = [p.name for p in rig.folder.rglob("*")]
    assert not [n for n in names if "1.2.3" in n or STUDY in n]
    assert all(p.stat().st_mode & 0o077 == 0 for p in rig.folder.rglob("*"))
