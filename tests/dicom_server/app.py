"""The simulated DICOM server's HTTP surface: the routes that a reader uses, with the server's own validation."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.types import Message, Receive, Scope, Send

from tests.dicom_server.archive import TICKS, Change, Fault, Key, SimulatedArchive
from tests.dicom_server.tokens import Tokens

VERSIONS = ("v1", "v1.0-prerelease", "v2")
LONGEST_SPAN = {"v1": 100, "v1.0-prerelease": 100, "v2": 200}
DEFAULT_SPAN = {"v1": 10, "v1.0-prerelease": 10, "v2": 100}
SEARCH_MOST, SEARCH_DEFAULT = 200, 100
STUDY_COUNT, SERIES_COUNT = "00201208", "00201209"
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,7}))?(Z|[+-]\d\d:\d\d)")
_LOCATION = "/{version}/studies", "/{version}/partitions/{partition}/studies"
_NOT_METADATA = {"OB", "OD", "OF", "OL", "OV", "OW", "UN"}


class _BadRequest(Exception):
    """HTTP 400."""


def create(archive: SimulatedArchive, tokens: Tokens | None = None) -> FastAPI:
    """The application over an archive; with `tokens` every request but that for a token needs a bearer token."""
    app = FastAPI(openapi_url=None)
    _Routes(archive).add_to(app)
    if tokens is not None:
        tokens.add_to(app)
    app.add_middleware(_Gate, archive=archive, tokens=tokens)
    return app


class _Gate:
    """Remembers requests, checks tokens, and commits the faults that a test asks for."""

    def __init__(self, app: Any, archive: SimulatedArchive, tokens: Tokens | None) -> None:
        self._app, self._archive, self._tokens = app, archive, tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"] + ("?" + scope["query_string"].decode() if scope["query_string"] else "")
        self._archive.requests.append(path)
        authorization = dict(scope["headers"]).get(b"authorization", b"").decode()
        self._archive.authorizations.append(authorization)
        fault = self._fault(path)
        if fault is not None and fault.after_s:
            await asyncio.sleep(fault.after_s)
        elif fault is not None and not fault.cut:
            await Response(fault.body, fault.status, fault.headers)(scope, receive, send)
            return
        if self._tokens is not None and not self._tokens.admits(scope["path"], authorization):
            await Response(status_code=401, headers={"WWW-Authenticate": "Bearer"})(scope, receive, send)
            return
        await self._app(scope, receive, _cut(send) if fault is not None and fault.cut else send)

    def _fault(self, path: str) -> Fault | None:
        fault = next((f for f in self._archive.faults if f.where in path and f.times), None)
        if fault is not None:
            fault.times -= 1
        return fault


def _cut(send: Send) -> Send:
    async def half(message: Message) -> None:
        body = message.get("body", b"")
        await send({**message, "body": body[: len(body) // 2]} if body else message)

    return half


class _Routes:
    def __init__(self, archive: SimulatedArchive) -> None:
        self._archive = archive

    def add_to(self, app: FastAPI) -> None:
        async def bad_request(_request: Request, _error: Exception) -> Response:
            return Response(status_code=400)

        app.add_exception_handler(_BadRequest, bad_request)
        app.add_api_route("/{version}/changefeed", self.changes)
        app.add_api_route("/{version}/changefeed/latest", self.latest)
        app.add_api_route("/{version}/partitions", self.partitions)
        for base in _LOCATION:
            app.add_api_route(base, self.studies)
            app.add_api_route(base + "/{study}/metadata", self.metadata)
            app.add_api_route(base + "/{study}/series", self.series)
            app.add_api_route(base + "/{study}/instances", self.instances)
            app.add_api_route(base + "/{study}/series/{series}/instances/{instance}", self.instance)
            app.add_api_route(base + "/{study}/series/{series}/instances/{instance}/metadata", self.metadata)

    # Change feed

    async def changes(self, request: Request) -> Response:
        version = _version(request)
        with_metadata = _boolean(request, "includeMetadata", True)
        limit = _whole(request, "limit", DEFAULT_SPAN[version], 1, LONGEST_SPAN[version])
        offset = _whole(request, "offset", 0, 0, 2**63 - 1)
        if version == "v2":
            start, end = _time(request, "startTime", 0), _time(request, "endTime", 2**63)
            if end <= start:
                raise _BadRequest
            inside = [c for c in self._archive.log if start <= c.ticks < end]
            found = sorted(inside, key=lambda c: (c.ticks, c.sequence))[offset : offset + limit]
        else:
            found = [c for c in self._archive.log if offset < c.sequence <= offset + limit]
        return _json([self._entry(c, with_metadata) for c in found])

    async def latest(self, request: Request) -> Response:
        version, with_metadata = _version(request), _boolean(request, "includeMetadata", True)
        if not self._archive.log:
            return Response(status_code=204)
        by_time = version == "v2"
        newest = max(self._archive.log, key=lambda c: (c.ticks if by_time else 0, c.sequence))
        return _json(self._entry(newest, with_metadata))

    def _entry(self, change: Change, with_metadata: bool) -> Any:
        partition, study, series, instance = change.key
        entry: dict[str, Any] = {
            "sequence": change.sequence,
            "partitionName": partition,
            "studyInstanceUid": study,
            "seriesInstanceUid": series,
            "sopInstanceUid": instance,
            "action": change.action,
            "timestamp": _timestamp(change.ticks),
            "state": self._archive.state(change),
        }
        if with_metadata and change.key in self._archive.held:
            entry["metadata"] = self._metadata(change.key)
        if self._archive.pascal_case:
            entry = {k[0].upper() + k[1:]: v for k, v in entry.items()}
            entry |= {k: entry[k].lower() for k in ("Action", "State")}
        edit = self._archive.entry_edits.get(change.sequence)
        return edit(entry) if edit else entry

    # Partitions

    async def partitions(self, request: Request) -> Response:
        _version(request)
        if not self._archive.partitions_enabled:
            raise _BadRequest
        named = [{"partitionKey": n, "partitionName": p} for n, p in enumerate(self._archive.partitions, 1)]
        return _json(named)

    def _keys(self, request: Request) -> list[Key]:
        """The instances held where the path looks."""
        _version(request)
        partition = request.path_params.get("partition", "")
        enabled = self._archive.partitions_enabled
        if enabled != bool(partition) or (enabled and partition not in self._archive.partitions):
            raise _BadRequest
        study = request.path_params.get("study")
        return [k for k in self._archive.held if k[0] in ("", partition or k[0]) and study in (None, k[1])]

    # Retrieve

    async def metadata(self, request: Request) -> Response:
        instance = request.path_params.get("instance")
        keys = [k for k in self._keys(request) if instance in (None, k[3])]
        if not keys:
            return Response(status_code=404)
        parts = [self._archive.garbage.get(k[3]) or json.dumps(self._metadata(k)).encode() for k in keys]
        return Response(b"[" + b",".join(parts) + b"]", media_type="application/dicom+json")

    async def instance(self, request: Request) -> Response:
        """One instance; not wrapped where the request does not ask for multipart."""
        keys = [k for k in self._keys(request) if k[3] == request.path_params["instance"]]
        if not keys:
            return Response(status_code=404)
        buffer = BytesIO()
        self._archive.held[keys[0]].dataset().save_as(buffer, enforce_file_format=True)
        content = self._archive.objects.get(keys[0][3], buffer.getvalue())
        if not request.headers["accept"].startswith("multipart"):
            return Response(content, media_type="application/dicom")
        head = b"--parts\r\nContent-Type: application/dicom\r\n\r\n"
        body = head + content + b"\r\n--parts--\r\n"
        return Response(body, media_type='multipart/related; type="application/dicom"; boundary=parts')

    def _metadata(self, key: Key) -> Any:
        found = self._archive.held[key].dataset().to_json_dict(suppress_invalid_tags=True)
        plain = {tag: a for tag, a in found.items() if a.get("vr") not in _NOT_METADATA}
        edit = self._archive.metadata_edits.get(key[3])
        return edit(plain) if edit else plain

    # Search

    async def studies(self, request: Request) -> Response:
        asked = request.query_params.get("StudyInstanceUID")
        keys = [k for k in self._keys(request) if asked in (None, k[1])]
        return self._found(request, keys, 1, "0020000D", STUDY_COUNT, "NumberOfStudyRelatedInstances")

    async def series(self, request: Request) -> Response:
        return self._found(request, self._keys(request), 2, "0020000E", SERIES_COUNT, "NumberOfSeriesRelatedInstances")

    async def instances(self, request: Request) -> Response:
        return self._found(request, self._keys(request), 3, "00080018", "", "")

    def _found(self, request: Request, keys: list[Key], level: int, tag: str, count: str, keyword: str) -> Response:
        """One page of results, newest first; nothing is 204."""
        limit = _whole(request, "limit", SEARCH_DEFAULT, 1, SEARCH_MOST)
        offset = _whole(request, "offset", 0, 0, 2**31 - 1)
        newest: dict[str, int] = {}
        numbers: dict[str, int] = {}
        parents = {k[level]: k[2] for k in keys}
        for key in keys:
            newest[key[level]] = max(newest.get(key[level], 0), self._archive.held[key].watermark)
            numbers[key[level]] = numbers.get(key[level], 0) + 1
        page = sorted(newest, key=lambda uid: -newest[uid])[offset : offset + limit]
        if not page:
            return Response(status_code=204)
        found: list[dict[str, Any]] = [{tag: {"vr": "UI", "Value": [uid]}} for uid in page]
        wanted = request.query_params.getlist("includefield")
        if self._archive.counts_studies and {count, keyword} & set(wanted):
            for item, uid in zip(found, page, strict=True):
                item[count] = {"vr": "IS", "Value": [numbers[uid]]}
        if level == 3:
            for item, uid in zip(found, page, strict=True):
                item["0020000E"] = {"vr": "UI", "Value": [parents[uid]]}
        return _json(found, "application/dicom+json")


def _json(content: Any, media_type: str = "application/json") -> Response:
    return Response(json.dumps(content).encode(), media_type=media_type)


def _version(request: Request) -> str:
    version = str(request.path_params["version"])
    if version not in VERSIONS:
        raise _BadRequest
    return version


def _parameter(request: Request, name: str) -> str | None:
    """Names of parameters have no case."""
    pairs: Iterable[tuple[str, str]] = request.query_params.multi_items()
    return next((value for key, value in pairs if key.lower() == name.lower()), None)


def _boolean(request: Request, name: str, default: bool) -> bool:
    text = _parameter(request, name)
    if text is None:
        return default
    if text.lower() not in ("true", "false"):
        raise _BadRequest
    return text.lower() == "true"


def _whole(request: Request, name: str, default: int, least: int, most: int) -> int:
    text = _parameter(request, name)
    if text is None:
        return default
    if not re.fullmatch(r"-?\d+", text) or not least <= int(text) <= most:
        raise _BadRequest
    return int(text)


def _time(request: Request, name: str, default: int) -> int:
    text = _parameter(request, name)
    if text is None:
        return default
    match = _TIME.fullmatch(text)
    if match is None:
        raise _BadRequest
    try:
        seconds = datetime.fromisoformat(match[1] + match[3].replace("Z", "+00:00")).timestamp()
    except ValueError:
        raise _BadRequest from None
    return int(seconds) * TICKS + int((match[2] or "").ljust(7, "0"))


def _timestamp(ticks: int) -> str:
    """As the server writes it: no zeros at the end of the fraction, an offset and never Z."""
    seconds, fraction = divmod(ticks, TICKS)
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    digits = f"{fraction:07}".rstrip("0")
    return moment.strftime("%Y-%m-%dT%H:%M:%S") + (f".{digits}" if digits else "") + "+00:00"
