from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import orjson
import pytest
from fhir.resources import get_fhir_model_class as r5_class
from fhir.resources.R4B import get_fhir_model_class as r4_class

from bridge.api import subscription
from bridge.api.fhir import fhir_app
from bridge.api.subscription import SubscriptionLimits
from bridge.errors import SinkUnavailable, StateUnavailable
from bridge.follow.notifier import Notifier, NotifierSettings
from bridge.state import State
from bridge.state.puts import put, put_all
from tests.builders import STUDY, a_translator, headers
from tests.subscribing import REPORTS, TOPIC, by_criteria, by_topic, in_r5, told
from tests.unit.test_changefeed import commit
from tests.unit.test_changefeed import state as state
from tests.validity import told_wrong

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fastapi.testclient import TestClient

BASE = "http://h/fhir"
HOOK = "https://ehr.example/hooks/1"
R5_TYPE = "application/fhir+json; fhirVersion=5.0"


@dataclass
class FakeHook:
    """Remembers what it was sent; `problem` is what every receiver under a URL answers instead."""

    sent: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    problems: dict[str, SinkUnavailable] = field(default_factory=dict)
    at: Callable[[], None] = lambda: None

    def send(self, method: str, url: str, headers: Sequence[tuple[str, str]], content: bytes, timeout_s: float) -> None:
        self.at()
        for place, problem in self.problems.items():
            if url.startswith(place):
                raise problem
        self.sent.append((method, url, dict(headers), content))

    def bundles(self, url: str = HOOK) -> list[dict[str, Any]]:
        return [orjson.loads(content) for method, to, _, content in self.sent if method == "POST" and to == url]

    def told(self, url: str = HOOK) -> list[dict[str, Any]]:
        return [told(bundle) for bundle in self.bundles(url)]

    def numbers(self, url: str = HOOK) -> list[int]:
        return [number for one in self.told(url) for number in one["events"]]


class Rig:
    """The API and the notifier over one state; the clock moves only when told."""

    def __init__(self, state: State) -> None:
        self.state, self.hook, self.now = state, FakeHook(), 10_000.0
        self.endpoints: tuple[str, ...] = ("https://ehr.example/hooks",)
        self.restart()

    def restart(self) -> None:
        """As a new process finds things."""
        limits = SubscriptionLimits(4, self.endpoints)
        router = subscription.router(self.state, BASE, limits, lambda: self.now)
        self.client = TestClient(fhir_app(self.state, BASE, [router]), raise_server_exceptions=False)
        settings = NotifierSettings(BASE, self.endpoints, 3600.0)
        self.notifier = Notifier(self.state, self.hook, settings, lambda: self.now, lambda: 1.0, wait=self.wait)

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def post(self, content: dict[str, Any], status: int = 201, media_type: str = "application/fhir+json") -> Any:
        response = self.client.post("/Subscription", json=content, headers={"Content-Type": media_type})
        assert response.status_code == status, response.text
        return response.json()

    def put(self, content: dict[str, Any], status: int = 200, **headers: str) -> Any:
        headers = {"Content-Type": "application/fhir+json"} | {k.replace("_", "-"): v for k, v in headers.items()}
        response = self.client.put(f"/Subscription/{content['id']}", json=content, headers=headers)
        assert response.status_code == status, response.text
        return response.json()

    def get(self, path: str, status: int = 200, accept: str = "*/*") -> Any:
        response = self.client.get(path, headers={"Accept": accept})
        assert response.status_code == status, response.text
        return response.json()

    def run(self, seconds: int = 0) -> None:
        """Everything that is due within so many seconds."""
        for _ in range(seconds + 1):
            for _ in range(100):
                if not self.notifier.step("w"):
                    break
            else:
                raise AssertionError("the notifier never rests")
            self.now += 1 if seconds else 0

    def commit(self, number: int, **elements: Any) -> None:
        commit(self.state, number, self.now, **elements)


@pytest.fixture
def rig(state: State) -> Rig:
    return Rig(state)


def valid(resource: dict[str, Any], version: str = "4.0") -> dict[str, Any]:
    (r5_class if version == "5.0" else r4_class)(resource["resourceType"]).model_validate(resource)
    return resource


def test_a_topic_is_told_from_the_handshake_on_with_numbers_without_gaps(rig: Rig) -> None:
    rig.commit(1)
    made = valid(rig.post(by_topic(HOOK, header=["Authorization: Bearer s3cret"])))
    assert (made["status"], made["meta"]["versionId"]) == ("requested", "1")
    rig.run()
    rig.commit(2)
    rig.commit(1, description="again")
    rig.run()
    handshake, first, second = map(valid, rig.hook.bundles())
    assert told(handshake) == {"type": "handshake", "status": "requested", "since_start": 0, "events": {}}
    assert told(first) == {
        "type": "event-notification", "status": "active", "since_start": 1, "events": {1: f"{BASE}/ImagingStudy/s2"},
    }  # fmt: skip
    assert told(second)["events"] == {2: f"{BASE}/ImagingStudy/s1"}
    assert first["type"] == "history"
    assert first["entry"][1]["request"] == {"method": "POST", "url": "ImagingStudy"}
    assert second["entry"][1]["request"] == {"method": "PUT", "url": "ImagingStudy/s1"}
    assert "resource" not in first["entry"][1]
    assert all(headers["Authorization"] == "Bearer s3cret" for _, _, headers, _ in rig.hook.sent)
    read = rig.get(f"/Subscription/{made['id']}")
    assert read["status"] == "active"


@pytest.mark.parametrize(
    ("content", "entries", "resources"), [("empty", 0, 0), ("id-only", 3, 0), ("full-resource", 3, 3)]
)
def test_a_notification_brings_as_much_as_was_asked_for(rig: Rig, content: str, entries: int, resources: int) -> None:
    rig.post(by_topic(HOOK, content=content, max_count=10))
    rig.run()
    for n in range(3):
        rig.commit(n, description=str(n))
    rig.run()
    bundle = valid(rig.hook.bundles()[-1])
    found = bundle["entry"][1:]
    assert len(found) == entries
    assert [e["resource"]["description"] for e in found if "resource" in e] == [str(n) for n in range(resources)]
    assert list(told(bundle)["events"]) == [1, 2, 3]
    assert all(bool(focus) == bool(entries) for focus in told(bundle)["events"].values())
    assert (TOPIC in str(bundle)) == bool(entries)


def test_a_full_resource_is_as_its_event_made_it_however_late_it_comes(rig: Rig) -> None:
    rig.post(by_topic(HOOK, content="full-resource"))
    rig.run()
    for text in ("one", "two", "three"):
        rig.commit(1, description=text)
    rig.run()
    bundles = rig.hook.bundles()[1:]
    assert [b["entry"][1]["resource"]["description"] for b in bundles] == ["one", "two", "three"]
    assert [b["entry"][1]["resource"]["meta"]["versionId"] for b in bundles] == ["1", "2", "3"]


def test_filters_leave_out_what_does_not_match(rig: Rig) -> None:
    rig.post(by_topic(HOOK, "ImagingStudy?status=available", "ImagingStudy?patient=a,Patient/b"))
    rig.run()
    rig.commit(1, patient="a")
    rig.commit(2, patient="c")
    rig.commit(3, patient="b")
    rig.commit(4, patient="b", status="cancelled")
    rig.run()
    assert [list(one["events"].values()) for one in rig.hook.told()[1:]] == [
        [f"{BASE}/ImagingStudy/s1"], [f"{BASE}/ImagingStudy/s3"],
    ]  # fmt: skip
    assert rig.hook.numbers() == [1, 2]


def test_criteria_bring_the_resource_by_put_or_an_empty_post(rig: Rig) -> None:
    rig.post(by_criteria(HOOK, header=["X-Key: k"]))
    rig.post(by_criteria("https://ehr.example/hooks/2", payload=None))
    rig.run()
    assert rig.hook.sent == []
    rig.commit(1)
    rig.commit(2, status="cancelled")
    rig.run()
    (put,) = [one for one in rig.hook.sent if one[0] == "PUT"]
    assert put[1] == f"{HOOK}/ImagingStudy/s1"
    assert put[2] == {"X-Key": "k", "Content-Type": "application/fhir+json"}
    assert orjson.loads(put[3])["meta"]["versionId"] == "1"
    (post,) = [one for one in rig.hook.sent if one[0] == "POST"]
    assert post[1:] == ("https://ehr.example/hooks/2", {}, b"")


def test_a_report_is_told_like_a_study(rig: Rig) -> None:
    rig.post(by_topic(HOOK, "DiagnosticReport?status=final&code=http://x%7CAI", topic=REPORTS, content="full-resource"))
    rig.run()
    coded = {"coding": [{"system": "http://x", "code": "AI"}]}
    for id_, status in (("r1", "preliminary"), ("r2", "final")):
        with rig.state._db.write() as connection:
            report = {"resourceType": "DiagnosticReport", "id": id_, "status": status, "code": coded}
            put_all(connection, rig.state._insert, [put("DiagnosticReport", id_, report, "1.2.3")], rig.now)
    rig.run()
    (event,) = rig.hook.bundles()[1:]
    assert event["entry"][1]["resource"]["id"] == "r2"
    (change,) = [c for c in rig.state.changes(0, 9) if c.id == "r2"]
    assert change.study_instance_uid == "1.2.3"


def test_a_deletion_is_told_by_what_was_there_before(rig: Rig) -> None:
    rig.commit(1)
    rig.commit(2, status="cancelled")
    rig.post(by_topic(HOOK, "ImagingStudy?status=available", content="full-resource"))
    rig.run()
    for id_ in ("s1", "s2"):
        with rig.state._db.write() as connection:
            put_all(connection, rig.state._insert, [put("ImagingStudy", id_, None)], rig.now)
    rig.run()
    (event,) = map(valid, rig.hook.bundles()[1:])
    assert [(e["request"]["method"], "resource" in e) for e in event["entry"][1:]] == [("DELETE", False)]
    assert told(event)["events"] == {1: f"{BASE}/ImagingStudy/s1"}


def test_r5_is_spoken_where_it_was_asked_for(rig: Rig) -> None:
    by = {"filterParameter": "status", "value": "available"}
    later = {"filterParameter": "started", "comparator": "ge", "value": "2024"}
    sent = in_r5(HOOK, by, later, parameter=[{"name": "X-Key", "value": "k"}], maxCount=5, heartbeatPeriod=60)
    made = valid(rig.post(sent, media_type=R5_TYPE), "5.0")
    assert made["parameter"] == [{"name": "X-Key", "value": "(not shown)"}]
    rig.run()
    rig.commit(1, started="2024-03-01")
    rig.commit(2, started="2023-03-01")
    rig.commit(3, started="2025-03-01")
    rig.run()
    handshake, events = (valid(bundle, "5.0") for bundle in rig.hook.bundles())
    assert (handshake["type"], told(handshake)["type"]) == ("subscription-notification", "handshake")
    assert told(events)["events"] == {1: f"{BASE}/ImagingStudy/s1", 2: f"{BASE}/ImagingStudy/s3"}
    assert rig.hook.sent[0][2] == {"X-Key": "k", "Content-Type": R5_TYPE}
    response = rig.client.get(f"/Subscription/{made['id']}", headers={"Accept": R5_TYPE})
    assert response.headers["content-type"] == f"{R5_TYPE}; charset=utf-8"
    rig.get(f"/Subscription/{made['id']}", 406, "application/fhir+json; fhirVersion=4.0")
    assert rig.get("/Subscription")["total"] == 0
    assert rig.get("/Subscription", accept=R5_TYPE)["total"] == 1
    status = valid(rig.get(f"/Subscription/{made['id']}/$status")["entry"][0]["resource"], "5.0")
    assert (status["type"], status["eventsSinceSubscriptionStart"]) == ("query-status", "2")


def test_r5_brings_resources_in_r5_as_their_events_made_them(rig: Rig) -> None:
    made = rig.post(in_r5(HOOK, content="full-resource", maxCount=10), media_type=R5_TYPE)
    rig.run()
    study = dict(a_translator().translate(STUDY, {"a": (headers(),)}).resources[-1])
    rig.commit(1, **study | {"id": "s1"})
    rig.commit(1, **study | {"id": "s1", "description": "again"})
    with rig.state._db.write() as connection:
        put_all(connection, rig.state._insert, [put("ImagingStudy", "s1", None)], rig.now)
    rig.run()
    notified = rig.hook.bundles()[-1]
    asked_again = rig.get(f"/Subscription/{made['id']}/$events")
    for bundle in (notified, asked_again):
        assert told_wrong(bundle, "r5") == []
        created, updated, deleted = bundle["entry"][1:]
        assert [e["request"]["method"] for e in (created, updated, deleted)] == ["POST", "PUT", "DELETE"]
        assert created["resource"]["series"][0]["modality"] == {"coding": [study["series"][0]["modality"]]}
        assert (updated["resource"]["description"], updated["resource"]["meta"]["versionId"]) == ("again", "2")
        assert "resource" not in deleted
    assert told(notified)["events"] == dict.fromkeys((1, 2, 3), f"{BASE}/ImagingStudy/s1")
    assert "resource" not in str(rig.get(f"/Subscription/{made['id']}/$events?content=id-only")["entry"][1:])


def test_reports_are_brought_in_r5_too(rig: Rig) -> None:
    made = rig.post(in_r5(HOOK, topic=REPORTS), media_type=R5_TYPE)
    study = {"reference": "ImagingStudy/s"}
    report = {"resourceType": "DiagnosticReport", "id": "r", "status": "final", "code": {"text": "CT"}}
    with rig.state._db.write() as connection:
        put_all(
            connection,
            rig.state._insert,
            [put("DiagnosticReport", "r", report | {"imagingStudy": [study]}, "1.2.3")],
            rig.now,
        )
    rig.run()
    found = rig.get(f"/Subscription/{made['id']}/$events?content=full-resource")
    assert told_wrong(found, "r5") == []
    assert found["entry"][1]["resource"]["study"] == [study]


def test_whoever_is_down_misses_nothing_and_delays_nobody(rig: Rig) -> None:
    other = "https://ehr.example/hooks/other"
    made = rig.post(by_topic(HOOK, max_count=2))
    rig.post(by_topic(other))
    rig.run()
    rig.hook.problems[HOOK] = SinkUnavailable("HTTP 503")
    for n in range(5):
        rig.commit(n)
        rig.run(3)
    assert rig.hook.numbers(other) == [1, 2, 3, 4, 5]
    read = rig.get(f"/Subscription/{made['id']}")
    assert (read["status"], read["error"]) == ("error", "HTTP 503")
    valid(read)
    assert rig.hook.numbers() == []
    rig.hook.problems.clear()
    rig.run(60)
    assert rig.hook.numbers() == [1, 2, 3, 4, 5]
    assert "error" not in rig.get(f"/Subscription/{made['id']}")
    assert rig.get(f"/Subscription/{made['id']}")["status"] == "active"


def test_failures_are_tried_again_less_and_less_often_and_then_no_more(rig: Rig) -> None:
    made = rig.post(by_topic(HOOK))
    tries: list[float] = []
    rig.hook.problems[HOOK] = SinkUnavailable("connection refused")
    rig.hook.at = lambda: tries.append(rig.now)
    rig.run(2000)
    waits = [round(after - before) for before, after in pairwise(tries)]
    assert waits[:4] == [1, 2, 4, 8]
    assert max(waits) <= 301
    rig.run(2000)
    read = rig.get(f"/Subscription/{made['id']}")
    assert (read["status"], read["error"]) == ("off", "given up: connection refused")
    many = len(tries)
    rig.commit(1)
    rig.run(1000)
    assert len(tries) == many
    rig.hook.problems.clear()
    rig.put(by_topic(HOOK) | {"id": made["id"]})
    rig.run()
    assert [one["type"] for one in rig.hook.told()] == ["handshake", "event-notification"]


def test_a_receiver_that_asks_for_time_gets_it(rig: Rig) -> None:
    rig.post(by_topic(HOOK))
    tries: list[float] = []
    rig.hook.at = lambda: tries.append(rig.now)
    rig.hook.problems[HOOK] = SinkUnavailable("HTTP 429", 100.0)
    rig.run(150)
    assert tries[1] - tries[0] == pytest.approx(100, abs=1)


def test_a_process_that_dies_goes_on_where_the_receiver_is(rig: Rig) -> None:
    rig.post(by_topic(HOOK))
    rig.run()
    rig.commit(1)

    def die() -> None:
        raise KeyboardInterrupt

    rig.hook.at = die
    with pytest.raises(KeyboardInterrupt):
        rig.notifier.step("w")
    rig.hook.at = lambda: None
    rig.commit(2)
    rig.now += 31
    rig.restart()
    rig.run()
    assert rig.hook.numbers() == [1, 2]


def test_what_was_taken_but_not_noted_is_told_again_under_the_same_number_and_id(rig: Rig) -> None:
    rig.post(by_topic(HOOK))
    rig.run()
    rig.commit(1)
    note_taken = rig.state.note_taken

    def die(*_: object) -> Any:
        raise KeyboardInterrupt

    rig.state.note_taken = die  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        rig.notifier.step("w")
    rig.state.note_taken = note_taken  # type: ignore[method-assign]
    rig.now += 31
    rig.restart()
    rig.run()
    assert rig.hook.numbers() == [1, 1]
    first, again = rig.hook.bundles()[1:]
    assert first["id"] == again["id"]


def test_a_state_that_is_away_for_a_while_loses_nothing(rig: Rig) -> None:
    rig.post(by_topic(HOOK))
    rig.run()
    rig.commit(1)
    note_taken, retry = rig.state.note_taken, rig.state.retry
    away = [StateUnavailable("state: away")] * 3

    def failing(*_: object) -> Any:
        if away:
            raise away.pop()
        rig.state.retry = retry  # type: ignore[method-assign]
        rig.state.note_taken = note_taken  # type: ignore[method-assign]
        raise StateUnavailable("state: away")

    rig.state.note_taken = rig.state.retry = failing  # type: ignore[method-assign]
    rig.notifier.step("w")
    assert rig.hook.numbers() == [1]
    rig.run(5)
    assert rig.hook.numbers() == [1, 1]
    (left,) = rig.state.items(queue="subscription")
    assert left.error == ""


def test_a_bug_parks_the_subscription_that_met_it_and_no_other(rig: Rig) -> None:
    rig.post(by_topic(HOOK))
    rig.post(by_topic("https://ehr.example/hooks/2"))
    rig.run()
    rig.hook.problems[HOOK] = ZeroDivisionError("Muster")  # type: ignore[assignment]
    rig.commit(1)
    rig.run()
    (parked,) = rig.state.items(parked=True)
    assert "ZeroDivisionError" in parked.error
    assert "Muster" not in parked.error
    assert rig.hook.numbers("https://ehr.example/hooks/2") == [1]
    rig.hook.problems.clear()
    rig.commit(2)
    rig.run()
    assert rig.hook.numbers() == [1, 2]


def test_a_heartbeat_comes_when_nothing_else_did(rig: Rig) -> None:
    rig.post(by_topic(HOOK, heartbeat_period=10))
    rig.run(25)
    assert [one["type"] for one in rig.hook.told()] == ["handshake", "heartbeat", "heartbeat"]
    rig.commit(1)
    rig.run(5)
    rig.run(12)
    kinds = [one["type"] for one in rig.hook.told()]
    assert kinds == ["handshake", "heartbeat", "heartbeat", "event-notification", "heartbeat"]
    assert rig.hook.told()[-1]["since_start"] == 1
    valid(rig.hook.bundles()[-1])


def test_a_change_while_a_heartbeat_fails_is_told_when_it_works_again(rig: Rig) -> None:
    rig.post(by_topic(HOOK, heartbeat_period=10))
    rig.run()
    rig.hook.problems[HOOK] = SinkUnavailable("HTTP 500")
    rig.run(12)
    rig.hook.problems.clear()

    def change() -> None:
        rig.hook.at = lambda: None
        rig.commit(7)
        rig.notifier.step("another")  # wakes whom it finds working

    rig.hook.at = change
    while len(rig.hook.told()) < 2:
        rig.run(1)
    assert [one["type"] for one in rig.hook.told()] == ["handshake", "heartbeat", "event-notification"]


def test_an_end_that_is_over_is_off(rig: Rig) -> None:
    made = rig.post(by_topic(HOOK) | {"end": "1970-01-01T02:46:50Z"})
    rig.run()
    rig.commit(1)
    rig.run()
    rig.now += 100
    rig.commit(2)
    rig.run()
    assert rig.hook.numbers() == [1]
    assert rig.get(f"/Subscription/{made['id']}")["status"] == "off"


def test_an_endpoint_that_is_not_allowed_any_more_is_never_called(rig: Rig) -> None:
    made = rig.post(by_topic(HOOK))
    rig.run()
    rig.endpoints = ("https://elsewhere.example/",)
    rig.restart()
    rig.commit(1)
    rig.run()
    assert rig.hook.numbers() == []
    read = rig.get(f"/Subscription/{made['id']}")
    assert read["status"] == "off"
    assert "subscription_endpoints" in read["error"]


def test_a_deleted_subscription_is_told_nothing_more(rig: Rig) -> None:
    made = rig.post(by_topic(HOOK))
    rig.run()
    rig.commit(1)
    assert rig.client.delete(f"/Subscription/{made['id']}").status_code == 204
    rig.run()
    assert rig.hook.numbers() == []
    rig.get(f"/Subscription/{made['id']}", 404)
    assert rig.client.delete(f"/Subscription/{made['id']}").status_code == 404
    assert rig.state.items(queue="subscription") == []


def test_a_subscription_deleted_while_it_is_told_ends_quietly(rig: Rig) -> None:
    made = rig.post(by_topic(HOOK))
    rig.run()
    rig.commit(1)
    rig.commit(2)
    rig.hook.at = lambda: rig.state.remove_subscription(made["id"]) and None
    rig.run()
    assert rig.hook.numbers() == [1]
    assert rig.state.items(queue="subscription") == []


def test_another_version_written_while_it_is_told_begins_with_its_handshake(rig: Rig) -> None:
    made = rig.post(by_topic(HOOK))
    rig.run()
    rig.commit(1)

    def change() -> None:
        rig.hook.at = lambda: None
        rig.put(by_topic("https://ehr.example/hooks/new") | {"id": made["id"]})

    rig.hook.at = change
    rig.run()
    assert [one["type"] for one in rig.hook.told("https://ehr.example/hooks/new")] == [
        "handshake",
        "event-notification",
    ]
    assert rig.hook.numbers("https://ehr.example/hooks/new") == [1]
    assert rig.get(f"/Subscription/{made['id']}")["meta"]["versionId"] == "2"


def test_events_can_be_asked_for_again(rig: Rig) -> None:
    made = rig.post(by_topic(HOOK, max_count=10))
    rig.run()
    for n in range(5):
        rig.commit(n, description=str(n))
    rig.run()
    place = f"/Subscription/{made['id']}/$events"
    some = valid(rig.get(f"{place}?eventsSinceNumber=2&eventsUntilNumber=4"))
    assert (told(some)["type"], list(told(some)["events"]), told(some)["since_start"]) == ("query-event", [2, 3, 4], 5)
    full = valid(rig.get(f"{place}?content=full-resource"))
    assert [e["resource"]["description"] for e in full["entry"][1:]] == ["0", "1", "2", "3", "4"]
    given = [{"name": "eventsSinceNumber", "valueString": "5"}, {"name": "content", "valueCode": "empty"}]
    posted = rig.client.post(
        place,
        json={"resourceType": "Parameters", "parameter": given},
        headers={"Content-Type": "application/fhir+json"},
    )
    assert told(posted.json())["events"] == {5: ""}
    rig.get(f"{place}?content=all", 400)
    rig.get(f"{place}?eventsSinceNumber=-1", 400)
    rig.get(f"{place}?eventsSinceNumber=9999999999999999999", 400)


def test_status_is_told_of_one_and_of_many(rig: Rig) -> None:
    made = [rig.post(by_topic(HOOK)), rig.post(by_topic("https://ehr.example/hooks/2"))]
    rig.run()
    rig.commit(1)
    rig.run()
    one = valid(rig.get(f"/Subscription/{made[0]['id']}/$status"))
    assert (one["type"], len(one["entry"])) == ("searchset", 1)
    assert told(one)["since_start"] == 1
    assert len(rig.get("/Subscription/$status")["entry"]) == 2
    assert len(rig.get(f"/Subscription/$status?id={made[1]['id']}")["entry"]) == 1
    assert "entry" not in rig.get("/Subscription/$status?status=off")
    posted = rig.client.post(f"/Subscription/{made[0]['id']}/$status")
    assert told(posted.json()) == told(one)


def test_subscribers_in_threads_of_their_own_get_everything_once_and_in_order(state: State) -> None:
    rig = Rig(state)
    threads: list[threading.Thread] = []

    def spread(work: Callable[[], None]) -> None:
        threads.append(threading.Thread(target=work))
        threads[-1].start()

    rig.notifier._spread = spread
    places = [f"https://ehr.example/hooks/{n}" for n in range(4)]
    for place in places:
        rig.post(by_topic(place))
    for n in range(10):
        rig.notifier.step("w")
        rig.commit(n)
    for _ in range(200):
        rig.notifier.step("w")
        for thread in threads:
            thread.join()
        threads.clear()
        if all(rig.hook.numbers(place) == list(range(1, 11)) for place in places):
            return
    raise AssertionError([rig.hook.numbers(place) for place in places])


def test_topics_are_read_in_their_r5_form(rig: Rig) -> None:
    bundle = rig.get("/SubscriptionTopic")
    assert [e["resource"]["url"] for e in bundle["entry"]] == [TOPIC, REPORTS]
    one = valid(rig.get("/SubscriptionTopic/ImagingStudy-changed"), "5.0")
    assert {"filterParameter": "modality", "resource": "ImagingStudy"} in one["canFilterBy"]
    rig.get("/SubscriptionTopic/none", 404)
