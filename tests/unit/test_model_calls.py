"""Models are called for what matches their rules, once for each content; what they answer is kept once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from pydicom import Dataset
from pydicom.uid import ComprehensiveSRStorage

from bridge.code_tables import code_tables
from bridge.errors import ProjectError, RefusedByServer, SinkUnavailable
from bridge.findings.contract import MOST_RESULTS
from bridge.intake import Intake
from bridge.model import StudyResult
from bridge.model_calls import caller as caller_module
from bridge.model_calls.caller import CalledModel, ModelCaller
from bridge.model_calls.request import Access, run_id
from bridge.model_calls.rule import Rule, called_series, content_digest
from bridge.model_calls.service import Answered, HttpModel
from bridge.ports import Wait, model_queue
from bridge.state import State
from bridge.web.exchange import Doubtful, Exchange
from bridge.web.owner import Owner
from tests.ai_results import a_finding, a_result, an_image
from tests.builders import STUDY, a_translator, headers
from tests.unit.test_sync import Rig

QUEUE = model_queue("lungnet")
SR = headers(series=9, Modality="SR", SOPClassUID=ComprehensiveSRStorage)


class Model:
    """A model in memory: it finds one thing in every study, unless told what to answer."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answer: Callable[[dict[str, Any]], Answered] = self.found

    def call(self, request: bytes) -> Answered:
        self.asked.append(orjson.loads(request))
        return self.answer(self.asked[-1])

    def found(self, asked: dict[str, Any], **fields: Any) -> Answered:
        """One result; each call makes another one of it, as a program does that notes when it was made."""
        made = {"run_id": asked["run_id"], "study_instance_uid": asked["study_instance_uid"]} | fields
        return Answered((a_result(produced_at=f"2025-12-01T10:{len(self.asked):02}:00Z", **made),))

    def fails(self, error: ProjectError) -> None:
        def answer(_asked: dict[str, Any]) -> Answered:
            raise error

        self.answer = answer


class Calling(Rig):
    """The pipeline with a model behind it."""

    def __init__(self, state: State, rule: Rule, version: str = "2.1.0", stable_s: float = 5.0) -> None:
        super().__init__(state)
        self.model = Model()
        called = CalledModel("lungnet", version, rule, stable_s, attempts=3, token_s=60)
        intake = Intake(state, code_tables(), lambda: self.now)
        self.caller = ModelCaller(
            called, self.model, intake, state, self.pipeline.settling, 30, an_access, "http://b/ai-results", _nothing
        )

        def followed_by(result: StudyResult) -> dict[str, Wait]:
            study = next(r for r in result.resources if r["resourceType"] == "ImagingStudy")
            return {QUEUE: called.wait} if called_series(rule, study) else {}

        self.pipeline.followed_by = followed_by

    def go(self, seconds: int = 20) -> None:
        for _ in range(seconds):
            self.run(1)
            try:
                while self.caller.step("w"):
                    pass
            except SinkUnavailable:
                continue

    def parked(self) -> list[str]:
        return [i.error for i in self.state.items(queue=QUEUE, parked=True)]


def an_access(uid: str, expires_at: float) -> Access:
    return Access("http://b/wado-rs", f"token of {uid}", expires_at)


def _nothing(_stage: str) -> None:
    return None


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    state = State(f"sqlite:///{tmp_path / 's.sqlite'}")
    yield state
    state.close()


@pytest.fixture
def rig(state: State) -> Calling:
    rig = Calling(state, Rule(frozenset({"CT"})))
    rig.a.put(headers())
    return rig


def test_a_model_is_called_once_and_its_result_kept(rig: Calling) -> None:
    rig.go(60)
    (asked,) = rig.model.asked
    (kept,) = rig.state.ai_results(STUDY)
    assert kept.run_id == asked["run_id"]
    assert [r.resource_type for r in rig.state.study_resources(STUDY)].count("DiagnosticReport") == 1
    assert not rig.state.items(queue=QUEUE)


def test_the_request_says_where_the_images_are_and_nothing_of_the_patient(rig: Calling) -> None:
    rig.a.put(headers(series=2, instance=1), headers(series=2, instance=2), headers(series=3, Modality="MR"))
    rig.go()
    (asked,) = rig.model.asked
    study = f"http://b/wado-rs/studies/{STUDY}"
    assert asked["wado_rs"]["study"] == study
    assert asked["wado_rs"]["token"] == f"token of {STUDY}"
    assert [(s["wado_rs"], s["modality"], s["number_of_instances"]) for s in asked["series"]] == [
        (f"{study}/series/{STUDY}.1", "CT", 1),
        (f"{study}/series/{STUDY}.2", "CT", 2),
    ]
    assert asked["reply_to"] == "http://b/ai-results"
    assert not {"Test", "Eva", "P1", "19700101", "A1"} & set(orjson.dumps(asked).decode().split('"'))


def test_a_study_is_called_for_when_it_has_been_quiet(rig: Calling) -> None:
    rig.go(4)
    assert not rig.model.asked
    for instance in range(2, 6):
        rig.a.put(headers(instance=instance))
        rig.go(4)
    assert not rig.model.asked
    rig.go(20)
    assert [s["number_of_instances"] for s in rig.model.asked[0]["series"]] == [5]
    assert len(rig.model.asked) == 1


def test_only_other_images_call_again(rig: Calling) -> None:
    rig.go()
    rig.a.put(headers(StudyDescription="another"), SR)
    rig.state.mark(QUEUE, [STUDY], rig.now)
    rig.go()
    assert len(rig.model.asked) == 1
    rig.a.put(headers(instance=2))
    rig.go()
    assert {a["run_id"] for a in rig.model.asked} == {r.run_id for r in rig.state.ai_results(STUDY)}
    assert len(rig.model.asked) == 2


def test_another_version_looks_again(rig: Calling) -> None:
    rig.go()
    rig.caller.model = replace(rig.caller.model, version="2.2.0")
    rig.state.mark(QUEUE, [STUDY], rig.now)
    rig.go()
    assert len({asked["run_id"] for asked in rig.model.asked}) == 2


def test_a_study_that_waits_to_be_read_again_is_not_called_for_yet(rig: Calling) -> None:
    rig.go(5)
    rig.a.down = True
    rig.state.mark_studies("a", [STUDY], rig.now)
    rig.go()
    assert not rig.model.asked
    rig.a.down = False
    rig.go(600)
    assert len(rig.model.asked) == 1


@pytest.mark.parametrize("source", ["a", "b"])
def test_only_studies_that_a_named_source_holds(state: State, source: str) -> None:
    rig = Calling(state, Rule(frozenset({"CT"}), sources=frozenset({source})))
    rig.a.put(headers())
    rig.go()
    assert len(rig.model.asked) == (1 if source == "a" else 0)
    assert not state.items(queue=QUEUE)


def test_a_model_that_is_away_is_called_until_it_is_back(rig: Calling) -> None:
    rig.model.fails(SinkUnavailable("model lungnet: connection refused"))
    rig.go(120)
    (waiting,) = rig.state.items(queue=QUEUE)
    assert (waiting.parked, waiting.error, waiting.attempts > 3) == (False, "model lungnet: connection refused", True)
    rig.model.answer = rig.model.found
    rig.go(300)
    assert len(rig.state.ai_results(STUDY)) == 1


def test_a_study_that_a_model_fails_at_waits_for_a_person_in_the_end(rig: Calling) -> None:
    rig.model.fails(Doubtful("model lungnet: HTTP 500"))
    rig.go(60)
    assert len(rig.model.asked) == 3
    assert rig.parked() == ["model lungnet: HTTP 500; tried 3 times"]
    rig.model.answer = rig.model.found
    rig.state.replay(QUEUE, STUDY, rig.now)
    rig.go()
    assert (len(rig.state.ai_results(STUDY)), rig.parked()) == (1, [])


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "another study": ({"study_instance_uid": "1.2.3"}, "study_instance_uid is not the one of the request"),
    "another run": ({"run_id": "mine"}, "run_id must be the one of the request"),
    "another contract": ({"surprise": 1}, "surprise is unknown"),
    "other images": (
        {"findings": [a_finding(images=[an_image(sop_instance_uid="1.2.3")])]},
        "findings[0].images[0].sop_instance_uid is no instance",
    ),
}


@pytest.mark.parametrize("wrong", sorted(WRONG))
def test_an_answer_that_is_wrong_waits_for_a_person(rig: Calling, wrong: str) -> None:
    fields, told = WRONG[wrong]
    rig.model.answer = lambda asked: rig.model.found(asked, **fields)
    rig.go()
    (error,) = rig.parked()
    assert told in error
    assert not rig.state.ai_results(STUDY) and not rig.state.ai_results("1.2.3")


def test_what_is_right_in_an_answer_is_kept_and_stays_when_the_model_is_called_again(rig: Calling) -> None:
    def two(asked: dict[str, Any]) -> Answered:
        second = {} if len(rig.model.asked) > 2 else {"surprise": 1}
        first = rig.model.found(asked, run_id=f"{asked['run_id']}.1").items
        return Answered((*first, *rig.model.found(asked, run_id=f"{asked['run_id']}.2", **second).items))

    rig.model.answer = two
    rig.go()
    (kept,) = rig.state.ai_results(STUDY)
    assert len(rig.parked()) == 1
    rig.state.replay(QUEUE, STUDY, rig.now)
    rig.go()
    assert len(rig.parked()) == 0
    assert len(rig.state.ai_results(STUDY)) == 2
    assert rig.state.ai_result(kept.run_id) == kept


@pytest.mark.parametrize("later", [True, False])
def test_a_model_may_answer_later_or_find_nothing(rig: Calling, later: bool) -> None:
    rig.model.answer = lambda _asked: Answered((), later)
    rig.go(60)
    rig.state.mark(QUEUE, [STUDY], rig.now)
    rig.go(60)
    assert len(rig.model.asked) == 1
    assert not rig.state.items(queue=QUEUE)


def test_a_model_that_feeds_itself_is_stopped(rig: Calling, monkeypatch: pytest.MonkeyPatch) -> None:
    assert caller_module.MOST_CALLS == 20
    monkeypatch.setattr(caller_module, "MOST_CALLS", 3)
    for instance in range(2, 7):
        rig.a.put(headers(instance=instance))
        rig.go()
    assert len(rig.model.asked) == 3
    assert "match its own rule" in rig.parked()[0]


def test_a_withdrawn_study_is_not_called_for(rig: Calling) -> None:
    rig.run(4)
    rig.a.studies.clear()
    rig.a.log.append(STUDY)
    rig.go(60)
    assert not rig.model.asked
    assert not rig.state.items(queue=QUEUE)


CODED = Dataset()
CODED.CodeValue, CODED.CodingSchemeDesignator, CODED.CodeMeaning = "24627-2", "LN", "CT Chest"


@pytest.mark.parametrize(
    ("rule", "matches"),
    [
        ({}, True),
        ({"modalities": {"MR", "CT"}}, True),
        ({"modalities": {"MR"}}, False),
        ({"body_sites": {"43799004"}}, True),
        ({"body_sites": {"39607008"}}, False),
        ({"procedures": {"24627-2"}}, True),
        ({"procedures": {"CT Chest"}}, True),
        ({"procedures": {"other"}}, False),
        ({"minimum_instances": 3}, False),
        ({"minimum_instances": 2}, True),
    ],
)
def test_a_rule_asks_for_what_the_study_says_in_fhir(rule: dict[str, Any], matches: bool) -> None:
    held = [headers(instance=n, BodyPartExamined="CHEST", ProcedureCodeSequence=[CODED]) for n in (1, 2)]
    study = next(r for r in a_translator().translate(STUDY, {"a": held}).resources)
    wanted = Rule(**({"modalities": {"CT"}} | rule))
    assert bool(called_series(wanted, study)) is matches


def test_the_digest_of_a_content_is_of_its_images_alone() -> None:
    def digest(*held: Any) -> str:
        (study,) = a_translator().translate(STUDY, {"a": held}).resources
        return content_digest(called_series(Rule(frozenset({"CT"})), study))

    first = digest(headers(), headers(instance=2))
    assert digest(headers(instance=2), headers(StudyDescription="x", PatientName="Other^P"), SR) == first
    assert digest(headers(), headers(instance=3)) != first
    assert run_id("m", "1", STUDY, first) != run_id("m", "2", STUDY, first)


def a_service(status: int, content: bytes = b"", **more: Any) -> HttpModel:
    def answer(request: httpx.Request) -> httpx.Response:
        assert (request.method, str(request.url)) == ("POST", "http://m/studies")
        return httpx.Response(status, content=content, **more)

    transport = httpx.MockTransport(answer)
    exchange = Exchange(
        Owner.model("m"), "http://m/studies", product="the model's service", most_bytes=2000, transport=transport
    )
    return HttpModel("m", exchange)


@pytest.mark.parametrize(
    ("status", "content", "answered"),
    [
        (200, b'{"run_id": "1"}', Answered(({"run_id": "1"},))),
        (201, b'{"results": [{"run_id": "1"}, {}]}', Answered(({"run_id": "1"}, {}))),
        (200, b'{"results": []}', Answered(())),
        (204, b"", Answered(())),
        (202, b"", Answered((), later=True)),
    ],
)
def test_a_model_answers_with_one_result_several_none_or_later(status: int, content: bytes, answered: Answered) -> None:
    assert a_service(status, content).call(b"{}") == answered


@pytest.mark.parametrize(
    ("status", "content", "error"),
    [
        (200, b"<html>", RefusedByServer),
        (200, b"[" * 5000, Doubtful),
        (200, b'{"results": 1}', RefusedByServer),
        (200, b'{"results": [%s]}' % b",".join([b"1"] * (MOST_RESULTS + 1)), RefusedByServer),
        (400, b"", RefusedByServer),
        (422, b"", RefusedByServer),
        (500, b"", Doubtful),
        (301, b"", SinkUnavailable),
        (401, b"", SinkUnavailable),
        (404, b"", SinkUnavailable),
        (429, b"", SinkUnavailable),
        (503, b"", SinkUnavailable),
    ],
)
def test_what_else_it_answers_says_what_to_do(status: int, content: bytes, error: type[ProjectError]) -> None:
    with pytest.raises(ProjectError, match=r"^model m: ") as caught:
        a_service(status, content, headers={"Location": "http://elsewhere/"} if status == 301 else {}).call(b"{}")
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("error", "doubtful"),
    [(httpx.ReadTimeout, True), (httpx.RemoteProtocolError, True), (httpx.ConnectError, False)],
)
def test_a_call_that_ends_early_may_be_the_fault_of_the_study(error: type[httpx.HTTPError], doubtful: bool) -> None:
    def answer(_request: httpx.Request) -> httpx.Response:
        raise error("the address, quoted")

    exchange = Exchange(Owner.model("m"), "http://m/", product="it", transport=httpx.MockTransport(answer))
    with pytest.raises(SinkUnavailable) as caught:
        HttpModel("m", exchange).call(b"{}")
    assert isinstance(caught.value, Doubtful) is doubtful
    assert "quoted" not in str(caught.value)
