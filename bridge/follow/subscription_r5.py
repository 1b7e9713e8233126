"""Subscriptions in their R5 form."""

from __future__ import annotations

from bridge.errors import InvalidQuery
from bridge.follow import subscription as read
from bridge.follow.subscription import NOT_SHOWN, Form, Payload, Wanted
from bridge.follow.topics import TOPICS
from bridge.model import Resource

_ELEMENTS = frozenset({
    "resourceType", "id", "meta", "language", "text", "extension", "identifier", "name", "status", "topic",
    "contact", "end", "managingEntity", "reason", "filterBy", "channelType", "endpoint", "parameter",
    "heartbeatPeriod", "timeout", "contentType", "content", "maxCount",
})  # fmt: skip
_FILTER = frozenset(["id", "resourceType", "filterParameter", "comparator", "modifier", "value"])
_COMPARATORS = ("eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap")


def wanted_r5(content: Resource) -> Wanted:
    """What an R5 Subscription asks for. Raises InvalidQuery naming the element."""
    given = read.only("Subscription", content, _ELEMENTS)
    topic = read.text("Subscription.topic", given.get("topic"))
    if topic not in TOPICS:
        raise InvalidQuery(f"Subscription.topic: topics here are {', '.join(TOPICS)}")
    channel = given.get("channelType")
    if not isinstance(channel, dict) or channel.get("code") != "rest-hook":
        raise InvalidQuery("Subscription.channelType: allowed is rest-hook")
    if given.get("contentType", "application/fhir+json") != "application/fhir+json":
        raise InvalidQuery("Subscription.contentType: allowed is application/fhir+json")
    payload = read.payload("Subscription.content", given.get("content", Payload.ID_ONLY))
    pairs = [_filter(one, TOPICS[topic]) for one in read.items("filterBy", given.get("filterBy"), read.MAXIMUM_FILTERS)]
    return Wanted(
        form=Form.R5,
        topic=topic,
        query=read.filter_query("Subscription.filterBy", TOPICS[topic], pairs),
        endpoint=read.endpoint("Subscription.endpoint", given.get("endpoint")),
        headers=tuple(_parameter(one) for one in _parameters(given)),
        payload=payload,
        heartbeat_s=read.number(
            "Subscription.heartbeatPeriod", given.get("heartbeatPeriod") or None,
            read.SHORTEST_HEARTBEAT_S, read.LONGEST_HEARTBEAT_S, 0,
        ),
        timeout_s=read.number(
            "Subscription.timeout", given.get("timeout") or None, 1, read.LONGEST_TIMEOUT_S, read.DEFAULT_TIMEOUT_S
        ),
        most_events=read.number(
            "Subscription.maxCount", given.get("maxCount"), 1, read.MOST_EVENTS, read.DEFAULT_EVENTS
        ),
        end=read.end("Subscription.end", given.get("end")),
    )  # fmt: skip


def redacted_r5(content: Resource) -> Resource:
    """The resource with the names of its parameters only."""
    if "parameter" not in content:
        return content
    return content | {"parameter": [one | {"value": NOT_SHOWN} for one in content["parameter"]]}


def unredacted_r5(content: Resource, stored: Resource) -> Resource:
    """The resource with the stored values of parameters that came back not shown. Raises InvalidQuery."""
    known = dict(_parameter(one) for one in _parameters(stored))
    parameters = []
    for one in _parameters(content):
        name, value = _parameter(one)
        if value == NOT_SHOWN:
            if name not in known or content.get("endpoint") != stored["endpoint"]:
                raise InvalidQuery("Subscription.parameter: give the values anew where the endpoint is another one")
            value = known[name]
        parameters.append({"name": name, "value": value})
    return content | {"parameter": parameters} if parameters else content


def _filter(given: object, kind: str) -> tuple[str, str]:
    one = read.only("Subscription.filterBy", given, _FILTER)
    name = read.text("Subscription.filterBy.filterParameter", one.get("filterParameter"), 200)
    value = read.text("Subscription.filterBy.value", one.get("value"), 4000)
    if one.get("resourceType", kind) != kind:
        raise InvalidQuery(f"Subscription.filterBy.resourceType: allowed is {kind}")
    if one.get("comparator", "eq") not in _COMPARATORS:
        raise InvalidQuery(f"Subscription.filterBy.comparator: allowed are {', '.join(_COMPARATORS)}")
    modifier = one.get("modifier")
    if modifier is not None:
        name += ":" + read.text("Subscription.filterBy.modifier", modifier, 60)
    comparator = str(one.get("comparator", "eq"))
    return name, value if comparator == "eq" else comparator + value


def _parameters(given: Resource) -> list[object]:
    return read.items("Subscription.parameter", given.get("parameter"), read.MAXIMUM_HEADERS)


def _parameter(given: object) -> tuple[str, str]:
    one = given if isinstance(given, dict) else {}
    name, value = one.get("name"), one.get("value")
    if not isinstance(name, str) or not isinstance(value, str):
        raise InvalidQuery("Subscription.parameter: a header has a name and a value")
    return read.header("Subscription.parameter", name, value)
