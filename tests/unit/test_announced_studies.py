from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from bridge.sources.procedure_step import PERFORMED_PROCEDURE_STEP
from bridge.state import State
from bridge.sync import Pipeline, Timing
from bridge.translate.procedure_step import ProcedureStepStatus
from tests.builders import STUDY, a_dataset, a_translator, headers
from tests.unit.test_procedure_step import a_step, item, scheduled
from tests.unit.test_procedure_steps_service import created
from tests.unit.test_receiver_services import Rig as ServicesRig
from tests.unit.test_storage_commitment import CT
from tests.unit.test_sync import Rig

IN_PROGRESS, COMPLETED, DISCONTINUED = ProcedureStepStatus


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    state = State(f"sqlite:///{tmp_path / 's.sqlite'}")
    yield Rig(state)
    state.close()


def test_a_study_is_registered_then_available_and_never_twice_the_same(rig: Rig) -> None:
    rig.a.announce(a_step(), STUDY)
    rig.run()
    assert (rig.study()["status"], rig.study()["version"]) == ("registered", 1)
    assert rig.ehr.newest()[STUDY].resources[-1].content["status"] == "registered"  # type: ignore[index]
    assert rig.lake.newest()[STUDY].rows["dicom_study"] == ()
    rig.a.put(headers(instance=1))
    rig.run()
    assert (rig.study()["status"], rig.study()["version"]) == ("available", 2)
    rig.a.announce(a_step(COMPLETED), STUDY)
    rig.run()
    assert (rig.study()["status"], rig.study()["version"]) == ("available", 2)


def test_a_study_whose_steps_were_all_discontinued_is_cancelled(rig: Rig) -> None:
    rig.a.announce(a_step(), STUDY)
    rig.run()
    rig.a.announce(a_step(DISCONTINUED), STUDY)
    rig.run()
    assert (rig.study()["status"], rig.study()["version"]) == ("cancelled", 2)


@pytest.mark.parametrize(("status", "expected"), [(COMPLETED, "entered-in-error"), (DISCONTINUED, "cancelled")])
def test_instances_that_are_gone_again_are_not_announced(rig: Rig, status: ProcedureStepStatus, expected: str) -> None:
    rig.a.announce(a_step(status), STUDY)
    rig.a.put(headers())
    rig.run()
    rig.a.studies.clear()
    rig.a.log.append(STUDY)
    rig.run()
    assert rig.study()["status"] == expected
    rig.a.log.append(STUDY)
    rig.run()
    assert (rig.study()["status"], rig.study()["version"]) == (expected, 2)


def test_steps_that_are_forgotten_leave_the_study_unknown(rig: Rig) -> None:
    rig.a.announce(a_step(), STUDY)
    rig.run()
    rig.a.steps.clear()
    rig.a.log.append(STUDY)
    rig.run()
    assert rig.study()["status"] == "unknown"


def test_an_announced_study_is_no_difference_to_a_sweep(rig: Rig) -> None:
    rig.a.announce(a_step(), STUDY)
    rig.run(3000)
    assert (rig.study()["status"], rig.study()["version"]) == ("registered", 1)


def test_steps_for_different_patients_park_until_images_tell(rig: Rig) -> None:
    rig.a.announce(a_step(), STUDY)
    rig.b.announce(a_step(IN_PROGRESS, "1.2.3.2", PatientID="P2"), STUDY)
    rig.run()
    assert [i.key for i in rig.state.items(queue="study", parked=True)] == [STUDY]
    rig.a.put(headers())
    rig.run()
    assert rig.study()["status"] == "available"
    assert rig.state.items(queue="study") == []
    assert rig.state.study_remarks(STUDY)[0]["keyword"] == "PatientID"  # type: ignore[index]


def test_an_archive_that_cannot_answer_does_not_hold_up_an_announcement(rig: Rig) -> None:
    rig.a.announce(a_step(), STUDY)
    rig.b.put(headers())
    rig.state.mark_studies("b", [STUDY], rig.now)
    rig.b.down = True
    rig.run()
    assert rig.study()["status"] == "registered"
    rig.b.down = False
    rig.run(600)
    assert rig.study()["status"] == "available"


OTHER = "1.2.826.0.1.3680043.9.2"
STEPS = (
    a_step(IN_PROGRESS, "1.2.3.1", scheduled(), scheduled(OTHER)),
    a_step(COMPLETED, "1.2.3.1", scheduled(), scheduled(OTHER)),
    a_step(DISCONTINUED, "1.2.3.2", scheduled(OTHER, AccessionNumber="A2")),
)


def happened(rig: Rig, shuffle: random.Random) -> list[dict[str, Any]]:
    """Everything that is said of both studies once all has come, in some order, some of it twice."""
    events: list[Callable[[], None]] = []
    events += [partial((rig.a, rig.b)[n % 2].put, headers(instance=n)) for n in range(1, 4)]
    events += [partial(rig.a.announce, step, STUDY, OTHER) for step in STEPS] * 2
    shuffle.shuffle(events)
    for event in events:
        event()
        if shuffle.randrange(2):
            rig.run()
    for step in STEPS[1:]:
        rig.a.announce(step, STUDY, OTHER)
    rig.run()
    return [r.content for uid in (STUDY, OTHER) for r in rig.state.study_resources(uid) if r.content is not None]


def test_whatever_comes_first_the_resources_are_the_same_at_the_end(tmp_path: Path) -> None:
    ends = set()
    for seed in range(3):
        state = State(f"sqlite:///{tmp_path / str(seed)}.sqlite")
        found = happened(Rig(state), random.Random(seed))
        assert [r["status"] for r in found if r["resourceType"] == "ImagingStudy"] == ["available", "registered"]
        ends.add(orjson.dumps(found))
        state.close()
    assert len(ends) == 1


def test_over_the_network_a_study_is_registered_then_available_then_stays_so(tmp_path: Path) -> None:
    from_modality = ServicesRig(tmp_path)
    pipeline = Pipeline(
        state=from_modality.state,
        sources={"rx": from_modality.receiver},
        sinks={},
        translator=a_translator(order=("rx",)),
        timing=Timing(quiet_s=0),
        clock=lambda: 1e9,
        random=lambda: 1.0,
    )

    def status() -> str:
        assert from_modality.receiver.settled()
        while pipeline.translate("w"):
            pass
        (found,) = [r for r in from_modality.state.study_resources(STUDY) if r.resource_type == "ImagingStudy"]
        assert found.content is not None
        return str(found.content["status"])

    association = from_modality.associate(PERFORMED_PROCEDURE_STEP, CT)
    association.send_n_create(created(), PERFORMED_PROCEDURE_STEP, "1.2.3.1")
    assert status() == "registered"
    dataset = a_dataset()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"
    assert association.send_c_store(dataset).Status == 0
    assert status() == "available"
    association.send_n_set(item(PerformedProcedureStepStatus="DISCONTINUED"), PERFORMED_PROCEDURE_STEP, "1.2.3.1")
    assert status() == "available"
    association.release()
    from_modality.close()
