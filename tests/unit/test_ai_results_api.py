from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from fastapi import FastAPI

from bridge import config
from bridge import intake as bridge_intake
from bridge.api.ai_results import router
from bridge.code_tables import code_tables
from bridge.compose import Bridge
from bridge.findings.contract import MOST_RESULTS, schema
from bridge.findings.example import EXAMPLE
from bridge.intake import MOST_OF_A_STUDY, Intake, Outcome
from bridge.model import KeptResult
from bridge.ports import STUDY_QUEUE
from bridge.state import State
from tests.ai_results import DIAMETER, a_finding, a_full_finding, a_result, an_image
from tests.builders import STUDY, headers
from tests.unit.test_sync import Rig

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # starlette asks for another HTTP client than the one this project is bound to
    from fastapi.testclient import TestClient

ELSEWHERE = a_finding(images=[an_image(sop_instance_uid="1.2.3")])
READER = {"name": "Leser, Lia", "identifier_system": "http://h/staff", "identifier_value": "L7"}


class Web:
    """The routes over a pipeline whose clock moves only when told."""

    def __init__(self, state: State) -> None:
        self.rig, self.state = Rig(state), state
        app = FastAPI()
        app.include_router(router(Intake(state, code_tables(), lambda: self.rig.now), state))
        self.client = TestClient(app, raise_server_exceptions=False)

    def post(self, path: str, item: object, status: int) -> Any:
        response = self.client.post(path, json=item)
        assert response.status_code == status, response.text
        return response.json()

    def get(self, path: str, status: int = 200) -> Any:
        response = self.client.get(path)
        assert response.status_code == status, response.text
        return response.json()

    def review(self, decision: str, status: int = 200, **fields: Any) -> Any:
        item = {"decision": decision, "reader": READER, "reviewed_at": "2025-12-02T08:00:00Z"} | fields
        return self.post("/ai-results/run-1/review", item, status)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    state = State(f"sqlite:///{tmp_path / 's.sqlite'}")
    yield Web(state)
    state.close()


def errors(answer: Any) -> list[str]:
    return [e["field"] for e in answer["errors"]]


def test_a_result_is_taken_once(web: Web) -> None:
    assert web.post("/ai-results", a_result(), 201) == {"run_id": "run-1", "outcome": "kept"}
    assert web.post("/ai-results", a_result(), 200) == {"run_id": "run-1", "outcome": "unchanged"}
    other = web.post("/ai-results", a_result(conclusion="other"), 409)
    assert (other["outcome"], errors(other)) == ("refused", ["run_id"])


def test_a_result_waits_for_its_study_and_is_shown_with_it(web: Web) -> None:
    web.post("/ai-results", a_result(a_full_finding()), 201)
    web.rig.run()
    waiting = web.get("/ai-results/run-1")
    assert (waiting["attached"], waiting["status"], waiting["diagnostic_report"]) == (False, "preliminary", None)
    web.rig.a.put(headers())
    web.rig.run()
    shown = web.get("/ai-results/run-1")
    assert shown["attached"]
    kind, _, id_ = shown["diagnostic_report"].partition("/")
    assert web.state.read_resource(kind, id_) is not None
    assert shown["result"]["findings"][0]["tracking_uid"] == f"{STUDY}.99"
    assert web.get(f"/ai-results?study_instance_uid={STUDY}") == [shown]
    assert web.get("/ai-results?study_instance_uid=1.2.3") == []


def test_images_that_the_study_does_not_have_are_refused(web: Web) -> None:
    web.rig.a.put(headers())
    web.rig.run()
    assert errors(web.post("/ai-results", a_result(ELSEWHERE), 422)) == ["findings[0].images[0].sop_instance_uid"]
    web.get("/ai-results/run-1", 404)


def test_while_the_study_waits_to_be_read_its_images_are_not_judged(web: Web) -> None:
    web.rig.a.put(headers())
    web.rig.run()
    web.state.mark_studies("a", [STUDY], web.rig.now)
    web.post("/ai-results", a_result(a_finding(images=[an_image(sop_instance_uid=f"{STUDY}.1.2")])), 201)
    web.rig.run()
    shown = web.get("/ai-results/run-1")
    assert (shown["attached"], errors(shown)) == (False, ["findings[0].images[0].sop_instance_uid"])
    web.rig.a.put(headers(instance=2))
    web.rig.run()
    assert web.get("/ai-results/run-1")["attached"]


def test_a_batch_is_answered_item_by_item(web: Web) -> None:
    odd = a_result(a_finding(code={"scheme": "99ODD", "code": "1"}), run_id="run-4")
    batch = [a_result(), {"run_id": "run-2"}, odd, a_result(run_id="run-3"), a_result(), 5, {"run_id": "Eva Test"}]
    answers = web.post("/ai-results", {"results": batch}, 200)["results"]
    assert [(a["run_id"], a["outcome"]) for a in answers] == [
        ("run-1", "kept"),
        ("run-2", "refused"),
        ("run-4", "refused"),
        ("run-3", "kept"),
        ("run-1", "unchanged"),
        ("", "refused"),
        ("", "refused"),
    ]
    assert errors(answers[1]) == ["model", "study_instance_uid", "produced_at", "findings"]
    assert errors(answers[2]) == ["findings[0].code.scheme"]


@pytest.mark.parametrize("item", [{"results": 1}, {"results": [1] * (MOST_RESULTS + 1)}, {"results": [], "more": 1}])
def test_what_is_no_batch_is_refused(web: Web, item: object) -> None:
    web.post("/ai-results", item, 400)


def test_what_is_no_json_is_refused(web: Web) -> None:
    assert web.client.post("/ai-results", content=b"{", headers={"Content-Type": "application/json"}).status_code == 400
    assert web.client.post("/ai-results", data={"a": "b"}).status_code == 415


def test_a_study_has_only_so_many_results(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST_OF_A_STUDY == 500
    monkeypatch.setattr(bridge_intake, "MOST_OF_A_STUDY", 1)
    web.post("/ai-results", a_result(), 201)
    assert errors(web.post("/ai-results", a_result(run_id="run-2"), 422)) == ["study_instance_uid"]
    web.post("/ai-results", a_result(), 200)


def test_reviews_are_answered_with_how_the_result_stands(web: Web) -> None:
    web.rig.a.put(headers())
    web.post("/ai-results", a_result(a_full_finding()), 201)
    assert web.review("accept")["status"] == "final"
    corrected = a_full_finding() | {"measurements": [{"code": DIAMETER, "value": 9, "unit": "mm"}]}
    amended = web.review("amend", findings=[corrected])
    assert (amended["status"], amended["signed_by"], len(amended["reviews"])) == ("amended", "Leser, Lia", 2)
    assert web.review("reject")["status"] == "entered-in-error"
    assert errors(web.review("accept", 422)) == ["decision"]
    web.rig.run()
    id_ = web.get("/ai-results/run-1")["diagnostic_report"].partition("/")[2]
    found = web.state.read_resource("DiagnosticReport", id_)
    assert found is not None
    assert found.content is not None
    assert found.content["status"] == "entered-in-error"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"decision": "praise"}, "decision"),
        ({"reader": {"name": ""}}, "reader.name"),
        ({"reviewed_at": "2025-12-02"}, "reviewed_at"),
        ({"surprise": 1}, "surprise"),
        ({"findings": [a_finding(code={"scheme": "99ODD", "code": "1"})]}, "findings[0].code.scheme"),
        (
            {"findings": [a_finding(images=[an_image(sop_instance_uid="1.2")])]},
            "findings[0].images[0].sop_instance_uid",
        ),
    ],
)
def test_a_review_that_is_wrong_is_refused_by_its_field(web: Web, fields: dict[str, Any], field: str) -> None:
    web.rig.a.put(headers())
    web.rig.run()
    web.post("/ai-results", a_result(), 201)
    assert errors(web.review(**{"decision": "amend", "status": 422} | fields)) == [field]
    assert web.get("/ai-results/run-1")["reviews"] == []


def test_a_run_that_is_not_known_cannot_be_reviewed(web: Web) -> None:
    web.review("accept", 404)
    web.get("/ai-results/run-1", 404)


def test_a_result_that_cannot_be_read_any_more_hides_no_other(web: Web) -> None:
    web.post("/ai-results", a_result(), 201)
    web.state.keep_result(KeptResult("old", STUDY, b'{"of": "another time"}'), web.rig.now, 0, 0)
    found = web.get(f"/ai-results?study_instance_uid={STUDY}")
    assert [(one["run_id"], len(one["errors"])) for one in found] == [("old", 1), ("run-1", 0)]
    item = {"decision": "accept", "reader": READER, "reviewed_at": "2025-12-02T08:00:00Z"}
    assert "kept" in web.post("/ai-results/old/review", item, 422)["errors"][0]["reason"]


def test_a_result_waits_as_long_as_its_study_is_quiet(web: Web) -> None:
    intake = Intake(web.state, code_tables(), lambda: web.rig.now, 3.0, 60.0)
    assert intake.take([a_result()])[0].outcome is Outcome.KEPT
    (item,) = web.state.items(queue=STUDY_QUEUE)
    assert item.due_at == web.rig.now + 3


def test_the_schema_is_published_and_openapi_shows_examples_that_fit_it(web: Web) -> None:
    assert web.get("/ai-results/$schema") == schema()
    described = web.get("/openapi.json")["paths"]["/ai-results"]["post"]["requestBody"]["content"]["application/json"]
    for example in described["examples"].values():
        for item in example["value"].get("results", [example["value"]]):
            jsonschema.validate(item, schema())
            assert web.state.ai_result(item["run_id"]) is None
    web.post("/ai-results", EXAMPLE, 201)
    reviews = web.get("/openapi.json")["paths"]["/ai-results/{run_id}/review"]["post"]["requestBody"]["content"]
    for name, example in reviews["application/json"]["examples"].items():
        item = example["value"]
        assert item["decision"] == name
        web.post(f"/ai-results/{EXAMPLE['run_id']}/review", item, 200)


def test_a_running_bridge_has_the_routes(tmp_path: Path) -> None:
    bridge = Bridge(config.parse({"data_dir": str(tmp_path / "data")}))
    client = TestClient(bridge.app(), base_url="http://localhost")
    answer = client.post("/ai-results", json=a_result())
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    assert client.get("/").json()["ai_results"].endswith("/ai-results")
    bridge.state.close()
