"""Subscriptions as clients write them, and what notifications say, for tests."""

from __future__ import annotations

from typing import Any

BACKPORT = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/"
TOPIC = "https://imaging-bridge.example/SubscriptionTopic/ImagingStudy-changed"
REPORTS = "https://imaging-bridge.example/SubscriptionTopic/DiagnosticReport-changed"


def by_criteria(endpoint: str, criteria: str = "ImagingStudy?status=available", **channel: Any) -> dict[str, Any]:
    """R4 with criteria."""
    sent = {"type": "rest-hook", "endpoint": endpoint, "payload": "application/fhir+json"} | channel
    return {
        "resourceType": "Subscription",
        "status": "requested",
        "reason": "to keep a copy",
        "criteria": criteria,
        "channel": {k: v for k, v in sent.items() if v is not None},
    }


def by_topic(
    endpoint: str, *filters: str, content: str = "id-only", topic: str = TOPIC, **tuned: int | list[str]
) -> dict[str, Any]:
    """R4 with a topic; `heartbeat_period`, `timeout`, `max_count`, and `header` as its lines."""
    kinds = {"heartbeat_period": "valueUnsignedInt", "timeout": "valueUnsignedInt", "max_count": "valuePositiveInt"}
    extensions = [
        {"url": f"{BACKPORT}backport-{name.replace('_', '-')}", kinds[name]: value}
        for name, value in tuned.items()
        if name != "header"
    ]
    payload = [{"url": f"{BACKPORT}backport-payload-content", "valueCode": content}]
    made = by_criteria(endpoint, topic, _payload={"extension": payload}, header=tuned.get("header"))
    if extensions:
        made["channel"]["extension"] = extensions
    if filters:
        criteria = [{"url": f"{BACKPORT}backport-filter-criteria", "valueString": one} for one in filters]
        made["_criteria"] = {"extension": criteria}
    return made | {"meta": {"profile": [f"{BACKPORT}backport-subscription"]}}


def in_r5(endpoint: str, *filters: dict[str, str], content: str = "id-only", **elements: Any) -> dict[str, Any]:
    """R5."""
    made = {
        "resourceType": "Subscription",
        "status": "requested",
        "topic": TOPIC,
        "channelType": {"code": "rest-hook"},
        "endpoint": endpoint,
        "content": content,
    }
    return made | ({"filterBy": list(filters)} if filters else {}) | elements


def told(bundle: dict[str, Any]) -> dict[str, Any]:
    """What the status of a notification says, R4 or R5: type, status, since_start, and events as {number: focus}."""
    status = bundle["entry"][0]["resource"]
    if status["resourceType"] == "SubscriptionStatus":
        events = {
            int(e["eventNumber"]): e.get("focus", {}).get("reference", "") for e in status.get("notificationEvent", [])
        }
        since = int(status["eventsSinceSubscriptionStart"])
        return {"type": status["type"], "status": status["status"], "since_start": since, "events": events}
    values = {p["name"]: next((v for k, v in p.items() if k != "name"), None) for p in status["parameter"]}
    events = {}
    for parameter in status["parameter"]:
        if parameter["name"] == "notification-event":
            parts = {p["name"]: p for p in parameter["part"]}
            focus = parts.get("focus", {}).get("valueReference", {}).get("reference", "")
            events[int(parts["event-number"]["valueString"])] = focus
    since = int(values["events-since-subscription-start"])
    return {"type": values["type"], "status": values["status"], "since_start": since, "events": events}
