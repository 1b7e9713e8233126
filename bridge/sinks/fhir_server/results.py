"""AI results and documents on one server: after their study, what differs is written, what is referred to first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bridge.errors import ProjectError
from bridge.model import Resource, StudyState
from bridge.sinks.fhir_server.capabilities import Capabilities
from bridge.sinks.fhir_server.client import FhirClient
from bridge.sinks.fhir_server.content import merged, same, version_of
from bridge.sinks.fhir_server.races import one_of_several
from bridge.sinks.fhir_server.subjects import escaped
from bridge.sinks.fhir_server.writer import Upsert, Writer
from bridge.translate.r5_selections import with_selections

TYPES = ("Device", "DocumentReference", "Observation", "DiagnosticReport", "Provenance")
_NEEDED = ("Observation", "DiagnosticReport")
_BEFORE_FINDINGS = ("Device", "ImagingSelection", "BodyStructure")
_SETTLED = {
    "registered": 0, "partial": 0, "preliminary": 0, "final": 1, "amended": 2, "corrected": 2, "appended": 2,
    "modified": 0, "cancelled": 3, "entered-in-error": 3,
}  # fmt: skip
"""How far a status has come (R4 Observation.status, DiagnosticReport.status); what has come further is never undone."""

Project = Callable[[Resource], Resource]


class Results:
    """Devices, Observations, DiagnosticReports and Provenances of AI results. For one thread."""

    def __init__(self, client: FhirClient, writer: Writer) -> None:
        self._client, self._writer = client, writer

    def deliver(
        self, state: StudyState, study: Resource, study_id: str, offered: Capabilities, project: Project
    ) -> None:
        """Makes the server match the results of one study; a server without Observation or DiagnosticReport gets none.

        `study` as the server has it, whose subject the results share; `study_id` its id there.

        Raises  the first error: RejectedInput, Conflict, SinkUnavailable
        """
        ours = [r.content for kind in TYPES for r in state.of_type(kind) if r.content is not None]
        if not ours or any(offered.of(kind) is None for kind in _NEEDED):
            return
        names = _names(state, study, study_id)
        for level in _levels(list(_in_version(ours, offered, project)), offered):
            self._write([_referring(one, names) for one in level], names, offered)

    def _write(self, level: Sequence[Resource], names: dict[str, Resource], offered: Capabilities) -> None:
        there = self._there(level)
        upserts = []
        for one in level:
            found = there.get(_key(one))
            if found is not None and (same(one, found) or _come_further(one, found)):
                names[_key(one)] = {"reference": f"{one['resourceType']}/{found['id']}"}
                continue
            upserts.append(
                Upsert(merged(one, found), _token(one), str(found["id"]) if found else "", version_of(found))
            )
        for upsert, outcome in zip(upserts, self._writer.write(upserts, offered), strict=True):
            if isinstance(outcome, ProjectError):
                raise outcome
            names[_key(upsert.content)] = {"reference": f"{upsert.kind}/{outcome.id}"}

    def _there(self, level: Sequence[Resource]) -> dict[str, Resource]:
        """What the server has of these: by their identifiers; what can have none, by our id."""
        found: dict[str, Resource] = {}
        for kind in sorted({str(one["resourceType"]) for one in level}):
            mine = [one for one in level if one["resourceType"] == kind]
            named = {_token(one): one for one in mine if _token(one)}
            for resource in self._client.identified(kind, list(named), "") if named else ():
                for token in _tokens(resource) & named.keys():
                    key = _key(named[token])
                    found[key] = one_of_several([r for r in (found.get(key), resource) if r is not None]) or resource
            for one in (one for one in mine if not _token(one)):
                if (resource_there := self._client.read(_key(one))) is not None:
                    found[_key(one)] = resource_there
        return found


def _names(state: StudyState, study: Resource, study_id: str) -> dict[str, Resource]:
    """Our reference → what stands in its place on the server."""
    own = {f"ImagingStudy/{r.id}": {"reference": f"ImagingStudy/{study_id}"} for r in state.of_type("ImagingStudy")}
    return own | {f"Patient/{r.id}": study["subject"] for r in state.of_type("Patient")}


def _in_version(ours: Sequence[Resource], offered: Capabilities, project: Project) -> Iterator[Resource]:
    """Each resource once, in the server's FHIR version; with R5's selections where the server has them."""
    selecting = offered.fhir_version == "R5" and all(offered.of(kind) for kind in _BEFORE_FINDINGS[1:])
    seen: set[str] = set()
    for one in ours:
        projected = project(one)
        found = with_selections(projected) if selecting and one["resourceType"] == "Observation" else (projected,)
        for each in found:
            if _key(each) not in seen:
                seen.add(_key(each))
                yield each


def _levels(resources: Sequence[Resource], offered: Capabilities) -> Iterator[list[Resource]]:
    """What can be written together, referred to first. Types that the server does not offer are left out, and
    Provenance where ids cannot be ours: it has no identifier to find it by, and would come anew each time."""

    def of(*kinds: str) -> list[Resource]:
        return [r for r in resources if r["resourceType"] in kinds and offered.of(str(r["resourceType"])) is not None]

    findings, can = of("Observation"), offered.of("Provenance")
    yield of(*_BEFORE_FINDINGS, "DocumentReference")
    yield [r for r in findings if "hasMember" not in r]
    yield [r for r in findings if "hasMember" in r]
    yield of("DiagnosticReport")
    if can is not None and can.update_create:
        yield of("Provenance")


def _referring(value: Any, names: dict[str, Resource]) -> Any:
    """The same with its references as the server has them; the reference to what is not there leaves the rest of it."""
    if isinstance(value, list):
        return [_referring(one, names) for one in value]
    if not isinstance(value, dict):
        return value
    literal = isinstance(value.get("reference"), str)  # that of a CodeableReference is a Reference
    made = {k: _referring(v, names) for k, v in value.items() if k != "reference" or not literal}
    if literal:
        made |= names.get(value["reference"], {})
    return made


def _come_further(ours: Resource, there: Resource) -> bool:
    """Whether somebody on the server has signed, amended or withdrawn what the bridge knows less far. What the bridge
    withdrew itself, since its document had gone, may come back."""
    if "_status" in there:
        return False
    said = _SETTLED.get(str(there.get("status")), 0)
    return ours["resourceType"] in _NEEDED and said > _SETTLED[str(ours["status"])]


def _key(resource: Resource) -> str:
    return f"{resource['resourceType']}/{resource['id']}"


def _token(resource: Resource) -> str:
    """The identifier that names it alone: the first; "" when it has none."""
    known = resource.get("identifier", ())
    return f"{escaped(known[0]['system'])}|{escaped(known[0]['value'])}" if known else ""


def _tokens(resource: Resource) -> set[str]:
    named = [i for i in resource.get("identifier", ()) if isinstance(i, dict)]
    return {f"{escaped(str(i.get('system', '')))}|{escaped(str(i.get('value', '')))}" for i in named}
