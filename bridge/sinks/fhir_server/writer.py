"""Writes resources in the way that a server allows: transaction, else batch, else one request after another; under our
own ids, else by conditional create, else by conditional update, else as new resources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson

from bridge.errors import Conflict, ProjectError, RefusedByServer, SinkUnavailable
from bridge.model import Resource
from bridge.sinks.fhir_server.capabilities import Capabilities, TypeCapabilities
from bridge.sinks.fhir_server.client import Doubtful, FhirClient, NotSupported, TooLarge, Unanswered, written_version

_ENTRY_BYTES = 200
"""What an entry adds to its resource in a Bundle, about."""

FAILURES_BELIEVED = 2
"""After so many requests that failed one by one, with none that did not, the server is taken to be at fault."""


@dataclass(frozen=True)
class Upsert:
    """One resource to be as `content` says, whose `id` is ours.

    Result  `token` the identifier it is known by, as `system|value`, "" where it has none; `there` its id on the
            server, "" when it is not there; `version_id` the version that was read, so that a newer one is not
            overwritten
    """

    content: Resource
    token: str
    there: str = ""
    version_id: str = ""

    @property
    def kind(self) -> str:
        return str(self.content["resourceType"])


@dataclass(frozen=True)
class Written:
    """What the server did. Result: `version_id` "" when not told; `created` just now, under an id the server gave."""

    id: str
    version_id: str
    created: bool = False


@dataclass(frozen=True)
class _Request:
    method: str
    url: str
    body: bytes | None
    id: str
    way: str
    if_match: str = ""
    if_none_exist: str = ""

    def entry(self, base: str) -> Resource:
        asked = {"method": self.method, "url": self.url}
        asked |= {"ifMatch": self.if_match} if self.if_match else {}
        asked |= {"ifNoneExist": self.if_none_exist} if self.if_none_exist else {}
        made: Resource = {"request": asked}
        if self.body is not None:
            made["resource"] = orjson.Fragment(self.body)
            if self.id:
                made["fullUrl"] = f"{base}/{self.url}"
        return made


class Writer:
    """Remembers what works on this server, so that it is not asked again for what does not. For one thread."""

    def __init__(self, client: FhirClient, *, entries: int, size: int) -> None:
        self._client, self._entries, self._size = client, entries, size
        self._ways: dict[str, list[str]] = {}
        self._proved: set[str] = set()
        self._without_bundles = False

    def write(self, upserts: Sequence[Upsert], offered: Capabilities) -> list[Written | ProjectError]:
        """One outcome for each, in order. Raises SinkUnavailable when the server as a whole cannot be written to."""
        prepared = [(u, self._request(u, offered, self._way(u, offered))) for u in upserts]
        outcomes: list[Written | ProjectError] = []
        for group in self._groups(prepared):
            outcomes += self._group(group, offered)
        return outcomes

    def delete(self, kind: str, id_: str) -> None:
        """Raises Conflict when the server refuses because others refer to it."""
        self._client.send("DELETE", f"{kind}/{id_}")

    def _groups(self, prepared: Sequence[tuple[Upsert, _Request]]) -> Iterator[list[tuple[Upsert, _Request]]]:
        group: list[tuple[Upsert, _Request]] = []
        size = 0
        for one in prepared:
            more = len(one[1].body or b"") + _ENTRY_BYTES
            if group and (len(group) >= self._entries or size + more > self._size):
                yield group
                group, size = [], 0
            group.append(one)
            size += more
        if group:
            yield group

    def _group(self, group: Sequence[tuple[Upsert, _Request]], offered: Capabilities) -> list[Written | ProjectError]:
        together = len(group) > 1 and not self._without_bundles and (offered.transaction or offered.batch)
        if not together:
            return [self._single(upsert, request, offered) for upsert, request in group]
        try:
            answers = self._bundle([request for _, request in group], "transaction" if offered.transaction else "batch")
        except NotSupported:
            self._without_bundles = True
            return self._group(group, offered)
        except Unanswered as error:
            return [error] * len(group)
        except (RefusedByServer, Conflict, Doubtful) as error:
            return self._singly(group, offered, error)
        for (upsert, _), answer in zip(group, answers, strict=True):
            if isinstance(answer, Written) and not upsert.there:
                self._proved.add(upsert.kind)
        return [
            self._single(upsert, request, offered) if isinstance(answer, RefusedByServer | Conflict) else answer
            for (upsert, request), answer in zip(group, answers, strict=True)
        ]

    def _singly(
        self, group: Sequence[tuple[Upsert, _Request]], offered: Capabilities, why: ProjectError
    ) -> list[Written | ProjectError]:
        """One after another what failed together. Where the server itself fails, it is soon left alone."""
        outcomes: list[Written | ProjectError] = []
        for upsert, request in group:
            failing = isinstance(why, Doubtful) and len(outcomes) >= FAILURES_BELIEVED
            if failing and all(isinstance(o, Doubtful) for o in outcomes):
                outcomes.append(why)
            else:
                outcomes.append(self._single(upsert, request, offered))
        return outcomes

    def _bundle(self, requests: Sequence[_Request], kind: str) -> list[Written | ProjectError]:
        bundle = {"resourceType": "Bundle", "type": kind, "entry": [r.entry(self._client.url) for r in requests]}
        body = self._client.send("POST", "", orjson.dumps(bundle)).body
        entries = body.get("entry", []) if isinstance(body, dict) else []
        if not isinstance(entries, list) or len(entries) != len(requests):
            raise Doubtful(f"sink {self._client.name}: the answer to a {kind} has not one entry for each asked")
        return [self._judged(request, entry) for request, entry in zip(requests, entries, strict=True)]

    def _judged(self, request: _Request, entry: Any) -> Written | ProjectError:
        response = entry.get("response", {}) if isinstance(entry, dict) else {}
        digits = str(response.get("status", ""))[:3]
        status = int(digits) if digits.isdigit() else 0
        if not 200 <= status < 300:
            return self._client.error(status, response.get("outcome"))
        named = {k: str(response[k]) for k in ("location", "etag") if k in response}
        try:
            return _written(request, status, *written_version(named))
        except Conflict as error:
            return error

    def _single(self, upsert: Upsert, request: _Request, offered: Capabilities) -> Written | ProjectError:
        """Alone, by the first way that works; SinkUnavailable is raised, what concerns this resource is given back."""
        first: ProjectError | None = None
        for way in self._ways_for(upsert, offered):
            asked = request if request.way == way else self._request(upsert, offered, way)
            try:
                written = self._send(asked)
            except (TooLarge, Conflict, Doubtful) as error:
                return error
            except RefusedByServer as error:
                first = first or error
                if upsert.there or upsert.kind in self._proved:
                    return first
                continue
            if upsert.token and not upsert.there:
                self._learned(upsert.kind, way)
            return written
        return first or RefusedByServer(f"sink {self._client.name}: {upsert.kind} cannot be written there")

    def _send(self, request: _Request) -> Written:
        answer = self._client.send(
            request.method, request.url, request.body, If_Match=request.if_match, If_None_Exist=request.if_none_exist
        )
        return _written(request, answer.status, answer.id, answer.version_id)

    def _request(self, upsert: Upsert, offered: Capabilities, way: str) -> _Request:
        kind, content = upsert.kind, upsert.content
        can = offered.of(kind) or TypeCapabilities()
        if upsert.there:
            body = orjson.dumps({**content, "id": upsert.there})
            version = f'W/"{upsert.version_id}"' if upsert.version_id and can.if_match else ""
            return _Request("PUT", f"{kind}/{upsert.there}", body, upsert.there, way, if_match=version)
        if way == "put":
            return _Request("PUT", f"{kind}/{content['id']}", orjson.dumps(content), str(content["id"]), way)
        body = orjson.dumps({k: v for k, v in content.items() if k != "id"})
        query = f"identifier={_percent(upsert.token)}"
        if way == "conditional update":
            return _Request("PUT", f"{kind}?{query}", body, "", way)
        return _Request("POST", kind, body, "", way, if_none_exist=query if way == "conditional create" else "")

    def _way(self, upsert: Upsert, offered: Capabilities) -> str:
        return self._ways_for(upsert, offered)[0]

    def _ways_for(self, upsert: Upsert, offered: Capabilities) -> list[str]:
        """What has no identifier goes under our id or not at all: it could not be found again."""
        return list(self._ways_of(upsert.kind, offered)) if upsert.token else ["put"]

    def _ways_of(self, kind: str, offered: Capabilities) -> list[str]:
        if kind not in self._ways:
            can = offered.of(kind) or TypeCapabilities()
            self._ways[kind] = (
                (["put"] if can.update_create else [])
                + (["conditional create"] if can.conditional_create else [])
                + (["conditional update"] if can.conditional_update and kind != "Patient" else [])
                + ["post"]
            )
        return self._ways[kind]

    def _learned(self, kind: str, way: str) -> None:
        self._proved.add(kind)
        self._ways[kind] = self._ways[kind][self._ways[kind].index(way) :]


def _written(request: _Request, status: int, id_: str, version_id: str) -> Written:
    """Raises Conflict when a conditional create made nothing, because the same was there by then (R4 3.1.0.8.1)."""
    if request.if_none_exist and status == 200:
        raise Conflict(f"{request.url}: somebody else made the same at this moment: it is read again")
    found = request.id or id_
    if not found:
        raise SinkUnavailable("a resource was written, but the server does not tell its id (Location)")
    return Written(found, version_id, created=not request.id and (request.method == "POST" or status == 201))


def _percent(token: str) -> str:
    """A token as it stands in a URL's query."""
    return quote(token, safe="")
