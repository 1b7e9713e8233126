"""Endpoints, and Patients where the bridge may make them: what studies refer to and many of them share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bridge.errors import Conflict, ProjectError
from bridge.model import Resource
from bridge.sinks.fhir_server.capabilities import Capabilities
from bridge.sinks.fhir_server.client import FhirClient
from bridge.sinks.fhir_server.content import digest, merged, same, version_of
from bridge.sinks.fhir_server.races import one_of_several
from bridge.sinks.fhir_server.subjects import BRIDGE_TAG, escaped
from bridge.sinks.fhir_server.writer import Upsert, Writer, Written

REMEMBERED = 10_000


class Endpoints:
    """The archives' Endpoints on one server: each is read once, and written when it is not as it should be."""

    def __init__(self, client: FhirClient, writer: Writer) -> None:
        self._client, self._writer = client, writer
        self._known: dict[tuple[str, str], str] = {}

    def forget(self) -> None:
        """Somebody may have changed or deleted them since: they are read again."""
        self._known.clear()

    def references(
        self, endpoints: Sequence[Resource], offered: Capabilities, project: Callable[[Resource], Resource]
    ) -> dict[str, str]:
        """`Endpoint/our id` → the reference on the server; {} for a server without Endpoint. Raises the first error."""
        if offered.of("Endpoint") is None:
            return {}
        wanted = {str(e["id"]): project(e) for e in endpoints}
        missing = [e for id_, e in wanted.items() if (id_, digest(e)) not in self._known]
        if len(self._known) > REMEMBERED:
            self._known.clear()
        for endpoint in missing:
            self._known[str(endpoint["id"]), digest(endpoint)] = self._made(endpoint, offered)
        return {f"Endpoint/{id_}": f"Endpoint/{self._known[id_, digest(e)]}" for id_, e in wanted.items()}

    def _made(self, endpoint: Resource, offered: Capabilities) -> str:
        token = endpoint_token(endpoint)
        there = self._client.read(f"Endpoint/{endpoint['id']}") or one_of_several(
            self._client.search("Endpoint", [("identifier", token), ("_count", "10")])
        )
        if there is not None and same(endpoint, there):
            return str(there["id"])
        content = merged(endpoint, there)
        (written,) = self._writer.write(
            [Upsert(content, token, str(there["id"]) if there else "", version_of(there))], offered
        )
        if isinstance(written, ProjectError):
            raise written
        return written.id


def endpoint_token(endpoint: Resource) -> str:
    """The identifier by which an Endpoint of ours is found on a server that gave it another id."""
    (identifier,) = endpoint["identifier"]
    return f"{escaped(identifier['system'])}|{escaped(identifier['value'])}"


class Patients:
    """Makes the Patients that nobody else did, and keeps true those that the bridge made."""

    def __init__(self, client: FhirClient, writer: Writer) -> None:
        self._client, self._writer = client, writer

    def make(
        self, wanted: Mapping[str, tuple[Resource, Resource | None]], offered: Capabilities
    ) -> dict[str, str | ProjectError]:
        """our Patient id → its id on the server, or why it is not there. `wanted`: ours, and the server's if there.

        Raises  SinkUnavailable
        """
        upserts = [_patient(ours, there) for ours, there in wanted.values()]
        outcomes = self._writer.write(upserts, offered)
        return {
            key: self._settled(outcome, upsert.token) if isinstance(outcome, Written) else outcome
            for key, outcome, upsert in zip(wanted, outcomes, upserts, strict=True)
        }

    def _settled(self, written: Written, token: str) -> str | ProjectError:
        """The one Patient, should another writer have made the same at the same moment."""
        if not written.created:
            return written.id
        found = self._client.search("Patient", [("identifier", token), ("_count", "10")])
        winner = one_of_several(found)
        if winner is None or winner["id"] == written.id:
            return written.id
        try:
            self._writer.delete("Patient", written.id)
        except Conflict as error:
            return error
        return str(winner["id"])


def _patient(ours: Resource, there: Resource | None) -> Upsert:
    tagged = ours | {"meta": {"tag": [BRIDGE_TAG]}}
    identifier = next((i for i in ours["identifier"] if "system" in i), ours["identifier"][0])
    token = f"{escaped(identifier.get('system', ''))}|{escaped(identifier['value'])}"
    if there is None:
        return Upsert(tagged, token)
    return Upsert(merged(tagged, there), token, str(there["id"]), version_of(there))
