from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from bridge.errors import SourceUnavailable, StateUnavailable
from bridge.model import Rejection
from bridge.ports import ChangePage
from bridge.sources.association import file_prefix
from bridge.sources.services import CommandField, Request, Response, Status
from bridge.sources.spool import Spool, intact
from bridge.sources.storage_commitment import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE, StorageCommitment
from tests.builders import STUDY, a_dataset, as_file
from tests.unit.test_procedure_step import item

CT = "1.2.840.10008.5.1.4.1.1.2"
DAY = 86_400.0


def reference(instance: str, sop_class: str = CT) -> Dataset:
    return item(ReferencedSOPClassUID=sop_class, ReferencedSOPInstanceUID=instance)


class Rig:
    """A spool with objects, a service without its thread, and a peer that remembers what it was told."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder, self.settings = folder, settings
        self.spool, self.files = Spool(folder), dict[str, list[Path]]()
        self.now, self.down, self.answer = 1e9, False, 0
        self.told: list[tuple[int, Dataset]] = []
        self.rejected, self.accepted = list[Rejection](), list[str]()
        self.replayed: list[str] = []
        self.peers: dict[str, Callable[[int, Dataset], int]] = {"CT1": self.report}
        self.restart()

    def restart(self) -> None:
        defaults = {"retry_first_s": 0.0}
        self.service = StorageCommitment(
            self.folder, self.held, self.peers, self.store, lambda: self.now,
            replayed=lambda: self.replayed, **(defaults | self.settings),
        )  # fmt: skip

    def held(self, uids: Sequence[str]) -> dict[str, list[Path]]:
        return {uid: self.files[uid] for uid in uids if uid in self.files}

    def report(self, event_type: int, data_set: Dataset) -> int:
        if self.down:
            raise SourceUnavailable("CT1 cannot be reached")
        self.told.append((event_type, data_set))
        return self.answer

    def store(self, page: ChangePage) -> None:
        self.rejected += page.rejected
        self.accepted += page.accepted

    def keep(self, instance: int = 1, **attributes: Any) -> str:
        """One object in the spool as the receiver keeps it; its SOP Instance UID."""
        dataset = a_dataset(instance=instance, **attributes)
        content = as_file(dataset)
        data = content[144 + int.from_bytes(content[140:144], "little") :]
        part = self.spool.part()
        part.write_bytes(file_prefix(CT, dataset.SOPInstanceUID, dataset.file_meta.TransferSyntaxUID, "CT1") + data)
        digest = hashlib.sha256(data).hexdigest()
        kept = self.spool.keep(part, STUDY, dataset.SOPInstanceUID, digest)
        self.files.setdefault(dataset.SOPInstanceUID, []).append(kept.path)
        return str(dataset.SOPInstanceUID)

    def ask(self, *items: Dataset, transaction: str = "1.2.77", caller: str = "CT1", **changed: Any) -> Response:
        values = {"TransactionUID": transaction, "ReferencedSOPSequence": list(items)} | changed
        data_set = item(**{k: v for k, v in values.items() if v is not None})
        return self.act(data_set, caller=caller)

    def act(
        self,
        data_set: Dataset | None,
        field: CommandField = CommandField.N_ACTION,
        uid: str = STORAGE_COMMITMENT_INSTANCE,
        action: int = 1,
        caller: str = "CT1",
    ) -> Response:
        asked = Request(field, STORAGE_COMMITMENT, uid, caller, "BRIDGE", "127.0.0.1", action, data_set=data_set)
        return self.service.handle(asked)

    def failures(self) -> dict[str, int]:
        sequence = self.told[-1][1].get("FailedSOPSequence") or []
        return {i.ReferencedSOPInstanceUID: i.FailureReason for i in sequence}

    def committed(self) -> list[str]:
        return [i.ReferencedSOPInstanceUID for i in self.told[-1][1].get("ReferencedSOPSequence") or []]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    yield Rig(tmp_path)


def test_what_is_here_is_committed(rig: Rig) -> None:
    uids = [rig.keep(n) for n in (1, 2)]
    assert rig.ask(*map(reference, uids)).status == 0
    assert rig.told == []
    rig.service.report_due()
    ((event_type, data_set),) = rig.told
    assert (event_type, data_set.TransactionUID, rig.committed()) == (1, "1.2.77", uids)
    assert "FailedSOPSequence" not in data_set
    assert "RetrieveAETitle" not in data_set
    rig.service.report_due()
    rig.restart()
    rig.service.report_due()
    assert len(rig.told) == 1


def test_what_is_not_here_or_of_another_class_or_damaged_is_told_apart(rig: Rig) -> None:
    whole, other, damaged, short, gone = (rig.keep(n) for n in range(1, 6))
    (path,), (cut,), (removed,) = rig.files[damaged], rig.files[short], rig.files[gone]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # the last byte of the pixel data: the headers are fine
    path.write_bytes(content)
    cut.write_bytes(cut.read_bytes()[:-2])
    removed.unlink()
    items = [reference(u) for u in (whole, damaged, short, gone, "1.2.3.404")] + [reference(other, CT + ".1")]
    assert rig.ask(*items).status == 0
    rig.service.report_due()
    assert rig.told[0][0] == 2
    assert rig.committed() == [whole]
    assert rig.failures() == {damaged: 0x0110, short: 0x0110, gone: 0x0112, "1.2.3.404": 0x0112, other: 0x0119}


def test_one_unharmed_file_of_several_is_enough(rig: Rig) -> None:
    uid = rig.keep()
    rig.keep(StudyDescription="other content")
    rig.files[uid][0].write_bytes(b"")
    rig.ask(reference(uid))
    rig.service.report_due()
    assert rig.committed() == [uid]


def test_intact_reads_to_the_last_byte(rig: Rig) -> None:
    (path,) = rig.files[rig.keep()]
    assert intact(path)
    path.write_bytes(path.read_bytes() + b"\0")
    assert not intact(path)


def test_a_transaction_survives_a_kill_between_the_answer_and_the_report(rig: Rig) -> None:
    rig.ask(reference(rig.keep()))
    rig.restart()
    rig.service.report_due()
    assert rig.told[0][0] == 1


def test_the_same_request_again_is_one_transaction_and_another_under_its_uid_is_refused(rig: Rig) -> None:
    one, two = rig.keep(1), rig.keep(2)
    assert [rig.ask(reference(one)).status, rig.ask(reference(one)).status] == [0, 0]
    assert rig.ask(reference(two)).status == Status.PROCESSING_FAILURE
    rig.service.report_due()
    assert len(rig.told) == 1


def test_two_peers_with_one_transaction_uid_are_told_each_their_own(rig: Rig) -> None:
    told: list[int] = []

    def mr(event_type: int, _data_set: Dataset) -> int:
        told.append(event_type)
        return 0

    rig.peers["MR1"] = mr
    rig.restart()
    rig.ask(reference(rig.keep()))
    rig.ask(reference("1.2.3.404"), caller="MR1")
    rig.service.report_due()
    assert (rig.told[0][0], told) == (1, [2])


def test_a_peer_that_is_away_is_told_later_what_is_true_then(rig: Rig) -> None:
    rig.down = True
    uid = rig.keep()
    rig.ask(reference(uid))
    rig.service.report_due()
    rig.files[uid][0].unlink()
    rig.down = False
    rig.service.report_due()
    assert rig.failures() == {uid: 0x0112}
    assert rig.rejected == []


def test_retries_wait_longer_each_time(tmp_path: Path) -> None:
    rig = Rig(tmp_path, retry_first_s=1000.0)
    rig.down = True
    rig.ask(reference(rig.keep()))
    rig.service.report_due()
    rig.down = False
    rig.service.report_due()
    assert rig.told == []


@pytest.mark.parametrize("answer", [0x0110, 0x0112, 0xC000])
def test_a_peer_that_refuses_for_days_is_shown_and_told_when_it_is_replayed(rig: Rig, answer: int) -> None:
    rig.answer = answer
    uid = rig.keep()
    rig.ask(reference(uid))
    rig.service.report_due()
    assert rig.rejected == []
    rig.now += 8 * DAY
    rig.service.report_due()
    (rejection,) = rig.rejected
    assert f"{answer:04X}" in rejection.error
    assert rejection.evidence == {"ae_title": "CT1", "transaction_uid": "1.2.77", "instances": 1}
    tries = len(rig.told)
    rig.service.report_due()
    assert len(rig.told) == tries
    rig.answer, rig.replayed = 0, [rejection.key]
    rig.service.report_due()
    assert len(rig.told) == tries + 1
    assert rig.accepted == [rejection.key]


def test_a_warning_of_the_peer_is_a_success(rig: Rig) -> None:
    rig.answer = 0xB000
    rig.ask(reference(rig.keep()))
    rig.service.report_due()
    rig.service.report_due()
    assert len(rig.told) == 1


def test_a_peer_without_an_address_is_shown_and_told_once_it_has_one(rig: Rig) -> None:
    assert rig.ask(reference(rig.keep()), caller="UNKNOWN").status == 0
    rig.service.report_due()
    (rejection,) = rig.rejected
    assert "peers" in rejection.error
    assert rejection.evidence["ae_title"] == "UNKNOWN"
    rig.peers["UNKNOWN"] = rig.report
    rig.restart()
    rig.service.report_due()
    assert rig.told[0][0] == 1
    assert rig.accepted == [rejection.key]


def test_a_source_that_cannot_say_what_it_holds_says_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def behind(_uids: Sequence[str]) -> dict[str, list[Path]]:
        raise SourceUnavailable("the index lies behind")

    rig.ask(reference(rig.keep()))
    with monkeypatch.context() as patched:
        patched.setattr(rig.service, "_held", behind)
        rig.service.report_due()
    assert rig.told == []
    rig.service.report_due()
    assert rig.told[0][0] == 1


def test_a_bug_met_by_one_transaction_stops_no_other(rig: Rig) -> None:
    def broken(_event_type: int, _data_set: Dataset) -> int:
        raise ZeroDivisionError

    rig.peers["BAD"] = broken
    rig.restart()
    rig.ask(reference("1.2.3.1"), caller="BAD")
    rig.ask(reference(rig.keep()))
    rig.service.report_due()
    assert rig.told[0][0] == 1


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize(
    "changed",
    [
        {"TransactionUID": None},
        {"TransactionUID": ""},
        {"TransactionUID": "x"},
        {"ReferencedSOPSequence": None},
        {"ReferencedSOPSequence": []},
        {"ReferencedSOPSequence": [Dataset()]},
        {"ReferencedSOPSequence": [item(ReferencedSOPClassUID=CT)]},
    ],
)
def test_a_request_that_is_not_as_it_must_be_is_refused(rig: Rig, changed: dict[str, Any]) -> None:
    response = rig.ask(**changed)
    assert response.status == Status.INVALID_ARGUMENT_VALUE
    assert "UID" in response.comment or "Sequence" in response.comment
    rig.service.report_due()
    assert rig.told == []


def test_only_the_well_known_instance_and_the_request_action_are_served(rig: Rig) -> None:
    assert rig.act(None, CommandField.N_CREATE).status == Status.UNRECOGNIZED_OPERATION
    assert rig.act(None, uid="1.2.3").status == Status.NO_SUCH_SOP_INSTANCE
    assert rig.act(None, action=2).status == Status.NO_SUCH_ACTION
    assert rig.act(None).status == Status.INVALID_ARGUMENT_VALUE


def test_requests_and_what_waits_are_bounded(tmp_path: Path) -> None:
    rig = Rig(tmp_path, maximum_items=2, maximum_pending=2)
    three = [reference(f"1.2.{n}") for n in range(3)]
    assert rig.ask(*three).status == Status.RESOURCE_LIMITATION
    rig.ask(*three[:1], transaction="1.2.1", caller="UNKNOWN")
    rig.ask(*three[:1], transaction="1.2.2")
    assert rig.ask(*three[:1], transaction="1.2.3").status == Status.RESOURCE_LIMITATION
    rig.down = True
    rig.service.report_due()
    assert rig.ask(*three[:1], transaction="1.2.3").status == 0  # the one that waits for a person made room
    assert len(rig.rejected) == 1
    assert rig.ask(*three[:1], transaction="1.2.4").status == Status.RESOURCE_LIMITATION


def test_a_state_that_cannot_answer_is_shown_the_rejection_later(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(_page: ChangePage) -> None:
        raise StateUnavailable("state: the database cannot answer now")

    rig.ask(reference("1.2.3"), caller="UNKNOWN")
    with monkeypatch.context() as patched:
        patched.setattr(rig.service, "_store", locked)
        rig.service.report_due()
    assert rig.rejected == []
    rig.service.report_due()
    assert len(rig.rejected) == 1


def test_where_objects_can_be_retrieved_is_told_if_they_can(tmp_path: Path) -> None:
    rig = Rig(tmp_path, retrieve_ae_title="ARCHIVE")
    rig.ask(reference(rig.keep()))
    rig.service.report_due()
    assert rig.told[0][1].RetrieveAETitle == "ARCHIVE"
