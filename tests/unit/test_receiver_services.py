"""What a receiver's services do over real associations: pynetdicom asks, our receiver answers."""

from __future__ import annotations

import logging
import queue
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association

from bridge.errors import SourceUnavailable
from bridge.ports import ChangePage
from bridge.sources.association import _decoded, answer_at_once
from bridge.sources.availability import INSTANCE_AVAILABILITY, Availability
from bridge.sources.procedure_step import PERFORMED_PROCEDURE_STEP, ProcedureSteps
from bridge.sources.receiver import Receiver
from bridge.sources.storage_commitment import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE, StorageCommitment
from bridge.state import State
from tests.builders import STUDY, a_dataset
from tests.services.peers import free_port
from tests.unit.test_availability import notification
from tests.unit.test_procedure_step import item
from tests.unit.test_procedure_steps_service import created
from tests.unit.test_storage_commitment import CT, reference


class Rig:
    """A receiver with its three services, and a modality that asks and is told."""

    def __init__(self, folder: Path) -> None:
        self.state = State(f"sqlite:///{folder / 's.sqlite'}")
        self.port, self.modality_port = free_port(), free_port()
        self.told: queue.Queue[tuple[int, Dataset]] = queue.Queue()
        spool = folder / "spool"
        self.steps = ProcedureSteps(spool, self.store, lambda: 1e9)
        self.availability = Availability(spool, self.hint, self.store)
        self.commitment = StorageCommitment(
            spool, self.files, {"CT1": self.report}, self.store, lambda: 1e9, retry_first_s=0.05
        )
        self.receiver = Receiver(
            "rx", spool, self.state, self.store, lambda: 1e9, port=self.port, minimum_free_bytes=0,
            services=(self.steps, self.availability, self.commitment), procedure_steps=self.steps.of_study,
        )  # fmt: skip
        self.receiver.start()
        assert self.receiver.changes(None).caught_up
        self.commitment.start()

    def store(self, page: ChangePage) -> None:
        self.state.commit_page("rx", page, 1.0, 0, 0)

    def hint(self, ae_title: str, study: str) -> bool:
        if ae_title == "PACS":
            self.state.mark_studies("pacs", [study], 1.0)
        return ae_title == "PACS"

    def files(self, uids: Any) -> Any:
        return self.receiver.instance_files(uids)

    def report(self, event_type: int, data_set: Dataset) -> int:
        """Tells the modality on an association of its own, in the role of SCP."""
        entity = AE("BRIDGE")
        entity.add_requested_context(STORAGE_COMMITMENT)
        role = build_role(STORAGE_COMMITMENT, scp_role=True)
        association = entity.associate("127.0.0.1", self.modality_port, ext_neg=[role])
        assert association.is_established
        status, _ = association.send_n_event_report(
            data_set, event_type, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
        )
        association.release()
        return int(status.Status)

    def modality(self) -> AE:
        entity = AE("CT1")
        entity.add_supported_context(STORAGE_COMMITMENT, scu_role=False, scp_role=True)

        def event(event: evt.Event) -> tuple[int, None]:
            self.told.put((event.event_type, event.event_information))
            return 0, None

        entity.start_server(
            ("127.0.0.1", self.modality_port), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, event)]
        )
        return entity

    def associate(self, *abstract_syntaxes: str) -> Association:
        entity = AE("CT1")
        for syntax in abstract_syntaxes:
            entity.add_requested_context(syntax)
        association = entity.associate(
            "127.0.0.1", self.port, ae_title="BRIDGE", evt_handlers=[(evt.EVT_CONN_OPEN, answer_at_once)]
        )
        assert association.is_established
        return association

    def close(self) -> None:
        self.commitment.stop()
        self.receiver.stop()
        self.state.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def test_a_procedure_step_is_created_ended_and_read_with_its_study(rig: Rig) -> None:
    association = rig.associate(PERFORMED_PROCEDURE_STEP)
    status, _ = association.send_n_create(created(), PERFORMED_PROCEDURE_STEP, "1.2.3.1")
    assert status.Status == 0
    found = rig.receiver.read(STUDY)
    assert (found.instances, [s.status.value for s in found.procedure_steps]) == ((), ["IN PROGRESS"])
    assert [i.key for i in rig.state.items(queue="study")] == [STUDY]
    again, _ = association.send_n_create(created(), PERFORMED_PROCEDURE_STEP, "1.2.3.1")
    assert again.Status == 0x0111
    missing, _ = association.send_n_create(created(Modality=None), PERFORMED_PROCEDURE_STEP, "1.2.3.2")
    assert (missing.Status, missing.ErrorComment) == (0x0120, "Modality is missing")
    end = item(PerformedProcedureStepStatus="COMPLETED")
    statuses = [association.send_n_set(end, PERFORMED_PROCEDURE_STEP, uid)[0] for uid in ("1.2.3.1", "1.2.3.1", "1.9")]
    assert [s.Status for s in statuses] == [0, 0x0110, 0x0112]
    assert statuses[1].ErrorID == 0xA710
    association.release()
    assert [s.status.value for s in rig.receiver.read(STUDY).procedure_steps] == ["COMPLETED"]


def test_an_instance_availability_notification_marks_the_study_of_the_archive_it_names(rig: Rig) -> None:
    association = rig.associate(INSTANCE_AVAILABILITY)
    status, _ = association.send_n_create(notification(), INSTANCE_AVAILABILITY, "1.2.3.9")
    association.release()
    assert status.Status == 0
    assert rig.state.hinted(STUDY) == {"pacs": 1}


def test_a_modality_is_told_what_is_safe_and_what_is_not(rig: Rig) -> None:
    entity = rig.modality()
    association = rig.associate(CT, STORAGE_COMMITMENT)
    dataset = a_dataset()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"
    assert association.send_c_store(dataset).Status == 0
    items = [reference(str(dataset.SOPInstanceUID)), reference("1.2.3.404")]
    asked = item(TransactionUID="1.2.77", ReferencedSOPSequence=items)
    status, _ = association.send_n_action(asked, 1, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE)
    assert status.Status == 0
    event_type, data_set = rig.told.get(timeout=10)
    association.release()
    entity.shutdown()
    assert (event_type, data_set.TransactionUID) == (2, "1.2.77")
    assert [i.ReferencedSOPInstanceUID for i in data_set.ReferencedSOPSequence] == [dataset.SOPInstanceUID]
    assert [(i.ReferencedSOPInstanceUID, i.FailureReason) for i in data_set.FailedSOPSequence] == [
        ("1.2.3.404", 0x0112)
    ]


def test_what_a_crash_left_out_of_the_index_is_not_called_missing(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    association = rig.associate(CT)
    dataset = a_dataset()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"
    assert association.send_c_store(dataset).Status == 0
    association.release()
    assert rig.receiver.settled()
    rig.close()
    (tmp_path / "s.sqlite").rename(tmp_path / "lost.sqlite")
    state = State(f"sqlite:///{tmp_path / 'new.sqlite'}")
    receiver = Receiver(
        "rx", tmp_path / "spool", state, lambda page: state.commit_page("rx", page, 1.0, 0, 0), lambda: 1e9,
        port=free_port(), minimum_free_bytes=0,
    )  # fmt: skip
    receiver.start()
    uid = str(dataset.SOPInstanceUID)
    with pytest.raises(SourceUnavailable):
        receiver.instance_files([uid])
    page = receiver.changes(None)
    with pytest.raises(SourceUnavailable):
        receiver.instance_files([uid])
    state.commit_page("rx", page, 1.0, 0, 0)
    assert receiver.changes(page.position).caught_up
    assert len(receiver.instance_files([uid])[uid]) == 1
    receiver.stop()
    state.close()


@pytest.mark.parametrize("element", [(0x0018, 0x1152), (0x0008, 0x0018), (0x0010, 0x0020), (0x0010, 0x0030)])
def test_a_value_that_breaks_a_rule_is_read_and_quoted_nowhere(
    element: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    value = b"s3cret" * 20
    found = _decoded(struct.pack("<HHI", *element, len(value)) + value, "1.2.840.10008.1.2")
    assert [e.tag for e in found] == [element]
    assert "s3cret" not in caplog.text
