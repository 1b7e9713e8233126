from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bridge.follow.endpoints import is_allowed
from bridge.state import State
from tests.subscribing import BACKPORT, by_criteria, by_topic, in_r5
from tests.unit.test_changefeed import state as state
from tests.unit.test_notifier import HOOK, R5_TYPE, Rig, valid

SECRET = "Bearer s3cret"


@pytest.fixture
def rig(state: State) -> Iterator[Rig]:
    yield Rig(state)


def test_a_subscription_is_created_read_changed_found_and_deleted(rig: Rig) -> None:
    response = rig.client.post(
        "/Subscription", json=by_criteria(HOOK), headers={"Content-Type": "application/fhir+json"}
    )
    made = response.json()
    assert response.headers["location"] == f"http://h/fhir/Subscription/{made['id']}"
    assert response.headers["etag"] == 'W/"1"'
    assert rig.get(f"/Subscription/{made['id']}") == valid(made)
    changed = rig.put(made | {"reason": "another", "status": "off"}, If_Match='W/"1"')
    assert (changed["reason"], changed["status"], changed["meta"]["versionId"]) == ("another", "off", "2")
    rig.put(made, 412, If_Match='W/"1"')
    rig.run()
    rig.commit(1)
    rig.run()
    assert rig.hook.sent == []
    for query, count in (
        ("", 1), ("?status=off", 1), ("?status=active", 0), (f"?_id={made['id']}", 1), (f"?url={HOOK}", 1),
        ("?url=https://ehr.example/hooks/2", 0),
    ):  # fmt: skip
        bundle = valid(rig.get(f"/Subscription{query}"))
        assert bundle["total"] == count
    rig.get("/Subscription?colour=blue", 400)
    assert rig.client.delete(f"/Subscription/{made['id']}").status_code == 204
    assert rig.get("/Subscription")["total"] == 0


@pytest.mark.parametrize("version", ["4.0", "5.0"])
def test_the_values_of_headers_are_never_shown_and_stay_when_sent_back(rig: Rig, version: str) -> None:
    r5 = version == "5.0"
    sent = in_r5(HOOK, parameter=[{"name": "Authorization", "value": SECRET}]) if r5 else by_topic(
        HOOK, header=[f"Authorization: {SECRET}"]
    )  # fmt: skip
    media_type = R5_TYPE if r5 else "application/fhir+json"
    made = rig.post(sent, media_type=media_type)
    shown = [made, rig.get(f"/Subscription/{made['id']}"), rig.get("/Subscription", accept=media_type)]
    shown.append(rig.put(made, Content_Type=media_type))
    assert SECRET not in str(shown)
    rig.run()
    assert rig.hook.sent[-1][2]["Authorization"] == SECRET
    moved = dict(made)
    if r5:
        moved["endpoint"] = "https://ehr.example/hooks/2"
    else:
        moved["channel"] = made["channel"] | {"endpoint": "https://ehr.example/hooks/2"}
    outcome = rig.put(moved, 400, Content_Type=media_type)
    assert "give the values anew" in outcome["issue"][0]["diagnostics"]


def test_subscriptions_are_bounded_in_number(rig: Rig) -> None:
    made = [rig.post(by_topic(HOOK)) for _ in range(4)]
    rig.post(by_topic(HOOK), 422)
    rig.client.delete(f"/Subscription/{made[0]['id']}")
    rig.post(by_topic(HOOK))


def test_without_endpoints_there_are_no_subscriptions(rig: Rig) -> None:
    rig.endpoints = ()
    rig.restart()
    outcome = rig.post(by_topic(HOOK), 403)
    assert "subscription_endpoints" in outcome["issue"][0]["diagnostics"]
    assert outcome["issue"][0]["code"] == "forbidden"


@pytest.mark.parametrize(
    ("endpoint", "allowed"),
    [
        ("https://ehr.example/hooks", True),
        ("https://ehr.example/hooks/", True),
        ("https://ehr.example/hooks/a/b", True),
        ("https://EHR.example:443/hooks", True),
        ("https://ehr.example/hooksmith", False),
        ("https://ehr.example/", False),
        ("https://ehr.example/hooks/../admin", False),
        ("https://ehr.example/hooks/%2e%2e/admin", False),
        ("https://ehr.example/hooks/..%2fadmin", False),
        ("https://ehr.example/hooks\\..\\admin", False),
        ("https://ehr.example:8443/hooks", False),
        ("http://ehr.example/hooks", False),
        ("https://ehr.example.evil.example/hooks", False),
        ("https://ehr.example@evil.example/hooks", False),
        ("https://evil.example/https://ehr.example/hooks", False),
        ("https://ehr.example/hooks?a=b", False),
        ("https://ehr.example/hooks#a", False),
        ("https://ehr.example:0x1bb/hooks", False),
        ("https://ehr.example:99999/hooks", False),
        ("https://ehr.example/hooks\n", False),
        ("file:///etc/passwd", False),
        ("", False),
    ],
)
def test_only_what_the_operator_names_is_notified(rig: Rig, endpoint: str, allowed: bool) -> None:
    assert is_allowed(endpoint, ["https://ehr.example/hooks"]) == allowed
    response = rig.client.post(
        "/Subscription", json=by_topic(endpoint), headers={"Content-Type": "application/fhir+json"}
    )
    assert (response.status_code == 201) == allowed
    assert response.status_code in (201, 400, 403)


def without(content: dict[str, Any], *path: str) -> dict[str, Any]:
    changed = dict(content)
    if len(path) == 1:
        del changed[path[0]]
    else:
        changed[path[0]] = without(content[path[0]], *path[1:])
    return changed


def wrong() -> list[tuple[dict[str, Any], str]]:
    extended = by_topic(HOOK)
    other = [{"url": f"{BACKPORT}backport-other", "valueString": "a"}]
    return [
        (by_topic(HOOK) | {"criteria": "https://nowhere.example/topic"}, "topics here are"),
        (by_topic(HOOK, "Patient?name=x"), "allowed resource types: ImagingStudy"),
        (by_topic(HOOK, "ImagingStudy?colour=blue"), "cannot filter by colour"),
        (by_topic(HOOK, "ImagingStudy?_sort=started"), "cannot filter by _sort"),
        (by_topic(HOOK, "ImagingStudy?_include=ImagingStudy:patient"), "cannot filter by _include"),
        (by_topic(HOOK, "ImagingStudy?patient.name=x"), "what a reference leads to"),
        (by_topic(HOOK, "ImagingStudy?started=yesterday"), "started: not a date"),
        (by_topic(HOOK, content="all"), "backport-payload-content: allowed are"),
        (without(by_topic(HOOK), "channel", "_payload"), "backport-payload-content: allowed are"),
        (by_topic(HOOK, heartbeat_period=1), "backport-heartbeat-period"),
        (by_topic(HOOK, timeout=100_000), "backport-timeout"),
        (by_topic(HOOK, max_count=0), "backport-max-count"),
        (by_topic(HOOK, header=["Host: other.example"]), "not the name of a header"),
        (by_topic(HOOK, header=["X-A: b\r\nX-C: d"]), "printable ASCII"),
        (by_topic(HOOK, header=["no header"]), "not the name of a header"),
        (by_topic(HOOK, header=[f"X-{n}: a" for n in range(30)]), "at most 20"),
        (extended | {"_criteria": {"extension": other}}, "allowed is backport-filter-criteria"),
        (by_criteria(HOOK, "Patient?name=x"), "allowed resource types"),
        (by_criteria(HOOK, "ImagingStudy?" + "a=b&" * 200), "too many"),
        (by_criteria(HOOK, payload="application/fhir+xml"), "payload: allowed is"),
        (by_criteria(HOOK, type="email"), "allowed is rest-hook"),
        (by_criteria(HOOK) | {"channel": []}, "Subscription.channel"),
        (by_criteria(HOOK) | {"colour": "blue"}, "Subscription.colour: not supported"),
        (by_criteria(HOOK) | {"contact": "me"}, "not valid FHIR"),
        (by_criteria(HOOK) | {"end": "soon"}, "not an instant"),
        (without(by_criteria(HOOK), "reason"), "Subscription.reason"),
        (without(by_criteria(HOOK), "criteria"), "Subscription.criteria"),
        ({"resourceType": "Patient"}, "not a Subscription"),
        ([], "not a Subscription"),  # type: ignore[list-item]
    ]


@pytest.mark.parametrize(("content", "told"), wrong())
def test_what_cannot_be_done_is_told_by_its_element(rig: Rig, content: dict[str, Any], told: str) -> None:
    outcome = rig.post(content, 400)
    assert told in outcome["issue"][0]["diagnostics"]
    assert rig.get("/Subscription")["total"] == 0


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (in_r5(HOOK, topic="https://nowhere.example/topic"), "topics here are"),
        (in_r5(HOOK, channelType={"code": "websocket"}), "allowed is rest-hook"),
        (in_r5(HOOK, contentType="application/fhir+xml"), "contentType"),
        (in_r5(HOOK, {"filterParameter": "colour", "value": "blue"}), "cannot filter by colour"),
        (
            in_r5(HOOK, {"filterParameter": "status", "value": "a", "resourceType": "Patient"}),
            "allowed is ImagingStudy",
        ),
        (in_r5(HOOK, {"filterParameter": "status", "comparator": "~", "value": "a"}), "comparator"),
        (in_r5(HOOK, {"filterParameter": "status"}), "filterBy.value"),
        (in_r5(HOOK, {"filterParameter": "status", "modifier": "in", "value": "a"}), "modifier"),
        (in_r5(HOOK, parameter=[{"name": "a"}]), "a name and a value"),
        (in_r5(HOOK, maxCount=0), "maxCount"),
        (in_r5(HOOK, criteria="ImagingStudy"), "Subscription.criteria: not supported"),
    ],
)
def test_what_cannot_be_done_in_r5_is_told_by_its_element(rig: Rig, content: dict[str, Any], told: str) -> None:
    outcome = rig.post(content, 400, R5_TYPE)
    assert told in outcome["issue"][0]["diagnostics"]


def paths(content: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every value in a JSON value."""
    yield at
    children = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, child in children:
        yield from paths(child, (*at, key))


def replaced(content: Any, at: tuple[Any, ...], value: Any) -> Any:
    if not at:
        return value
    changed = dict(content) if isinstance(content, dict) else list(content)
    changed[at[0]] = replaced(content[at[0]], at[1:], value)
    return changed


FORMS = (
    by_criteria(HOOK, header=["X-A: b"]),
    by_topic(HOOK, "ImagingStudy?modality=CT", heartbeat_period=60, header=["X-A: b"])
    | {"end": "2999-01-01T00:00:00Z"},
    in_r5(HOOK, {"filterParameter": "modality", "value": "CT"}, parameter=[{"name": "X-A", "value": "b"}]),
)


@pytest.mark.parametrize("form", FORMS, ids=["criteria", "topic", "R5"])
@pytest.mark.parametrize("value", [None, 1, -1.5, True, "", "x", "x" * 70_000, [], [None], {}, {"a": 1}, [[["x"]]]])
def test_no_value_anywhere_breaks_the_server_or_the_notifier(rig: Rig, form: dict[str, Any], value: Any) -> None:
    media_type = R5_TYPE if "topic" in form else "application/fhir+json"
    rig.client.delete(f"/Subscription/{rig.post(form, media_type=media_type)['id']}")
    for at in list(paths(form)):
        response = rig.client.post(
            "/Subscription", json=replaced(form, at, value), headers={"Content-Type": media_type}
        )
        assert response.status_code in (201, 400, 403, 413), (at, response.text)
        if response.status_code == 201:
            valid(rig.get(f"/Subscription/{response.json()['id']}"), "5.0" if "topic" in form else "4.0")
            rig.run()
            rig.client.delete(f"/Subscription/{response.json()['id']}")
    assert rig.state.items(parked=True) == []


def test_what_is_nested_too_deeply_is_refused(rig: Rig) -> None:
    extension: dict[str, Any] = {"url": "http://x"}
    for _ in range(400):
        extension = {"url": "http://x", "extension": [extension]}
    outcome = rig.post(by_topic(HOOK) | {"extension": [extension]}, 400)
    assert "nested" in outcome["issue"][0]["diagnostics"]


def test_other_media_types_and_versions_are_refused(rig: Rig) -> None:
    rig.post(by_topic(HOOK), 415, "application/fhir+xml")
    rig.post(by_topic(HOOK), 415, "application/fhir+json; fhirVersion=3.0")
    rig.post(by_topic(HOOK) | {"text": {"status": "generated", "div": "x" * 70_000}}, 413)
    broken = rig.client.post("/Subscription", content=b"{", headers={"Content-Type": "application/fhir+json"})
    assert broken.status_code == 400
    made = rig.post(by_topic(HOOK))
    rig.put(in_r5(HOOK) | {"id": made["id"]}, 400, Content_Type=R5_TYPE)
    rig.put(made | {"id": "another"}, 404)
    rig.get("/Subscription/none/$events", 404)
    rig.get("/Subscription/none/$status", 404)
    rig.get(f"/Subscription/{made['id']}", 406, "application/fhir+xml")
