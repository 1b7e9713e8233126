"""Subscriptions in R4: with criteria, or with a topic (profile backport-subscription of Subscriptions R5 Backport)."""

from __future__ import annotations

from bridge.errors import InvalidQuery
from bridge.follow import subscription as read
from bridge.follow.subscription import NOT_SHOWN, Form, Payload, Wanted
from bridge.follow.topics import TOPICS
from bridge.model import Resource
from bridge.translate.search_query import SearchQuery

BACKPORT = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/"
_ELEMENTS = frozenset({
    "resourceType", "id", "meta", "language", "text", "extension", "status", "contact", "end", "reason",
    "criteria", "_criteria", "error", "channel",
})  # fmt: skip
_CHANNEL = frozenset(["id", "extension", "type", "_type", "endpoint", "payload", "_payload", "header"])


def wanted_r4(content: Resource) -> Wanted:
    """What an R4 Subscription asks for. Raises InvalidQuery naming the element."""
    given = read.only("Subscription", content, _ELEMENTS)
    channel = read.only("Subscription.channel", given.get("channel"), _CHANNEL)
    custom = _extensions("Subscription.channel.type", channel.get("_type"))
    if channel.get("type") != "rest-hook" or custom:
        raise InvalidQuery("Subscription.channel.type: allowed is rest-hook")
    read.text("Subscription.reason", given.get("reason"))
    criteria = read.text("Subscription.criteria", given.get("criteria"))
    by_topic = criteria in TOPICS
    if not by_topic and ":" in criteria.partition("?")[0]:
        raise InvalidQuery(f"Subscription.criteria: topics here are {', '.join(TOPICS)}")
    tuned = _extensions("Subscription.channel", channel)
    return Wanted(
        form=Form.BACKPORT if by_topic else Form.CRITERIA,
        topic=criteria if by_topic else "",
        query=_topic_query(given, TOPICS[criteria]) if by_topic else _criteria_query(given, criteria),
        endpoint=read.endpoint("Subscription.channel.endpoint", channel.get("endpoint")),
        headers=tuple(_header(line) for line in _lines(channel)),
        payload=_payload(channel, by_topic),
        heartbeat_s=read.number(
            "backport-heartbeat-period", tuned.get("backport-heartbeat-period") or None,
            read.SHORTEST_HEARTBEAT_S, read.LONGEST_HEARTBEAT_S, 0,
        ),
        timeout_s=read.number(
            "backport-timeout", tuned.get("backport-timeout"), 1, read.LONGEST_TIMEOUT_S, read.DEFAULT_TIMEOUT_S
        ),
        most_events=read.number(
            "backport-max-count", tuned.get("backport-max-count"), 1, read.MOST_EVENTS, read.DEFAULT_EVENTS
        ),
        end=read.end("Subscription.end", given.get("end")),
    )  # fmt: skip


def redacted_r4(content: Resource) -> Resource:
    """The resource with header names only."""
    channel = content["channel"]
    if "header" not in channel:
        return content
    shown = [f"{_header(line)[0]}: {NOT_SHOWN}" for line in channel["header"]]
    return content | {"channel": channel | {"header": shown}}


def unredacted_r4(content: Resource, stored: Resource) -> Resource:
    """The resource with the stored values of headers that came back not shown. Raises InvalidQuery."""
    channel = read.only("Subscription.channel", content.get("channel"), _CHANNEL)
    known = dict(_header(line) for line in _lines(stored["channel"]))
    lines = []
    for line in _lines(channel):
        name, value = _header(line)
        if value == NOT_SHOWN:
            if name not in known or channel.get("endpoint") != stored["channel"]["endpoint"]:
                raise InvalidQuery(
                    "Subscription.channel.header: give the values anew where the endpoint is another one"
                )
            value = known[name]
        lines.append(f"{name}: {value}")
    return content | {"channel": channel | {"header": lines}} if lines else content


def _topic_query(given: Resource, kind: str) -> SearchQuery:
    element, pairs = "backport-filter-criteria", []
    extensions = given.get("_criteria", {}).get("extension", []) if isinstance(given.get("_criteria"), dict) else []
    for one in read.items("Subscription.criteria.extension", extensions, read.MAXIMUM_FILTERS):
        if not isinstance(one, dict) or one.get("url") != f"{BACKPORT}backport-filter-criteria":
            raise InvalidQuery("Subscription.criteria.extension: allowed is backport-filter-criteria")
        pairs += read.criteria_pairs(element, read.text(element, one.get("valueString"), 10_000), [kind])[1]
    return read.filter_query(element, kind, pairs)


def _criteria_query(given: Resource, criteria: str) -> SearchQuery:
    if "_criteria" in given:
        raise InvalidQuery("Subscription.criteria.extension: filters belong to a topic")
    kind, pairs = read.criteria_pairs("Subscription.criteria", criteria, sorted(TOPICS.values()))
    return read.filter_query("Subscription.criteria", kind, pairs)


def _payload(channel: Resource, by_topic: bool) -> Payload:
    element = "Subscription.channel.payload"
    if channel.get("payload") not in (None, "application/fhir+json"):
        raise InvalidQuery(f"{element}: allowed is application/fhir+json")
    if not by_topic:
        return Payload.FULL_RESOURCE if "payload" in channel else Payload.EMPTY
    content = _extensions(element, channel.get("_payload")).get("backport-payload-content")
    return read.payload("backport-payload-content", content)


def _extensions(element: str, holder: object) -> dict[str, object]:
    """name → value of the extensions of Subscriptions R5 Backport."""
    found: dict[str, object] = {}
    given = holder.get("extension") if isinstance(holder, dict) else None
    for one in read.items(f"{element}.extension", given, read.MAXIMUM_FILTERS):
        url = one.get("url") if isinstance(one, dict) else None
        if isinstance(one, dict) and isinstance(url, str) and url.startswith(BACKPORT):
            found[url.removeprefix(BACKPORT)] = next((v for k, v in one.items() if k.startswith("value")), None)
    return found


def _lines(channel: Resource) -> list[object]:
    return read.items("Subscription.channel.header", channel.get("header"), read.MAXIMUM_HEADERS)


def _header(line: object) -> tuple[str, str]:
    name, _, value = line.partition(":") if isinstance(line, str) else ("", "", "")
    return read.header("Subscription.channel.header", name.strip(), value.strip())
