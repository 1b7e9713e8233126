"""Invariants of FHIR that matter to what we make, written out by hand; their keys are FHIR's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Json = dict[str, Any]
Rule = Callable[[Json], bool]


def broken_rules(node: str, value: Json) -> Iterator[str]:
    """Keys of the invariants that an object of a type, or at a place of a resource, breaks; its shape is right."""
    return (key for key, holds in RULES.get(node, {}).items() if not holds(value))


def _implies(when: object, then: object) -> bool:
    return bool(then) or not when


def _values(value: Json) -> list[str]:
    return [name for name in value if name.lstrip("_").startswith("value")]


def _distinct(values: list[Json], name: str) -> bool:
    return len({one.get(name) for one in values}) == len(values)


def _in_order(period: Json) -> bool:
    start, end = str(period.get("start", "")), str(period.get("end", ""))
    length = min(len(start), len(end), len("2024-03-01"))
    return start[:length] <= end[:length]


def _entries(bundle: Json) -> list[Json]:
    return list(bundle.get("entry", []))


def _versions_distinct(bundle: Json) -> bool:
    named = [e for e in _entries(bundle) if "fullUrl" in e]
    versions = {(e["fullUrl"], e.get("resource", {}).get("meta", {}).get("versionId")) for e in named}
    return bundle.get("type") == "history" or len(versions) == len(named)


def _entry_has(part: str, *types: str) -> Rule:
    """Every entry has `part` in Bundles of these types, none has in others."""

    def holds(bundle: Json) -> bool:
        kind = bundle.get("type")
        if kind == "subscription-notification":  # R5: may have both
            return True
        return all((part in e) == (kind in types) for e in _entries(bundle))

    return holds


def _content_fits_method(bundle: Json) -> bool:
    if bundle.get("type") not in ("history", "transaction", "batch"):
        return True
    methods = [(e.get("request", {}).get("method"), "resource" in e) for e in _entries(bundle)]
    return all(given if method in ("POST", "PUT", "PATCH") else not given for method, given in methods if method)


def _first_is(kind: str, *types: str) -> Rule:
    def holds(bundle: Json) -> bool:
        return bundle.get("type") not in types or _entries(bundle)[:1] == [
            e for e in _entries(bundle)[:1] if e.get("resource", {}).get("resourceType") == kind
        ]

    return holds


def _full_url_agrees(entry: Json) -> bool:
    """A fullUrl that is the URL of a resource names the type and id of the one that stands there (R4 3.1.10)."""
    url, resource = entry.get("fullUrl", ""), entry.get("resource", {})
    if not url.startswith("http") or "id" not in resource:
        return True
    return bool(url.endswith(f"/{resource['resourceType']}/{resource['id']}"))


_QUANTITY: dict[str, Rule] = {"qty-3": lambda q: _implies("code" in q, "system" in q)}
RULES: Mapping[str, Mapping[str, Rule]] = {
    "Extension": {"ext-1": lambda x: ("extension" in x) != bool(_values(x))},
    "Attachment": {"att-1": lambda a: _implies("data" in a, "contentType" in a)},
    "ContactPoint": {"cpt-2": lambda c: _implies("value" in c, "system" in c)},
    "Period": {"per-1": lambda p: _implies("start" in p and "end" in p, _in_order(p))},
    **dict.fromkeys(("Quantity", "Age", "Count", "Distance", "Duration"), _QUANTITY),
    "Patient.contact": {"pat-1": lambda c: bool({"name", "telecom", "address", "organization"} & set(c))},
    "Observation": {
        "obs-6": lambda o: _implies("dataAbsentReason" in o, not _values(o)),
        "obs-7": lambda o: _implies(_values(o), all(c.get("code") != o.get("code") for c in o.get("component", []))),
    },
    "Group": {"grp-1": lambda g: _implies(g.get("member"), g.get("actual", True))},
    "Parameters.parameter": {"inv-1": lambda p: len(_values(p)) + ("resource" in p) + ("part" in p) == 1},
    "CapabilityStatement": {
        "cpb-1": lambda c: bool({"rest", "messaging", "document"} & set(c)),
        "cpb-2": lambda c: bool({"description", "software", "implementation"} & set(c)),
        "cpb-14": lambda c: _implies(c.get("kind") == "instance", "implementation" in c),
        "cpb-15": lambda c: _implies(c.get("kind") == "capability", "implementation" not in c and "software" in c),
    },
    "CapabilityStatement.rest": {"cpb-9": lambda r: _distinct(r.get("resource", []), "type")},
    "CapabilityStatement.rest.resource": {"cpb-12": lambda r: _distinct(r.get("searchParam", []), "name")},
    "Bundle": {
        "bdl-1": lambda b: _implies("total" in b, b.get("type") in ("searchset", "history")),
        "bdl-2": lambda b: b.get("type") == "searchset" or not any("search" in e for e in _entries(b)),
        "bdl-3": _entry_has("request", "batch", "transaction", "history"),
        "bdl-3, method": _content_fits_method,
        "bdl-4": _entry_has("response", "batch-response", "transaction-response", "history"),
        "bdl-7": _versions_distinct,
        "bdl-9": lambda b: b.get("type") != "document" or {"system", "value"} <= set(b.get("identifier", {})),
        "bdl-10": lambda b: b.get("type") != "document" or "timestamp" in b,
        "bdl-11": _first_is("Composition", "document"),
        "bdl-12": _first_is("MessageHeader", "message"),
        "bdl-13": _first_is("SubscriptionStatus", "subscription-notification"),
        "bdl-18": lambda b: b.get("type") != "searchset" or any(x.get("relation") == "self" for x in b.get("link", [])),
    },
    "Bundle.entry": {
        "bdl-5": lambda e: bool({"resource", "request", "response"} & set(e)),
        "bdl-8": lambda e: "/_history/" not in e.get("fullUrl", ""),
        "fullUrl": _full_url_agrees,
    },
}
"""Type, or place in a resource → key → whether it holds."""
