"""SR documents of AI results on their way to archives: what is sent, once, and what an archive's words come to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom import Dataset, dcmread

from bridge.api.ai_results import Kept
from bridge.archiving.sender import DocumentSender
from bridge.archiving.stow import StowArchive
from bridge.archiving.verdict import verdict
from bridge.code_tables import code_tables
from bridge.errors import ProjectError, RefusedByServer, SinkUnavailable
from bridge.findings.contract import read_result
from bridge.findings.judgement import ReadersReport, Said, report_as_json
from bridge.findings.model import Presence
from bridge.findings.names import finding_names
from bridge.findings.review import Reader
from bridge.findings.sr_uid import document_uid, note_uid, series_uid
from bridge.intake import Intake
from bridge.model import Document, KeptReport, StudyResult
from bridge.ports import Wait, send_queue
from bridge.state import State
from bridge.web.exchange import Exchange
from bridge.web.owner import Owner
from tests.ai_results import a_finding, a_result, an_image
from tests.builders import STUDY, headers
from tests.unit.test_ai_results_attached import a_kept
from tests.unit.test_sync import Rig

FINDING = read_result(a_result(), code_tables().coding_scheme).findings[0]
OPEN = {"frame_of_reference_uid": "1.2.9", "shape": "polygon", "points": [[0, 0, n] for n in range(4)]}
UNWRITABLE = a_finding(location={"spatial_regions": [OPEN]})
REJECT = b'{"decision":"reject","reader":{"name":"L"},"reviewed_at":"2025-12-02T08:00:00Z"}'
ACCEPT = b'{"decision":"accept","reader":{"name":"L"},"reviewed_at":"2025-12-02T08:00:00Z"}'


class Shelf:
    """An archive in memory; `words` are its next outcomes, else it takes everything."""

    def __init__(self) -> None:
        self.stored: list[str] = []
        self.last = Dataset()
        self.words: list[ProjectError | None] = []
        self.down = False

    def store(self, study_instance_uid: str, documents: Sequence[Document]) -> list[ProjectError | None]:
        if self.down:
            raise SinkUnavailable("archive shelf: connection refused")
        outcomes = [self.words.pop(0) if self.words else None for _ in documents]
        for document, outcome in zip(documents, outcomes, strict=True):
            found = dcmread(BytesIO(document.content))
            assert (found.StudyInstanceUID, found.SOPInstanceUID) == (study_instance_uid, document.sop_instance_uid)
            self.stored += [] if outcome else [document.sop_instance_uid]
            self.last = found
        return outcomes


class Sending(Rig):
    """The pipeline with an archive behind it."""

    def __init__(self, state: State, sources: frozenset[str] = frozenset(), with_notes: bool = True) -> None:
        super().__init__(state)
        self.shelf = Shelf()
        settling = self.pipeline.settling
        kept = Kept(Intake(state, code_tables(), lambda: self.now), state)
        results = kept.of_study
        self.sender = DocumentSender(
            "shelf", self.shelf, sources, state, results, with_notes, settling, 30, lambda _stage: None
        )

        def followed_by(result: StudyResult) -> dict[str, Wait]:
            return {send_queue("shelf"): Wait()} if state.ai_results(result.study_instance_uid) else {}

        self.pipeline.followed_by = followed_by

    def go(self) -> None:
        self.run()
        try:
            while self.sender.step("w"):
                pass
        except SinkUnavailable:
            pass

    def keep(self, item: dict[str, Any]) -> None:
        assert self.state.keep_result(a_kept(item), self.now, 0, 0)

    def review(self, review: bytes) -> None:
        kept = self.state.ai_result("run-1")
        assert kept is not None and self.state.add_review(kept, review, self.now)

    def report(self, presence: str) -> None:
        said = Said(tuple(finding_names("run-1", FINDING)), replace(FINDING, presence=Presence[presence]))
        report = ReadersReport(Reader("L"), datetime(2025, 12, 2, 8, tzinfo=UTC), (), (said,))
        assert self.state.keep_report(KeptReport("R1", STUDY, self.now, report_as_json(report)), self.now)

    def parked(self) -> list[str]:
        return [i.error for i in self.state.items(queue=send_queue("shelf"), parked=True)]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    state = State(f"sqlite:///{tmp_path / 's.sqlite'}")
    yield state
    state.close()


@pytest.fixture
def rig(state: State) -> Sending:
    rig = Sending(state)
    rig.a.put(headers())
    return rig


def test_the_document_of_a_result_is_sent_once_whatever_changes(rig: Sending) -> None:
    rig.keep(a_result())
    rig.go()
    assert rig.shelf.stored == [document_uid("run-1", 0)]
    rig.a.put(headers(instance=2))
    rig.state.mark(send_queue("shelf"), [STUDY], rig.now)
    rig.go()
    assert rig.shelf.stored == [document_uid("run-1", 0)]
    assert not rig.state.items(queue=send_queue("shelf"))


def test_a_result_waits_for_its_study(state: State) -> None:
    rig = Sending(state)
    rig.keep(a_result())
    rig.go()
    assert rig.shelf.stored == []
    rig.a.put(headers())
    rig.go()
    assert rig.shelf.stored == [document_uid("run-1", 0)]


def test_after_a_review_there_is_another_document_and_none_of_what_was_rejected(rig: Sending) -> None:
    rig.keep(a_result())
    rig.go()
    rig.review(ACCEPT)
    rig.go()
    assert rig.shelf.stored == [document_uid("run-1", n) for n in (0, 1)]
    rig.review(REJECT)
    rig.go()
    assert document_uid("run-1", 2) not in rig.shelf.stored


def test_documents_of_what_was_rejected_are_rejected_once(rig: Sending) -> None:
    rig.keep(a_result())
    rig.go()
    rig.review(ACCEPT)
    rig.go()
    rig.review(REJECT)
    rig.go()
    uids = [document_uid("run-1", n) for n in (0, 1)]
    assert rig.shelf.stored == [*uids, note_uid("run-1", uids)]
    note = rig.shelf.last
    assert note.ConceptNameCodeSequence[0].CodeValue == "113001"
    assert note.Modality == "KO"
    (series,) = note.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert series.SeriesInstanceUID == series_uid("run-1")
    assert sorted(one.ReferencedSOPInstanceUID for one in series.ReferencedSOPSequence) == sorted(uids)
    rig.state.mark(send_queue("shelf"), [STUDY], rig.now)
    rig.go()
    assert len(rig.shelf.stored) == 3


def test_what_no_archive_has_of_a_rejected_result_needs_no_note(rig: Sending) -> None:
    rig.keep(a_result())
    rig.review(REJECT)
    rig.go()
    assert rig.shelf.stored == []


def test_no_note_is_sent_where_none_is_wanted(state: State) -> None:
    rig = Sending(state, with_notes=False)
    rig.a.put(headers())
    rig.keep(a_result())
    rig.go()
    rig.review(REJECT)
    rig.go()
    assert rig.shelf.stored == [document_uid("run-1", 0)]


def test_what_a_readers_report_says_is_a_document_and_its_rejection_a_note(rig: Sending) -> None:
    rig.keep(a_result())
    rig.go()
    rig.report("PRESENT")
    rig.go()
    accepted = rig.shelf.last
    assert (accepted.PreliminaryFlag, len(rig.shelf.stored)) == ("FINAL", 2)
    stored = list(rig.shelf.stored)
    back = {"SeriesInstanceUID": series_uid("run-1"), "SOPInstanceUID": stored[1], "Modality": "SR"}
    rig.a.put(headers(series=9, **back))
    rig.report("ABSENT")
    rig.go()
    assert rig.shelf.last.Modality == "KO"
    (series,) = rig.shelf.last.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert {one.ReferencedSOPInstanceUID for one in series.ReferencedSOPSequence} == set(stored)


def test_an_archive_that_is_down_gets_it_later(rig: Sending) -> None:
    rig.keep(a_result())
    rig.shelf.down = True
    rig.go()
    (waiting,) = rig.state.items(queue=send_queue("shelf"))
    assert (waiting.parked, waiting.error) == (False, "archive shelf: connection refused")
    rig.shelf.down = False
    rig.go()
    assert rig.shelf.stored == [document_uid("run-1", 0)]


def test_what_is_refused_waits_for_a_person_and_stops_nothing_else(rig: Sending) -> None:
    rig.keep(a_result())
    rig.keep(a_result(run_id="run-2"))
    rig.keep(a_result(UNWRITABLE, run_id="run-3"))
    rig.shelf.words = [verdict(0xA900)]
    rig.go()
    assert rig.shelf.stored == [document_uid("run-2", 0)]
    (told,) = rig.parked()
    assert "2 documents are not stored" in told
    assert "A900" in told and "TID 1500" in told
    rig.state.replay(send_queue("shelf"), STUDY, rig.now)
    rig.go()
    assert rig.shelf.stored == [document_uid("run-2", 0), document_uid("run-1", 0)]


def test_one_that_has_no_room_for_one_document_gets_that_one_again(rig: Sending) -> None:
    rig.keep(a_result())
    rig.keep(a_result(run_id="run-2"))
    rig.shelf.words = [None, verdict(0xA700)]
    rig.go()
    assert rig.shelf.stored == [document_uid("run-1", 0)]
    rig.go()
    assert rig.shelf.stored == [document_uid("run-1", 0), document_uid("run-2", 0)]


def test_images_that_the_study_does_not_have_make_no_document(rig: Sending) -> None:
    rig.keep(a_result(a_finding(images=[an_image(sop_instance_uid="1.2.3")])))
    rig.go()
    assert (rig.shelf.stored, rig.parked()) == ([], [])


@pytest.mark.parametrize(("source", "sent"), [("a", 1), ("b", 0)])
def test_only_results_of_studies_that_a_named_source_holds(state: State, source: str, sent: int) -> None:
    rig = Sending(state, frozenset({source}))
    rig.a.put(headers())
    rig.keep(a_result())
    rig.go()
    assert len(rig.shelf.stored) == sent


def test_an_archive_that_is_new_gets_the_documents_of_what_was_there(rig: Sending) -> None:
    rig.keep(a_result())
    rig.pipeline.followed_by = lambda _result: {}
    rig.go()
    assert rig.shelf.stored == []
    for _ in range(2):
        rig.state.introduce_archive("shelf", rig.now)
        rig.go()
    assert rig.shelf.stored == [document_uid("run-1", 0)]


def a_stow(answer: Callable[[httpx.Request], httpx.Response]) -> StowArchive:
    transport = httpx.MockTransport(answer)
    return StowArchive(Exchange(Owner.archive("vna"), "http://vna/dw", product="the archive", transport=transport))


def said(stored: Sequence[str] = (), failed: dict[str, Any] | None = None) -> dict[str, Any]:
    def item(uid: str, **more: Any) -> dict[str, Any]:
        return {"00081155": {"vr": "UI", "Value": [uid]}} | more

    reasons = [item(uid, **{"00081197": {"vr": "US", "Value": [r]}}) for uid, r in (failed or {}).items()]
    found = {"00081199": {"vr": "SQ", "Value": [item(uid) for uid in stored]}} if stored else {}
    return found | ({"00081198": {"vr": "SQ", "Value": reasons}} if reasons else {})


DOCUMENTS = [Document(uid, f"\0{uid}\r\n--".encode()) for uid in ("1.1", "1.2", "1.3")]


@pytest.mark.parametrize(
    ("status", "body", "outcomes"),
    [
        (200, said(["1.1", "1.2", "1.3"]), [None, None, None]),
        (200, [said(["1.1"])], [None, None, None]),
        (200, said(["1.1", "1.3"], {"1.2": 0xA700}), [None, SinkUnavailable, None]),
        (202, said(["1.1"], {"1.2": "49152"}), [None, RefusedByServer, SinkUnavailable]),
        (202, {"00081198": {"Value": [{"00081155": {"Value": [None]}}, 7]}}, [SinkUnavailable] * 3),
        (409, said(failed={"1.1": 0x0111, "1.2": 0xB00E, "1.3": 0x0110}), [None, None, RefusedByServer]),
        (409, {}, [RefusedByServer] * 3),
        (400, "no", [RefusedByServer] * 3),
        (413, {}, [RefusedByServer] * 3),
    ],
)
def test_each_document_has_the_outcome_that_the_answer_tells(status: int, body: Any, outcomes: list[Any]) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(status, json=body)

    found = a_stow(answer).store("1.2", DOCUMENTS)
    assert [o if o is None else type(o) for o in found] == outcomes
    (request,) = asked
    assert request.url == "http://vna/dw/studies/1.2"
    limit = request.headers["content-type"].rpartition("boundary=")[2].encode()
    parts = request.content.split(b"--" + limit)
    assert [p.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for p in parts[1:-1]] == [d.content for d in DOCUMENTS]


@pytest.mark.parametrize("status", [301, 401, 404, 429, 500, 503])
def test_what_says_nothing_of_the_documents_is_asked_again_later(status: int) -> None:
    stow = a_stow(lambda _request: httpx.Response(status, headers={"Retry-After": "7", "Location": "http://else"}))
    with pytest.raises(SinkUnavailable, match=f"archive vna: HTTP {status}") as caught:
        stow.store("1.2", DOCUMENTS)
    assert caught.value.retry_after_s == 7


def test_many_documents_go_in_several_requests() -> None:
    asked: list[int] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.content.count(b"Content-Type"))
        return httpx.Response(200, json={})

    many = [Document(f"1.{n}", b"x" * 1000) for n in range(45)] + [Document("2.1", b"x" * 4_194_000)] * 2
    assert a_stow(answer).store("1.2", many) == [None] * 47
    assert asked == [20, 20, 5, 1, 1]
