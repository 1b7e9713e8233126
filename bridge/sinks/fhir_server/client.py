"""Speaks FHIR REST with one server. Every answer but success becomes an error whose type says what to do."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

from bridge.errors import Conflict, ProjectError, RefusedByServer, SinkUnavailable
from bridge.model import Resource
from bridge.sinks.fhir_server.capabilities import objects
from bridge.web.answers import Unusable, bounded, explained, retry_after, same_origin

FHIR_JSON = "application/fhir+json"
ANSWER_BYTES = 268_435_456
"""The largest answer read into memory."""

MAXIMUM_PAGES = 50
IDENTIFIERS_PER_SEARCH = 50
TRIES = 4
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 2.0
"""What is asked again at once: so often, after pauses that double; a server that asks for more patience gets it."""

_NOT_TAKEN = frozenset({425, 429, 503})
_UNKNOWN = frozenset({408, 502})
_NOT_SUPPORTED = frozenset({405, 501})


class TooLarge(RefusedByServer):
    """The server refused the request for its size (413): send less at once."""


class NotSupported(RefusedByServer):
    """The server does not offer this interaction (405, 501): ask in another way."""


class Doubtful(SinkUnavailable):
    """The server failed at this request (403, 500). Whether it fails at others too tells
    whether the request or the server is at fault."""


class Unanswered(Doubtful):
    """No answer came in time: it may still be done, so nothing is asked that depends on it for a while."""


class _NotTaken(SinkUnavailable):
    """The server says that it did nothing with the request, for now (425, 429, 503)."""


class _Lost(SinkUnavailable):
    """The connection, or one behind it (408, 502), ended before the answer did: what became of it is not known."""


@dataclass(frozen=True)
class Answer:
    """A successful answer. `body` None when empty; `version_id` and `id` of what was written, "" when not told."""

    body: Any
    id: str = ""
    version_id: str = ""
    status: int = 200


class FhirClient:
    """One server. Redirects are not followed and the environment's proxies not used: credentials go to `url` only.

    Raises  SinkUnavailable (later again), Doubtful, Conflict (read again), NotSupported, TooLarge, RefusedByServer
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        auth: httpx.Auth | None = None,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = 30.0,
        transport: httpx.BaseTransport | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name, self.url, self.timeout_s, self._pause = name, url.rstrip("/"), timeout_s, pause
        self._client = httpx.Client(
            auth=auth,
            verify=tls if tls is not None else True,
            headers={"Accept": FHIR_JSON, "Accept-Encoding": "gzip"},
            timeout=timeout_s,
            follow_redirects=False,
            transport=transport,
            trust_env=False,
        )
        self._search_by_post = True

    def close(self) -> None:
        self._client.close()

    def read(self, path: str) -> Resource | None:
        """The resource under a path; None when there is none (404) or no longer (410)."""
        body = self._ask("GET", path, headers=_FRESH, nothing=frozenset({404, 410})).body
        return body if isinstance(body, dict) else None

    def search(self, kind: str, parameters: Sequence[tuple[str, str]]) -> list[Resource]:
        """Every match of a search as the server has it now, all pages of it; parameters go in the body, so that
        identifiers stay out of the logs between us and the server, where the server takes them there."""
        bundle = self._first_page(kind, parameters)
        found: list[Resource] = []
        for _ in range(MAXIMUM_PAGES):
            resources = objects([entry.get("resource") for entry in objects(bundle.get("entry"))])
            found += [r for r in resources if r.get("resourceType") == kind and r.get("id")]
            following = next(
                (str(x.get("url")) for x in objects(bundle.get("link")) if x.get("relation") == "next"), ""
            )
            if not following:
                return found
            if not same_origin(following, self.url):
                raise SinkUnavailable(f"sink {self.name}: the next page lies on another server: refused; check url")
            bundle = self._bundle(self._ask("GET", following, headers=_FRESH))
        raise SinkUnavailable(f"sink {self.name}: a search has more than {MAXIMUM_PAGES} pages: given up")

    def identified(self, kind: str, tokens: Sequence[str], elements: str) -> list[Resource]:
        """Every resource with one of these identifiers, each as `system|value`; some of them at a time. Of each its
        `elements`, or all of it for "" and where the server gives no parts."""
        parts = [("_elements", elements)] if elements else []
        found: list[Resource] = []
        for start in range(0, len(tokens), IDENTIFIERS_PER_SEARCH):
            some = ",".join(tokens[start : start + IDENTIFIERS_PER_SEARCH])
            found += self.search(kind, [("identifier", some), ("_count", "200"), *parts])
        return found

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """Writes; `headers` such as If_Match, with underscores."""
        named = {name.replace("_", "-"): value for name, value in headers.items() if value}
        if body is not None:
            named |= {"Content-Type": FHIR_JSON, "Prefer": "return=minimal"}
        return self._ask(method, path, headers=named, content=body)

    def operation(self, path: str, body: Resource) -> Resource:
        """The answer of an operation."""
        headers = {"Content-Type": FHIR_JSON}
        answer = self._ask("POST", path, headers=headers, content=orjson.dumps(body))
        return self._bundle(answer)

    def error(self, status: int, outcome: Any, retry_after_s: float | None = None) -> ProjectError:
        """What an unsuccessful status means. Named by code and place; never the server's text, which may quote."""
        said = f"sink {self.name}: HTTP {status}{_issues(outcome)}"
        if status in {409, 412}:
            return Conflict(said)
        if status == 413:
            return TooLarge(said)
        if status in _NOT_SUPPORTED:
            return NotSupported(said)
        if status == 403:
            return Doubtful(f"{said}: the account may not do this; check its rights and scopes", retry_after_s)
        if status in _NOT_TAKEN:
            return _NotTaken(said, retry_after_s)
        if status in _UNKNOWN:
            return _Lost(said, retry_after_s)
        if status == 504:
            return Unanswered(said, retry_after_s or self.timeout_s)
        if status == 401 or 300 <= status < 400:
            hint = ": check the credentials" if status == 401 else ": check url"
            return SinkUnavailable(said + hint, retry_after_s)
        if status >= 500 or status < 200:
            return Doubtful(said, retry_after_s)
        return RefusedByServer(said)

    def _first_page(self, kind: str, parameters: Sequence[tuple[str, str]]) -> Resource:
        if self._search_by_post:
            try:
                form = str(httpx.QueryParams(list(parameters))).encode()
                headers = _FRESH | {"Content-Type": "application/x-www-form-urlencoded"}
                return self._bundle(self._ask("POST", f"{kind}/_search", headers=headers, content=form))
            except RefusedByServer:
                self._search_by_post = False
        return self._bundle(self._ask("GET", kind, headers=_FRESH, params=list(parameters)))

    def _bundle(self, answer: Answer) -> Resource:
        body = answer.body
        if not isinstance(body, dict) or "resourceType" not in body:
            raise SinkUnavailable(f"sink {self.name}: the answer is not a FHIR resource: check url")
        return body

    def _ask(self, method: str, path: str, *, nothing: frozenset[int] = frozenset(), **request: Any) -> Answer:
        """One answer. What a server cannot do at this moment is asked again at once a few times: a request that it
        did not take, and a reading whose answer was lost; a writing whose answer was lost is left to a new reading."""
        url = path if path.startswith("http") else f"{self.url}/{path}".rstrip("/")
        reading = method == "GET" or path.endswith("/_search")
        for attempt in range(TRIES):
            try:
                return self._once(method, url, nothing, request)
            except _NotTaken as error:
                wait_s = error.retry_after_s or FIRST_PAUSE_S * 2**attempt
                if attempt + 1 == TRIES or wait_s > LONGEST_PAUSE_S:
                    raise
            except _Lost:
                wait_s = FIRST_PAUSE_S * 2**attempt
                if attempt + 1 == TRIES or not reading:
                    raise
            self._pause(wait_s)
        raise SinkUnavailable(f"sink {self.name}: cannot answer now")

    def _once(self, method: str, url: str, nothing: frozenset[int], request: dict[str, Any]) -> Answer:
        try:
            with self._client.stream(method, url, **request) as response:
                content = b"".join(bounded(response, ANSWER_BYTES, self.timeout_s))
        except httpx.HTTPError as error:
            said = f"sink {self.name}: " + explained(
                error, setting="url", product="the FHIR server", timeout_s=self.timeout_s
            )
            if isinstance(error, httpx.ReadTimeout | httpx.WriteTimeout):
                raise Unanswered(said, self.timeout_s) from None
            if isinstance(error, httpx.ReadError | httpx.RemoteProtocolError | httpx.DecodingError):
                raise _Lost(said) from None
            raise SinkUnavailable(said) from None
        except Unusable as problem:
            raise SinkUnavailable(f"sink {self.name}: {problem}") from None
        if response.status_code in nothing:
            return Answer(None)
        body = _parsed(content)
        if not 200 <= response.status_code < 300:
            raise self.error(response.status_code, body, retry_after(response))
        if content and not (isinstance(body, dict) and "resourceType" in body):
            raise SinkUnavailable(f"sink {self.name}: the answer is not FHIR JSON: check url")
        return Answer(body, *written_version(response.headers), response.status_code)


_FRESH = {"Cache-Control": "no-cache"}
"""Some servers answer the same search for a while from memory: what was just written would be missing."""


def written_version(headers: Mapping[str, str]) -> tuple[str, str]:
    """(id, versionId) of what was written, from Location or Content-Location and ETag; "" for what is not told."""
    location = headers.get("location") or headers.get("content-location") or ""
    path, _, version = location.partition("/_history/")
    etag = (headers.get("etag") or "").strip().removeprefix("W/").strip('"')
    return path.rstrip("/").rpartition("/")[2], etag or version


def _parsed(content: bytes) -> Any:
    try:
        return orjson.loads(content) if content else None
    except orjson.JSONDecodeError:
        return None


_CODE = re.compile(r"[a-z-]{1,30}")
_PLACE = re.compile(
    r"(BodyStructure|Bundle|Device|DiagnosticReport|DocumentReference|Endpoint|ImagingSelection|ImagingStudy"
    r"|Observation|Parameters|Patient|Provenance)(\.[a-z][A-Za-z0-9]{0,40}(\[[0-9]{1,6}\])?){0,10}"
)
"""An element of what is sent, as FHIRPath names it; what a server puts into parentheses after it may quote a value."""


def _issues(outcome: Any) -> str:
    """Codes and places of an OperationOutcome; never its text."""
    issues = outcome.get("issue", []) if isinstance(outcome, dict) else []
    if not isinstance(issues, list):
        return ""
    named = []
    for issue in issues[:5]:
        if isinstance(issue, dict):
            code, given = issue.get("code"), issue.get("expression")
            told = given[:5] if isinstance(given, list) else []
            before = [one.partition("(")[0] for one in told if isinstance(one, str)]
            places = [one for one in before if _PLACE.fullmatch(one)]
            known = code if isinstance(code, str) and _CODE.fullmatch(code) else ""
            named.append(" ".join([known, *places]).strip())
    return ": " + "; ".join(named) if any(named) else ""
