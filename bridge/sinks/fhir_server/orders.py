"""Literal references to orders and visits that the server knows, beside the identifiers that images give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bridge.model import Resource
from bridge.sinks.fhir_server.capabilities import Capabilities
from bridge.sinks.fhir_server.client import FhirClient
from bridge.sinks.fhir_server.subjects import escaped

LINKED = ("ServiceRequest", "Encounter")
_SEEN = "identifier,subject"


@dataclass(frozen=True)
class Linked:
    """(type, system, value) → what the server has under it."""

    found: Mapping[tuple[str, str, str], Sequence[Resource]]

    def apply(self, study: Resource) -> Resource:
        """The study with `reference` beside each identifier of exactly one resource for the same patient."""
        subject = study.get("subject", {}).get("reference", "")
        made = dict(study)
        if "basedOn" in study:
            made["basedOn"] = [self._linked(order, subject) for order in study["basedOn"]]
        if "encounter" in study:
            made["encounter"] = self._linked(study["encounter"], subject)
        return made

    def _linked(self, reference: Resource, subject: str) -> Resource:
        key = _key(reference)
        known = self.found.get(key, ()) if key else ()
        if len(known) != 1 or not subject or known[0].get("subject", {}).get("reference") != subject:
            return reference
        return {"reference": f"{known[0]['resourceType']}/{known[0]['id']}"} | reference


def linked(client: FhirClient, studies: Sequence[Resource], offered: Capabilities, types: Sequence[str]) -> Linked:
    """Looks up what the studies' orders and visits are on the server. Only identifiers with a system are searched.

    Raises  SinkUnavailable
    """
    found: dict[tuple[str, str, str], list[Resource]] = {}
    wanted = {key for study in studies for key in _keys(study)}
    for kind in types:
        can = offered.of(kind)
        if can is None or not can.search:
            continue
        mine = sorted(key for key in wanted if key[0] == kind)
        tokens = [f"{escaped(system)}|{escaped(value)}" for _, system, value in mine]
        for resource in client.identified(kind, tokens, _SEEN):
            for identifier in resource.get("identifier", []):
                key = (kind, str(identifier.get("system")), str(identifier.get("value")))
                if key in wanted:
                    found.setdefault(key, []).append(resource)
    return Linked(found)


def _keys(study: Resource) -> Iterator[tuple[str, str, str]]:
    references = [*study.get("basedOn", ()), *([study["encounter"]] if "encounter" in study else [])]
    yield from filter(None, map(_key, references))


def _key(reference: Resource) -> tuple[str, str, str] | None:
    identifier = reference.get("identifier", {})
    kind, system, value = reference.get("type"), identifier.get("system"), identifier.get("value")
    return (str(kind), str(system), str(value)) if kind and system and value else None
