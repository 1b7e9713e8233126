"""Notifications as Bundles: R4 (Subscriptions R5 Backport) and R5. Pure: same events in, same Bundle out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID, uuid5

from bridge.follow.ports import Event, Subscription
from bridge.follow.subscription import Payload, Wanted
from bridge.follow.subscription_r4 import BACKPORT
from bridge.follow.versions import R5
from bridge.model import Change, ChangeAction, Resource, StoredResource
from bridge.translate.meta import instant, with_meta
from bridge.translate.r5 import to_r5

_NAMESPACE = UUID("0f4a9a55-1d0b-57c5-8a53-6b8f6a0c5e11")
_REQUESTS = {
    ChangeAction.CREATED: ("POST", "201"),
    ChangeAction.UPDATED: ("PUT", "200"),
    ChangeAction.DELETED: ("DELETE", "204"),
}


class NotificationType(StrEnum):
    """FHIR R5 SubscriptionStatus.type, required binding."""

    HANDSHAKE = "handshake"
    HEARTBEAT = "heartbeat"
    EVENT = "event-notification"
    QUERY_STATUS = "query-status"
    QUERY_EVENT = "query-event"


@dataclass(frozen=True)
class Notification:
    """What a Bundle tells of a subscription.

    Result  `events` in order; `contents` revision → the resource as that change made it, for those that are to be in
            the Bundle; `now` seconds since the epoch
    """

    subscription: Subscription
    wanted: Wanted
    type: NotificationType
    payload: Payload
    now: float
    events: Sequence[Event] = ()
    contents: Mapping[int, StoredResource] = field(default_factory=dict)


def bundle(base: str, told: Notification) -> Resource:
    """The notification; `base` is the address of the FHIR API. The same events always have the same Bundle.id."""
    if told.subscription.fhir_version == R5:
        return _bundle_r5(base, told)
    status = {
        "fullUrl": f"urn:uuid:{_id(told, 'status')}",
        "resource": status_r4(base, told),
        "request": {"method": "GET", "url": f"Subscription/{told.subscription.id}/$status"},
        "response": {"status": "200"},
    }
    found = [] if told.payload is Payload.EMPTY else [_entry(base, told, event.change) for event in told.events]
    return {
        "resourceType": "Bundle",
        "id": _id(told, "bundle"),
        "meta": {"profile": [f"{BACKPORT}backport-subscription-notification-r4"]},
        "type": "history",
        "timestamp": instant(told.now),
        "entry": [status, *found],
    }


def status_r4(base: str, told: Notification) -> Resource:
    """Parameters of profile backport-subscription-status-r4."""
    subscription = told.subscription
    parameters: list[Resource] = [
        {"name": "subscription", "valueReference": {"reference": f"{base}/Subscription/{subscription.id}"}}
    ]
    if told.wanted.topic and told.payload is not Payload.EMPTY:
        parameters.append({"name": "topic", "valueCanonical": told.wanted.topic})
    parameters += [
        {"name": "status", "valueCode": subscription.status.value},
        {"name": "type", "valueCode": told.type.value},
        {"name": "events-since-subscription-start", "valueString": str(_since_start(told))},
    ]
    for event in told.events:
        parts: list[Resource] = [
            {"name": "event-number", "valueString": str(event.number)},
            {"name": "timestamp", "valueInstant": instant(event.change.last_updated)},
        ]
        if told.payload is not Payload.EMPTY:
            parts.append({"name": "focus", "valueReference": {"reference": _place(base, event.change)}})
        parameters.append({"name": "notification-event", "part": parts})
    if subscription.error:
        parameters.append({"name": "error", "valueCodeableConcept": {"text": subscription.error}})
    return {
        "resourceType": "Parameters",
        "id": _id(told, "status"),
        "meta": {"profile": [f"{BACKPORT}backport-subscription-status-r4"]},
        "parameter": parameters,
    }


def status_r5(base: str, told: Notification) -> Resource:
    """A SubscriptionStatus. FHIR R5."""
    subscription = told.subscription
    status: Resource = {
        "resourceType": "SubscriptionStatus",
        "id": _id(told, "status"),
        "status": subscription.status.value,
        "type": told.type.value,
        "eventsSinceSubscriptionStart": str(_since_start(told)),
    }
    events = []
    for event in told.events:
        one: Resource = {"eventNumber": str(event.number), "timestamp": instant(event.change.last_updated)}
        if told.payload is not Payload.EMPTY:
            one["focus"] = {"reference": _place(base, event.change)}
        events.append(one)
    if events:
        status["notificationEvent"] = events
    status["subscription"] = {"reference": f"{base}/Subscription/{subscription.id}"}
    if told.payload is not Payload.EMPTY:
        status["topic"] = told.wanted.topic
    return status | ({"error": [{"text": subscription.error}]} if subscription.error else {})


def _bundle_r5(base: str, told: Notification) -> Resource:
    status = {"fullUrl": f"urn:uuid:{_id(told, 'status')}", "resource": status_r5(base, told)}
    full = told.payload is Payload.FULL_RESOURCE
    found = [_entry(base, told, event.change, to_r5) for event in told.events] if full else []
    return {
        "resourceType": "Bundle",
        "id": _id(told, "bundle"),
        "type": "subscription-notification",
        "timestamp": instant(told.now),
        "entry": [status, *found],
    }


def _since_start(told: Notification) -> int:
    """The number of the last event told, or of all there are where none is."""
    return told.events[-1].number if told.type is NotificationType.EVENT else told.subscription.events


def _entry(base: str, told: Notification, change: Change, project: Callable[[Resource], Resource] = dict) -> Resource:
    """What a change did; the resource as it made it, `project`ed to a FHIR version, where contents are told."""
    method, status = _REQUESTS[change.action]
    url = change.resource_type if method == "POST" else f"{change.resource_type}/{change.id}"
    entry: Resource = {"fullUrl": _place(base, change)}
    if change.revision in told.contents and change.action is not ChangeAction.DELETED:
        entry["resource"] = project(with_meta(told.contents[change.revision]))
    return entry | {"request": {"method": method, "url": url}, "response": {"status": status}}


def _place(base: str, change: Change) -> str:
    return f"{base}/{change.resource_type}/{change.id}"


def _id(told: Notification, what: str) -> str:
    numbers = [event.number for event in told.events]
    moment = f"{numbers[0]}-{numbers[-1]}" if numbers else instant(told.now)
    return str(uuid5(_NAMESPACE, f"{told.subscription.id}|{told.type}|{moment}|{what}"))
