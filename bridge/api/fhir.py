"""The FHIR R4 read API: metadata, read, vread, history, search. Every error is an OperationOutcome."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Protocol
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, Body, FastAPI, Header, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from bridge import __version__
from bridge.api.bundle import FhirJson, history, http_date, operation_outcome, searchset
from bridge.api.capability import capability_statement
from bridge.api.negotiation import acceptable, preferences
from bridge.errors import InvalidQuery, StateUnavailable
from bridge.model import Resource, StoredResource
from bridge.translate.fhir_search import DEFAULT_COUNT, INCLUDES, MAXIMUM_COUNT, ParsedSearch, cursor, parse_search
from bridge.translate.meta import with_meta
from bridge.translate.search_parameters import PARAMETERS
from bridge.translate.search_query import SearchQuery

MAXIMUM_INCLUDED = 2000
_ISSUE = {
    400: "invalid",
    403: "forbidden",
    404: "not-found",
    405: "not-supported",
    406: "not-supported",
    409: "conflict",
    410: "deleted",
    412: "conflict",
    413: "too-long",
    422: "business-rule",
    429: "throttled",
    503: "transient",
}


class FhirState(Protocol):
    """What of the state the API reads."""

    def read_resource(self, resource_type: str, id_: str, version: int | None = None) -> StoredResource | None: ...

    def resource_history(
        self, resource_type: str, id_: str, limit: int, offset: int
    ) -> tuple[int, list[StoredResource]]: ...

    def search(self, query: SearchQuery) -> tuple[list[tuple[StoredResource, float | str]], bool]: ...

    def search_total(self, query: SearchQuery) -> int: ...

    def referring(self, resource_type: str, param: str, targets: Sequence[str], limit: int) -> list[StoredResource]: ...


def fhir_app(state: FhirState, base: str, others: Sequence[APIRouter] = ()) -> FastAPI:
    """The application to mount at /fhir; `base` is its public address; `others` are asked before resource types."""
    app = FastAPI(title="FHIR R4", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    _errors(app)
    for router in others:
        app.include_router(router)
    reader, searcher = _Reader(state, base), _Searcher(state, base)

    @app.get("/metadata")
    def metadata(request: Request) -> FhirJson:
        acceptable(request)
        return FhirJson(capability_statement(base))

    @app.get("/{kind}/{id_}")
    def read(kind: str, id_: str, request: Request, if_none_match: Annotated[str, Header()] = "") -> FhirJson:
        acceptable(request)
        return reader.read(_known(kind), id_, if_none_match)

    @app.get("/{kind}/{id_}/_history/{version}")
    def vread(kind: str, id_: str, version: str, request: Request) -> FhirJson:
        acceptable(request)
        return reader.vread(_known(kind), id_, version)

    @app.get("/{kind}/{id_}/_history")
    def resource_history(kind: str, id_: str, request: Request) -> FhirJson:
        acceptable(request)
        return reader.history(
            _known(kind), id_, request.query_params.get("_count"), request.query_params.get("_offset")
        )

    @app.get("/{kind}")
    def search(kind: str, request: Request, prefer: Annotated[str, Header()] = "") -> FhirJson:
        acceptable(request)
        return searcher.search(_known(kind), _pairs(request.url.query), prefer)

    @app.post("/{kind}/_search")
    def post_search(
        kind: str,
        request: Request,
        body: Annotated[bytes, Body(media_type="application/x-www-form-urlencoded")] = b"",
        prefer: Annotated[str, Header()] = "",
    ) -> FhirJson:
        acceptable(request)
        sent = request.headers.get("content-type", "").partition(";")[0].strip()
        if body and sent != "application/x-www-form-urlencoded":
            raise HTTPException(415, "a search is posted as application/x-www-form-urlencoded")
        pairs = [*_pairs(request.url.query), *_pairs(body.decode("utf-8", "replace"))]
        return searcher.search(_known(kind), pairs, prefer)

    return app


class _Reader:
    def __init__(self, state: FhirState, base: str) -> None:
        self._state, self._base = state, base

    def read(self, kind: str, id_: str, if_none_match: str) -> FhirJson:
        found = self._state.read_resource(kind, _id(id_))
        if found is None:
            raise HTTPException(404, f"no {kind} with this id")
        headers = {"ETag": f'W/"{found.version}"', "Last-Modified": http_date(found.last_updated)}
        if found.deleted:
            raise HTTPException(410, f"this {kind} was deleted", headers)
        if headers["ETag"] in [tag.strip() for tag in if_none_match.split(",")]:
            return FhirJson(None, 304, headers)
        return FhirJson(with_meta(found), headers=headers)

    def vread(self, kind: str, id_: str, version: str) -> FhirJson:
        number = int(version) if version.isdecimal() and len(version) < 9 else 0
        found = self._state.read_resource(kind, _id(id_), number)
        if found is None:
            raise HTTPException(404, f"no such version of this {kind}")
        if found.deleted:
            raise HTTPException(410, f"this version is the deletion of the {kind}")
        headers = {"ETag": f'W/"{found.version}"', "Last-Modified": http_date(found.last_updated)}
        return FhirJson(with_meta(found), headers=headers)

    def history(self, kind: str, id_: str, count: str | None, offset: str | None) -> FhirJson:
        limit = min(max(_whole("_count", count, DEFAULT_COUNT), 1), MAXIMUM_COUNT)
        start = _whole("_offset", offset, 0)
        total, versions = self._state.resource_history(kind, _id(id_), limit, start)
        if not total:
            raise HTTPException(404, f"no {kind} with this id")
        place = f"{self._base}/{kind}/{id_}/_history"
        links = [("self", f"{place}?_count={limit}&_offset={start}")]
        if start + limit < total:
            links.append(("next", f"{place}?_count={limit}&_offset={start + limit}"))
        return FhirJson(history(self._base, links, versions, total))


class _Searcher:
    def __init__(self, state: FhirState, base: str) -> None:
        self._state, self._base = state, base

    def search(self, kind: str, pairs: Sequence[tuple[str, str]], prefer: str) -> FhirJson:
        parsed = parse_search(kind, pairs)
        if parsed.ignored and "handling=strict" in preferences(prefer):
            raise InvalidQuery(f"unknown search parameters: {', '.join(parsed.ignored[:10])}")
        total = self._state.search_total(parsed.query) if parsed.total else None
        place = f"{self._base}/{kind}"
        links = [("self", f"{place}?{urlencode(parsed.used)}" if parsed.used else place)]
        if parsed.only_count:
            return FhirJson(searchset(self._base, links, (), (), self._outcome(parsed), total))
        found, more = self._state.search(parsed.query)
        if more:
            last, key = found[-1]
            following = [*parsed.used, ("_cursor", cursor(parsed.query, key, last.id))]
            links.append(("next", f"{place}?{urlencode(following)}"))
        matches = [resource for resource, _ in found]
        included = self._included(parsed, matches)
        out = (with_meta(r, parsed.elements) for r in matches)
        return FhirJson(searchset(self._base, links, out, map(with_meta, included), self._outcome(parsed), total))

    def _included(self, parsed: ParsedSearch, matches: Sequence[StoredResource]) -> list[StoredResource]:
        """Referenced and referring resources, each once, none that is a match itself."""
        found: dict[tuple[str, str], StoredResource] = {}
        wanted: dict[str, None] = {}
        for kind, param in parsed.include:
            entries = PARAMETERS[kind][param].entries
            for match in matches:
                wanted |= {e.value: None for e in entries(match.content or {}) if e.param == param}
        for reference in list(wanted)[:MAXIMUM_INCLUDED]:
            kind, _, id_ = reference.partition("/")
            one = self._state.read_resource(kind, id_) if kind in PARAMETERS else None
            if one is not None and not one.deleted:
                found[one.resource_type, one.id] = one
        for kind, param in parsed.revinclude:
            targets = [f"{m.resource_type}/{m.id}" for m in matches]
            for one in self._state.referring(kind, param, targets, MAXIMUM_INCLUDED):
                found[one.resource_type, one.id] = one
        for match in matches:
            found.pop((match.resource_type, match.id), None)
        return list(found.values())

    def _outcome(self, parsed: ParsedSearch) -> Resource | None:
        if not parsed.ignored:
            return None
        return operation_outcome("not-supported", f"ignored: {', '.join(parsed.ignored[:10])}", "warning")


def _known(kind: str) -> str:
    if kind not in INCLUDES:
        raise HTTPException(404, f"resource types here: {', '.join(sorted(INCLUDES))}")
    return kind


def _id(id_: str) -> str:
    if not 1 <= len(id_) <= 64 or not all(c.isascii() and (c.isalnum() or c in "-.") for c in id_):
        raise HTTPException(400, "not an id (1 to 64 of A-Z a-z 0-9 - .)")
    return id_


def _whole(name: str, value: str | None, default: int) -> int:
    if value is None:
        return default
    if not value.isdecimal() or len(value) > 9:
        raise InvalidQuery(f"{name}: allowed are whole numbers from 0")
    return int(value)


def _pairs(query: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query, keep_blank_values=True, max_num_fields=200)
    except ValueError:
        raise InvalidQuery("too many search parameters") from None


def _errors(app: FastAPI) -> None:
    def invalid(_request: Request, error: Exception) -> FhirJson:
        return FhirJson(operation_outcome("invalid", str(error)), 400)

    def malformed(_request: Request, _error: Exception) -> FhirJson:
        return FhirJson(operation_outcome("invalid", "the request is malformed"), 400)

    def http(_request: Request, error: Exception) -> FhirJson:
        code, detail, headers = 500, "internal error", None
        if isinstance(error, HTTPException):
            code, detail, headers = error.status_code, str(error.detail), error.headers
        return FhirJson(operation_outcome(_ISSUE.get(code, "processing"), detail), code, dict(headers or {}))

    def unavailable(_request: Request, _error: Exception) -> FhirJson:
        return FhirJson(operation_outcome("transient", "the state cannot answer now"), 503, {"Retry-After": "5"})

    def unexpected(_request: Request, _error: Exception) -> FhirJson:
        return FhirJson(operation_outcome("exception", "internal error"), 500)

    app.add_exception_handler(InvalidQuery, invalid)
    app.add_exception_handler(RequestValidationError, malformed)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(StateUnavailable, unavailable)
    app.add_exception_handler(Exception, unexpected)
