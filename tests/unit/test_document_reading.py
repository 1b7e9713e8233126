"""Bringing documents from archives: bounded, followed, parked one by one, and never in the way of anything else."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread

from bridge.document_process import DocumentProcesses, ReadingLimits
from bridge.document_reading import MOST_DOCUMENTS, MOST_ENDED, bring
from bridge.documents.objects import MOST_BYTES, kept_part
from bridge.errors import InvalidFile, ReadingEnded, SourceUnavailable
from bridge.model import InstanceName
from bridge.state import State
from bridge.translate.headers import Headers
from tests import other_documents as others
from tests.archive_fake import FakeArchive
from tests.builders import STUDY, headers
from tests.segmentations import a_segmentation
from tests.sr_documents import SEG_UID, SR_UID, a_document, as_bytes, planar
from tests.unit.test_sync import Rig

SR_NAME = InstanceName(STUDY, f"{STUDY}.900", SR_UID, "1.2.840.10008.5.1.4.1.1.88.34")


class GivingArchive(FakeArchive):
    """An archive that gives objects; `objects` by SOP Instance UID, or what it answers instead."""

    gives_objects = True

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.objects: dict[str, bytes | Exception] = {}
        self.asked: list[str] = []

    def instance(self, name: InstanceName, most_bytes: int) -> bytes | None:
        self.asked.append(name.sop_instance_uid)
        found = self.objects.get(name.sop_instance_uid)
        if isinstance(found, Exception):
            raise found
        return None if found is None else found[:most_bytes]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    state = State(f"sqlite:///{tmp_path / 's.sqlite'}")
    yield state
    state.close()


@pytest.fixture
def rig(state: State) -> Rig:
    rig = Rig(state)
    rig.a, rig.b = GivingArchive("a"), GivingArchive("b")
    rig.pipeline.sources = {"a": rig.a, "b": rig.b}
    return rig


def put(archive: FakeArchive, *contents: bytes, image: bool = True) -> None:

    assert isinstance(archive, GivingArchive)
    found = [headers()] if image else []
    for content in contents:
        dataset = dcmread(BytesIO(content), stop_before_pixels=True)
        archive.objects[dataset.SOPInstanceUID] = content
        found.append(Headers.from_dataset(dataset))
    archive.put(*found)


def asked(archive: FakeArchive) -> list[str]:
    assert isinstance(archive, GivingArchive)
    return archive.asked


def reports(rig: Rig) -> list[str]:
    found = rig.state.study_resources(STUDY)
    return [r.content["status"] for r in found if r.resource_type == "DiagnosticReport" and r.content]


def test_images_are_not_asked_for(rig: Rig) -> None:
    put(rig.a, as_bytes(a_document(planar())))
    rig.run()
    assert asked(rig.a) == [SR_UID]
    assert reports(rig) == ["preliminary"]


def test_a_source_that_does_not_answer_holds_up_its_documents_alone(rig: Rig) -> None:
    put(rig.a, as_bytes(a_document(planar())))
    rig.a.objects[SR_UID], content = SourceUnavailable("source a: down"), rig.a.objects[SR_UID]  # type: ignore[attr-defined]
    put(rig.b, as_bytes(others.a_pdf()))
    rig.run()
    assert rig.study()["numberOfInstances"] == 3
    assert reports(rig) == ["preliminary"]
    assert not rig.state.items(parked=True)
    rig.a.objects[SR_UID] = content  # type: ignore[attr-defined]
    rig.run(600)
    assert reports(rig) == ["preliminary", "preliminary"]


def test_one_that_cannot_be_given_is_parked_with_its_evidence_and_tried_again(rig: Rig) -> None:
    content = as_bytes(a_document(planar()))
    put(rig.a, content)
    rig.a.objects[SR_UID] = InvalidFile("the archive does not give this object: HTTP 500")  # type: ignore[attr-defined]
    rig.run()
    (item,) = rig.state.items(parked=True)
    assert (item.queue, item.evidence["sop_instance_uid"]) == ("instance", SR_UID)
    assert "HTTP 500" in item.error
    rig.a.objects[SR_UID] = content  # type: ignore[attr-defined]
    rig.state.replay(item.queue, item.key, rig.now)
    rig.run()
    assert not rig.state.items(parked=True)
    assert reports(rig) == ["preliminary"]


def test_a_document_in_two_archives_is_one_and_stays_while_one_has_it(rig: Rig) -> None:
    content = as_bytes(a_document(planar()))
    put(rig.a, content)
    put(rig.b, content)
    rig.run()
    assert reports(rig) == ["preliminary"]
    rig.a.studies.clear()
    rig.a.log.append(STUDY)
    rig.run()
    assert reports(rig) == ["preliminary"]
    rig.b.studies.clear()
    rig.b.log.append(STUDY)
    rig.run()
    assert reports(rig) == ["entered-in-error"]


def test_an_archive_that_gives_no_objects_is_not_asked(state: State) -> None:
    rig = Rig(state)
    rig.a.put(headers(), headers(series=900, SOPClassUID=SR_NAME.sop_class_uid, SOPInstanceUID=SR_UID, Modality="SR"))
    rig.run()
    assert state.documents(STUDY) == ()
    assert not state.items(parked=True)


def test_more_documents_than_are_read_are_told(state: State) -> None:
    archive = GivingArchive("a")
    many = [
        headers(series=9, instance=n, SOPClassUID=SR_NAME.sop_class_uid, Modality="SR")
        for n in range(MOST_DOCUMENTS + 2)
    ]
    brought = bring(state, {"a": archive}, STUDY, {"a": many}, 0.0)
    assert len(archive.asked) == MOST_DOCUMENTS
    (rejection,) = brought.rejected
    assert rejection.evidence == {"documents": MOST_DOCUMENTS + 2}


def test_what_is_cut_off_and_what_is_another_object_are_refused() -> None:
    content = as_bytes(a_document(planar()))
    assert kept_part(content, SR_NAME) == content
    for damaged, why in (
        (content[:-100], "truncated"),
        (content[: len(content) // 2], "truncated"),
        (b"PDF", "no DICM marker"),
        (b"\0" * 128 + b"DICM", "StudyInstanceUID"),
    ):
        with pytest.raises(InvalidFile, match=why):
            kept_part(damaged, SR_NAME)
    with pytest.raises(InvalidFile, match="SOPInstanceUID"):
        kept_part(content, InstanceName(STUDY, "1.2", "1.2.3", SR_NAME.sop_class_uid))


def test_a_document_larger_than_is_read_is_refused_and_a_segmentation_read_to_its_pixels() -> None:
    content = as_bytes(a_document(planar()))
    padding = b"\xfc\xff\xfc\xffOB\0\0" + (MOST_BYTES).to_bytes(4, "little") + b"\0" * MOST_BYTES
    with pytest.raises(InvalidFile, match="larger than"):
        kept_part((content + padding)[:MOST_BYTES], SR_NAME)
    segmentation = as_bytes(a_segmentation())
    name = InstanceName(STUDY, f"{STUDY}.800", SEG_UID, "1.2.840.10008.5.1.4.1.1.66.4")
    assert len(kept_part((segmentation + b"\0" * MOST_BYTES)[:MOST_BYTES], name)) < len(segmentation)


def test_what_hangs_is_parked_the_rest_goes_on_and_a_replay_tries_again(rig: Rig) -> None:
    processes = DocumentProcesses(1, ReadingLimits(deadline_s=1.5), module="tests.hanging_worker")
    rig.pipeline.keep = processes.kept_part
    hangs = as_bytes(a_document(planar(), SeriesDescription="HANG"))
    put(rig.a, hangs, as_bytes(others.a_pdf()))
    rig.run()
    assert rig.study()["numberOfInstances"] == 3
    assert reports(rig) == ["preliminary"]
    (item,) = rig.state.items(parked=True)
    assert (item.queue, item.evidence["sop_instance_uid"]) == ("instance", SR_UID)
    assert item.error == "the document cannot be read: reading it took longer than 1.5 s and was ended"
    rig.a.objects[SR_UID] = hangs.replace(b"HANG", b"WELL")  # type: ignore[attr-defined]
    rig.state.replay(item.queue, item.key, rig.now)
    rig.run()
    assert not rig.state.items(parked=True)
    assert reports(rig) == ["preliminary", "preliminary"]
    processes.close()


def test_a_study_of_many_that_hang_holds_up_others_for_some_of_them_and_comes_to_all(state: State) -> None:
    archive, tried = GivingArchive("a"), list[str]()

    def keep(content: bytes, name: InstanceName) -> bytes:
        tried.append(name.sop_instance_uid)
        if content == b"hangs":
            raise ReadingEnded("it took too long")
        return content

    many = [headers(series=9, instance=n, SOPClassUID=SR_NAME.sop_class_uid, Modality="SR") for n in range(1, 9)]
    uids = [one.text("SOPInstanceUID") for one in many]
    archive.objects = dict.fromkeys(uids, b"hangs") | {uids[0]: b"well", uids[7]: b"well"}
    kept = set[str]()
    for now in range(8):
        before = len(tried)
        brought = bring(state, {"a": archive}, STUDY, {"a": many}, float(now), keep)
        kept |= {one.name.sop_instance_uid for one in brought.documents}
        assert sum(archive.objects[uid] == b"hangs" for uid in tried[before:]) == MOST_ENDED
        assert len(brought.rejected) + len(brought.documents) == len(many)
        assert any("another look" in one.error for one in brought.rejected)
    assert kept == {uids[0], uids[7]}


def test_a_process_that_cannot_be_begun_holds_up_documents_until_it_can(rig: Rig) -> None:
    processes = DocumentProcesses(1, module="tests.no_such_module")
    rig.pipeline.keep = processes.kept_part
    put(rig.a, as_bytes(a_document(planar())))
    rig.run(2)
    rig.now += 5
    rig.pipeline.translate("w")
    assert rig.study()["numberOfInstances"] == 2
    assert not rig.state.items(parked=True)
    rig.pipeline.keep = kept_part
    rig.run(600)
    assert reports(rig) == ["preliminary"]
