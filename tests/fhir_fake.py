"""A FHIR server small enough for a test, behind httpx. What it does is held to what real servers do by
tests/contract/fhir_sink.py."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit

import httpx
import orjson

from tests.web_server import Asked, Reply

URL = "http://ehr.example/fhir"
Fault = Callable[[httpx.Request], httpx.Response | None]


@dataclass
class FhirFake(httpx.BaseTransport):
    """Resources with versions. `fault` may answer before the server does, `after` once it has done its work.

    Result  `client_ids` PUT makes what is not there; `conditional` conditional create and update; `bundles` which it
            takes; `if_match` whether it heeds versions; `requests` what was asked, as "METHOD path"
    """

    client_ids: bool = True
    conditional: bool = True
    bundles: tuple[str, ...] = ("transaction", "batch")
    if_match: bool = True
    version: str = "4.0.1"
    says: dict[str, Any] = field(default_factory=dict)
    """What its CapabilityStatement claims of every type otherwise than it does."""

    types: tuple[str, ...] = ("Patient", "ImagingStudy", "Endpoint", "ServiceRequest", "Encounter")
    """What it knows of."""

    claims: tuple[str, ...] | None = None
    """The bundles that it claims to take."""

    fault: Fault | None = None
    after: Fault | None = None

    def __post_init__(self) -> None:
        self.url = URL
        self.history: dict[str, list[dict[str, Any] | None]] = {}
        self.requests: list[str] = []
        self._ids = itertools.count(1000)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        path = unquote(request.url.raw_path.decode()).removeprefix(urlsplit(URL).path).lstrip("/")
        self.requests.append(f"{request.method} {path.partition('?')[0]}")
        if self.fault is not None and (answer := self.fault(request)) is not None:
            return answer
        answer = self._answer(request, path)
        if self.after is not None and (instead := self.after(request)) is not None:
            return instead
        return answer

    def _answer(self, request: httpx.Request, path: str) -> httpx.Response:
        if path == "metadata":
            return httpx.Response(200, json=self._statement())
        if request.method == "POST" and not path:
            return self._bundle(orjson.loads(request.content))
        if path.endswith("/_search"):
            return self._searched(path.partition("/")[0], dict(parse_qsl(request.content.decode())))
        if request.method == "GET" and "/" not in path.partition("?")[0]:
            return self._searched(path.partition("?")[0], dict(request.url.params))
        body = orjson.loads(request.content) if request.content else None
        headers = {"ifMatch": request.headers.get("if-match"), "ifNoneExist": request.headers.get("if-none-exist")}
        status, found, where = self.do(request.method, path, body, {k: v for k, v in headers.items() if v})
        if status >= 400:
            return httpx.Response(status, json=_outcome(status))
        return httpx.Response(status, json=found, headers=_written(found, where))

    def do(self, method: str, path: str, body: Any, asked: dict[str, str]) -> tuple[int, Any, str]:
        kind, _, rest = path.partition("?")
        kind, _, id_ = kind.partition("/")
        if method == "GET":
            versions = self.history.get(f"{kind}/{id_}")
            if versions is None:
                return 404, None, ""
            return (200, versions[-1], "") if versions[-1] is not None else (410, None, "")
        if method == "DELETE":
            if self._referred(f"{kind}/{id_}"):
                return 409, None, ""
            self.history[f"{kind}/{id_}"].append(None)
            return 204, None, ""
        if rest or asked.get("ifNoneExist"):
            if not self.conditional:
                return 405, None, ""
            matches = self.found(kind, parse_qs(rest or asked["ifNoneExist"])["identifier"][0])
            if len(matches) > 1:
                return 412, None, ""
            if matches and method == "POST":
                return 200, matches[0], f"{kind}/{matches[0]['id']}"
            return self._store(kind, matches[0]["id"] if matches else str(next(self._ids)), body)
        if method == "POST":
            return self._store(kind, str(next(self._ids)), body)
        there = self.read(f"{kind}/{id_}")
        if there is None and not self.client_ids:
            return 405, None, ""
        version = re.fullmatch(r'W/"(.+)"', asked.get("ifMatch", ""))
        if self.if_match and version and (there is None or there["meta"]["versionId"] != version.group(1)):
            return 412, None, ""
        return self._store(kind, id_, body)

    def _store(self, kind: str, id_: str, body: Any) -> tuple[int, Any, str]:
        where = f"{kind}/{id_}"
        tags = {k: v for k, v in body.get("meta", {}).items() if k in ("tag", "security", "profile")}
        versions = self.history.setdefault(where, [])
        versions.append(body | {"id": id_, "meta": tags | {"versionId": str(len(versions) + 1)}})
        return (201 if len(versions) == 1 else 200), versions[-1], where

    def _bundle(self, bundle: dict[str, Any]) -> httpx.Response:
        if bundle["type"] not in self.bundles:
            return httpx.Response(405, json=_outcome(405))
        kept = {k: list(v) for k, v in self.history.items()}
        answers = []
        for entry in bundle["entry"]:
            asked = entry["request"]
            status, found, where = self.do(asked["method"], unquote(asked["url"]), entry.get("resource"), asked)
            if status >= 400 and bundle["type"] == "transaction":
                self.history = kept
                return httpx.Response(status, json=_outcome(status))
            headers = _written(found, where) if status < 400 else {}
            told = {"outcome": _outcome(status)} if status >= 400 else {}
            answers.append({"response": {"status": f"{status} X", **headers, **told}})
        kind = f"{bundle['type']}-response"
        return httpx.Response(200, json={"resourceType": "Bundle", "type": kind, "entry": answers})

    def _searched(self, kind: str, parameters: dict[str, str]) -> httpx.Response:
        tokens = _tokens(parameters.get("identifier", ""))
        found = [r for token in tokens for r in self.found(kind, token)] if tokens else self.all(kind)
        entries = [{"resource": r} for r in found]
        return httpx.Response(200, json={"resourceType": "Bundle", "type": "searchset", "entry": entries})

    def found(self, kind: str, token: str) -> list[dict[str, Any]]:
        system, _, value = token.partition("|")
        value = value.replace("\\,", ",").replace("\\$", "$").replace("\\|", "|").replace("\\\\", "\\")
        return [
            r
            for r in self.all(kind)
            if any(i.get("system", "") == system and i.get("value") == value for i in r.get("identifier", []))
        ]

    def all(self, kind: str) -> list[dict[str, Any]]:
        """What there is now of a type."""
        current = [v[-1] for k, v in self.history.items() if k.startswith(f"{kind}/")]
        return [r for r in current if r is not None]

    def search(self, kind: str, identifier: str) -> list[dict[str, Any]]:
        return self.found(kind, identifier)

    def read(self, reference: str) -> dict[str, Any] | None:
        return self.history.get(reference, [None])[-1]

    def put(self, resource: dict[str, Any]) -> dict[str, Any]:
        kind, id_ = resource["resourceType"], resource["id"]
        known = self.client_ids or f"{kind}/{id_}" in self.history
        _, stored, _ = self._store(kind, id_ if known else str(next(self._ids)), resource)
        return dict(stored)

    def delete(self, reference: str) -> None:
        self.history[reference].append(None)

    def versions(self, kind: str, id_: str) -> int:
        return len(self.history[f"{kind}/{id_}"])

    def _referred(self, reference: str) -> bool:
        text = f'"reference":"{reference}"'.encode()
        return any(text in orjson.dumps(r) for v in self.history.values() if (r := v[-1]) is not None)

    def _statement(self) -> dict[str, Any]:
        can = {"updateCreate": self.client_ids, "conditionalCreate": self.conditional}
        can |= {
            "conditionalUpdate": self.conditional,
            "versioning": "versioned-update" if self.if_match else "versioned",
        }
        resources = [{"type": t, "interaction": [{"code": "search-type"}], **can, **self.says} for t in self.types]
        interactions = [{"code": b} for b in (self.bundles if self.claims is None else self.claims)]
        rest = [{"mode": "server", "resource": resources, "interaction": interactions}]
        return {"resourceType": "CapabilityStatement", "fhirVersion": self.version, "rest": rest}


def _tokens(value: str) -> list[str]:
    return re.findall(r"(?:\\.|[^,\\])+", value)


def _written(found: Any, where: str) -> dict[str, str]:
    if not where:
        return {}
    version = found["meta"]["versionId"]
    return {"location": f"{URL}/{where}/_history/{version}", "etag": f'W/"{version}"'}


def _outcome(status: int) -> dict[str, Any]:
    issue = {"severity": "error", "code": "invalid", "diagnostics": f"SECRET {status}", "expression": ["ImagingStudy"]}
    return {"resourceType": "OperationOutcome", "issue": [issue]}


def over_http(fake: FhirFake) -> Callable[[Asked], Reply]:
    """The fake behind a web server of ours, below /fhir."""

    def answer(asked: Asked) -> Reply:
        path = asked.path.removeprefix("/fhir")
        request = httpx.Request(asked.method, URL + path, headers=dict(asked.headers), content=asked.content)
        found = fake.handle_request(request)
        return Reply(found.status_code, found.content, {"Content-Type": "application/fhir+json", **_told(found)})

    return answer


def _told(response: httpx.Response) -> dict[str, str]:
    return {name: response.headers[name] for name in ("location", "etag") if name in response.headers}
