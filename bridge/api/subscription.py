"""Subscriptions by FHIR: create, read, update, delete, search, $status and $events; the topics there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol
from urllib.parse import parse_qsl
from uuid import uuid4

from fastapi import APIRouter, Header, Request, Response
from starlette.exceptions import HTTPException

from bridge.api.bundle import FhirJson, http_date, searchset
from bridge.api.negotiation import SentBody, acceptable, fhir_version, posted_parameters, sent_json
from bridge.errors import InvalidQuery
from bridge.follow.endpoints import is_allowed
from bridge.follow.export import groups
from bridge.follow.notification import Notification, NotificationType, bundle, status_r4, status_r5
from bridge.follow.ports import Event, Subscription, SubscriptionStatus
from bridge.follow.subscription import Payload, Wanted, payload, with_status
from bridge.follow.topics import TOPICS, topic, topic_id
from bridge.follow.versions import R4, R5, media_type, redacted, unredacted, wanted
from bridge.model import Change, Resource, StoredResource
from bridge.translate.meta import instant
from bridge.translate.validate import validate_sent

MAXIMUM_BYTES, DEEPEST = 65_536, 30
EVENTS_AT_ONCE, EVENT_BYTES = 1000, 16_777_216
_LAST = 2**63 - 1


class SubscriptionsState(Protocol):
    """What of the state subscribers reach."""

    def add_subscription(self, new: Subscription, most: int, now: float) -> bool: ...

    def subscription(self, id_: str) -> Subscription | None: ...

    def subscriptions(self) -> list[Subscription]: ...

    def change_subscription(
        self, old: Subscription, content: Resource, status: SubscriptionStatus, now: float
    ) -> Subscription | None: ...

    def remove_subscription(self, id_: str) -> bool: ...

    def events(self, id_: str, after: int, limit: int) -> list[Event]: ...

    def versions(self, changes: Sequence[Change]) -> list[StoredResource]: ...


@dataclass(frozen=True)
class SubscriptionLimits:
    """`most` subscriptions at once; `endpoints` the addresses they may name, none: there are no subscriptions."""

    most: int
    endpoints: tuple[str, ...]


def router(state: SubscriptionsState, base: str, limits: SubscriptionLimits, clock: Callable[[], float]) -> APIRouter:
    """Routes under /Subscription and /SubscriptionTopic; `base` is the public address of the FHIR API."""
    routes, api = APIRouter(), _Subscriptions(state, base, limits, clock)

    @routes.post("/Subscription")
    def create(request: Request, body: SentBody) -> FhirJson:
        return api.create(request, body)

    @routes.get("/Subscription")
    def search(request: Request) -> FhirJson:
        return api.search(request)

    @routes.get("/Subscription/$status")
    def status_of_many(request: Request) -> FhirJson:
        return api.status(request, None, _query(request))

    @routes.post("/Subscription/$status")
    def post_status_of_many(request: Request, body: SentBody) -> FhirJson:
        return api.status(request, None, posted_parameters(request, body))

    @routes.get("/Subscription/{id_}")
    def read(id_: str, request: Request) -> FhirJson:
        return api.read(request, id_)

    @routes.put("/Subscription/{id_}")
    def update(id_: str, request: Request, body: SentBody, if_match: Annotated[str, Header()] = "") -> FhirJson:
        return api.update(request, id_, body, if_match)

    @routes.delete("/Subscription/{id_}")
    def delete(id_: str) -> Response:
        if not state.remove_subscription(id_):
            raise HTTPException(404, "no Subscription with this id")
        return Response(status_code=204)

    @routes.get("/Subscription/{id_}/$status")
    def status(id_: str, request: Request) -> FhirJson:
        return api.status(request, id_, ())

    @routes.post("/Subscription/{id_}/$status")
    def post_status(id_: str, request: Request) -> FhirJson:
        return api.status(request, id_, ())

    @routes.get("/Subscription/{id_}/$events")
    def events(id_: str, request: Request) -> FhirJson:
        return api.events(request, id_, _query(request))

    @routes.post("/Subscription/{id_}/$events")
    def post_events(id_: str, request: Request, body: SentBody) -> FhirJson:
        return api.events(request, id_, posted_parameters(request, body))

    @routes.get("/SubscriptionTopic")
    def topics(request: Request) -> FhirJson:
        acceptable(request)
        found = [topic(canonical) for canonical in TOPICS]
        asked = dict(_query(request)).get("url")
        matches = [one for one in found if asked in (None, one["url"])]
        links = [("self", f"{base}/SubscriptionTopic")]
        return _answer(searchset(base, links, matches, (), None, len(matches)), R5)

    @routes.get("/SubscriptionTopic/{id_}")
    def one_topic(id_: str, request: Request) -> FhirJson:
        acceptable(request)
        canonical = next((c for c in TOPICS if topic_id(c) == id_), None)
        if canonical is None:
            raise HTTPException(404, "no SubscriptionTopic with this id")
        return _answer(topic(canonical), R5)

    return routes


class _Subscriptions:
    def __init__(
        self, state: SubscriptionsState, base: str, limits: SubscriptionLimits, clock: Callable[[], float]
    ) -> None:
        self._state, self._base, self._limits, self._clock = state, base, limits, clock

    def create(self, request: Request, body: bytes) -> FhirJson:
        acceptable(request)
        content, version = self._sent(request, body)
        self._checked(content, version)
        now, id_ = self._clock(), str(uuid4())
        made = Subscription(id_, 1, version, content | {"id": id_}, _asked_status(content), now, now)
        if not self._state.add_subscription(made, self._limits.most, now):
            raise HTTPException(422, "there are as many Subscriptions as api.subscriptions allows: delete one")
        return self._shown(made, 201, {"Location": f"{self._base}/Subscription/{id_}"})

    def read(self, request: Request, id_: str) -> FhirJson:
        return self._shown(self._known(request, id_), 200, {})

    def update(self, request: Request, id_: str, body: bytes, if_match: str) -> FhirJson:
        old = self._known(request, id_)
        content, version = self._sent(request, body)
        if version != old.fhir_version or content.get("id") != id_:
            raise InvalidQuery("Subscription: id and FHIR version stay as they were made")
        if if_match and if_match != f'W/"{old.version}"':
            raise HTTPException(412, "Subscription: changed since; read it again")
        content = unredacted(content, old.content, version)
        self._checked(content, version)
        changed = self._state.change_subscription(old, content, _asked_status(content), self._clock())
        if changed is None:
            raise HTTPException(409, "Subscription: changed by another client at the same time; read it again")
        return self._shown(changed, 200, {})

    def search(self, request: Request) -> FhirJson:
        acceptable(request)
        version, asked = _accepted(request), dict(_query(request))
        unknown = sorted(asked.keys() - {"_id", "status", "url", "_format"})
        if unknown:
            raise InvalidQuery(f"Subscription: cannot be searched by {', '.join(unknown)[:200]}")
        found = [s for s in self._state.subscriptions() if s.fhir_version == version and self._found(s, asked)]
        links = [("self", f"{self._base}/Subscription" + (f"?{request.url.query}" if request.url.query else ""))]
        resources = [self._resource(one) for one in found]
        return _answer(searchset(self._base, links, resources, (), None, len(found)), version)

    def status(self, request: Request, id_: str | None, parameters: Sequence[tuple[str, str]]) -> FhirJson:
        acceptable(request)
        if id_ is not None:
            found = [self._known(request, id_)]
        else:
            ids = {i for n, v in parameters if n == "id" for i in v.split(",")}
            wanted_statuses = {v for n, v in parameters if n == "status"}
            found = [
                s for s in self._state.subscriptions()
                if (not ids or s.id in ids) and (not wanted_statuses or s.status in wanted_statuses)
                and s.fhir_version == _accepted(request)
            ]  # fmt: skip
        version = found[0].fhir_version if found else _accepted(request)
        told = [self._told(s, NotificationType.QUERY_STATUS, self._wanted(s).payload) for s in found]
        statuses = [(status_r5 if version == R5 else status_r4)(self._base, one) for one in told]
        place = f"{self._base}/Subscription" + (f"/{id_}" if id_ else "") + "/$status"
        return _answer(searchset(self._base, [("self", place)], statuses, (), None, len(statuses)), version)

    def events(self, request: Request, id_: str, parameters: Sequence[tuple[str, str]]) -> FhirJson:
        subscription, asked = self._known(request, id_), dict(parameters)
        first = _number("eventsSinceNumber", asked, 1)
        last = _number("eventsUntilNumber", asked, _LAST)
        shape = payload("content", asked["content"]) if "content" in asked else self._wanted(subscription).payload
        found = self._state.events(id_, max(first, 1) - 1, EVENTS_AT_ONCE)
        found = [event for event in found if event.number <= last]
        contents: dict[int, StoredResource] = {}
        if shape is Payload.FULL_RESOURCE and found:
            changes = next(groups([event.change for event in found], EVENT_BYTES, EVENTS_AT_ONCE))
            found = found[: len(changes)]
            contents = {c.revision: v for c, v in zip(changes, self._state.versions(changes), strict=True)}
        told = self._told(subscription, NotificationType.QUERY_EVENT, shape, found, contents)
        return _answer(bundle(self._base, told), subscription.fhir_version)

    def _told(
        self,
        subscription: Subscription,
        type_: NotificationType,
        shape: Payload,
        events: Sequence[Event] = (),
        contents: dict[int, StoredResource] | None = None,
    ) -> Notification:
        asked = self._wanted(subscription)
        return Notification(subscription, asked, type_, shape, self._clock(), events, contents or {})

    def _wanted(self, subscription: Subscription) -> Wanted:
        return wanted(subscription.content, subscription.fhir_version)

    def _sent(self, request: Request, body: bytes) -> tuple[Resource, str]:
        version = fhir_version(request.headers.get("content-type", ""), R4)
        if version not in (R4, R5):
            raise HTTPException(415, "Subscription: FHIR versions here are 4.0 and 5.0")
        content = sent_json(request, body)
        if len(body) > MAXIMUM_BYTES:
            raise HTTPException(413, f"Subscription: larger than {MAXIMUM_BYTES} bytes")
        if not isinstance(content, dict) or content.get("resourceType") != "Subscription":
            raise InvalidQuery("the body is not a Subscription")
        _plain(content)
        return content, version

    def _checked(self, content: Resource, version: str) -> None:
        asked = wanted(content, version)
        validate_sent(content | {"status": content.get("status", "requested")}, version)
        if not self._limits.endpoints:
            raise HTTPException(403, "no Subscriptions here: the operator names no api.subscription_endpoints")
        if not is_allowed(asked.endpoint, self._limits.endpoints):
            raise HTTPException(403, "Subscription: its endpoint is not among api.subscription_endpoints")

    def _known(self, request: Request, id_: str) -> Subscription:
        acceptable(request)
        found = self._state.subscription(id_) if len(id_) <= 64 else None
        if found is None:
            raise HTTPException(404, "no Subscription with this id")
        if _accepted(request, found.fhir_version) != found.fhir_version:
            raise HTTPException(406, f"this Subscription was made in FHIR {found.fhir_version}")
        return found

    def _found(self, subscription: Subscription, asked: dict[str, str]) -> bool:
        return (
            ("_id" not in asked or subscription.id in asked["_id"].split(","))
            and ("status" not in asked or subscription.status in asked["status"].split(","))
            and ("url" not in asked or self._wanted(subscription).endpoint == asked["url"])
        )

    def _resource(self, subscription: Subscription) -> Resource:
        content = redacted(subscription.content, subscription.fhir_version)
        meta = {"versionId": str(subscription.version), "lastUpdated": instant(subscription.updated_at)}
        return with_status(content, subscription.status.value, subscription.error, meta)

    def _shown(self, subscription: Subscription, code: int, headers: dict[str, str]) -> FhirJson:
        tags = {"ETag": f'W/"{subscription.version}"', "Last-Modified": http_date(subscription.updated_at)}
        return _answer(self._resource(subscription), subscription.fhir_version, code, headers | tags)


def _plain(content: Resource) -> None:
    """Raises InvalidQuery for null, which FHIR JSON has no use for here, and for what is nested too deeply."""
    left: list[tuple[object, int]] = [(content, 0)]
    while left:
        value, depth = left.pop()
        if value is None or depth > DEEPEST:
            raise InvalidQuery("Subscription: null, or nested too deeply")
        children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        left += [(child, depth + 1) for child in children]


def _answer(content: Resource, version: str, code: int = 200, headers: dict[str, str] | None = None) -> FhirJson:
    return FhirJson(content, code, (headers or {}) | {"Content-Type": f"{media_type(version)}; charset=utf-8"})


def _accepted(request: Request, default: str = R4) -> str:
    return fhir_version(request.headers.get("accept", ""), default)


def _asked_status(content: Resource) -> SubscriptionStatus:
    """What a client may ask for: to be told (requested), or not (off)."""
    off = content.get("status") == SubscriptionStatus.OFF.value
    return SubscriptionStatus.OFF if off else SubscriptionStatus.REQUESTED


def _query(request: Request) -> list[tuple[str, str]]:
    try:
        return parse_qsl(request.url.query, keep_blank_values=True, max_num_fields=100)
    except ValueError:
        raise InvalidQuery("too many parameters") from None


def _number(name: str, given: dict[str, str], default: int) -> int:
    value = given.get(name, str(default))
    if not value.isdecimal() or not value.isascii() or len(value) > 19 or int(value) > _LAST:
        raise InvalidQuery(f"{name}: allowed are whole numbers from 0")
    return int(value)
