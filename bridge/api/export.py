"""Bulk Data $export: everything, or everything of patients, as NDJSON files (FHIR Bulk Data Access 2.0)."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Protocol
from urllib.parse import parse_qsl

import orjson
from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import FileResponse
from starlette.exceptions import HTTPException

from bridge.api.bundle import FhirJson, http_date, operation_outcome
from bridge.api.negotiation import SentBody, acceptable, posted_parameters, preferences
from bridge.errors import InvalidQuery
from bridge.follow.export import ExportLimits
from bridge.follow.ports import ExportFile, ExportJob
from bridge.model import Resource
from bridge.translate.meta import instant
from bridge.translate.search_parameters import PARAMETERS, date_range

NDJSON = "application/fhir+ndjson"
FORMATS = (NDJSON, "application/ndjson", "ndjson")
OF_PATIENTS = frozenset({"Patient", "ImagingStudy", "DiagnosticReport", "DocumentReference", "Observation"})
"""What of our resource types is in the Patient compartment (FHIR R4)."""

BUSY_S = 120
POLL_S = 2

_JOB = re.compile(r"[0-9a-f]{32}")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_MANY = frozenset({"_type"})


class ExportsState(Protocol):
    """What of the state callers of $export reach."""

    def add_export(self, job: ExportJob, most: int, now: float) -> ExportJob | None: ...

    def export(self, id_: str) -> ExportJob | None: ...

    def remove_export(self, id_: str) -> bool: ...


def router(state: ExportsState, base: str, folder: Path, limits: ExportLimits, clock: Callable[[], float]) -> APIRouter:
    """$export and what it leads to; `base` is the public address of the FHIR API, `folder` where files lie."""
    everything = frozenset(PARAMETERS)
    routes, export = APIRouter(), _Export(state, base, folder, limits, clock)

    @routes.get("/$export")
    def export_all(request: Request, prefer: Annotated[str, Header()] = "") -> Response:
        return export.start(request, prefer, _query(request.url.query), everything)

    @routes.get("/Patient/$export")
    def export_patients(request: Request, prefer: Annotated[str, Header()] = "") -> Response:
        return export.start(request, prefer, _query(request.url.query), OF_PATIENTS)

    @routes.post("/$export")
    def post_export_all(request: Request, body: SentBody, prefer: Annotated[str, Header()] = "") -> Response:
        return export.start(request, prefer, posted_parameters(request, body), everything)

    @routes.post("/Patient/$export")
    def post_export_patients(request: Request, body: SentBody, prefer: Annotated[str, Header()] = "") -> Response:
        return export.start(request, prefer, posted_parameters(request, body), OF_PATIENTS)

    @routes.get("/_export/{job}")
    def status(job: str) -> Response:
        return export.status(job)

    @routes.delete("/_export/{job}")
    def cancel(job: str) -> Response:
        return export.cancel(job)

    @routes.get("/_export/{job}/{name}")
    def download(job: str, name: str) -> Response:
        return export.download(job, name)

    return routes


class _Export:
    def __init__(
        self, state: ExportsState, base: str, folder: Path, limits: ExportLimits, clock: Callable[[], float]
    ) -> None:
        self._state, self._base, self._folder, self._limits, self._clock = state, base, folder, limits, clock

    def start(
        self, request: Request, prefer: str, parameters: Sequence[tuple[str, str]], known: frozenset[str]
    ) -> Response:
        acceptable(request)
        if "respond-async" not in preferences(prefer):
            raise InvalidQuery("$export: send the header Prefer: respond-async; exports are made in the background")
        kinds, since = _wanted(parameters, known)
        now = self._clock()
        level = "" if known == frozenset(PARAMETERS) else "/Patient"
        url = f"{self._base}{level}/$export" + (f"?{request.url.query}" if request.url.query else "")
        job = self._state.add_export(
            ExportJob(secrets.token_hex(16), url, kinds, since, 0, 0.0, now), self._limits.jobs, now
        )
        if job is None:
            raise HTTPException(
                429, "as many exports are kept as api.export_jobs allows: DELETE one", {"Retry-After": str(BUSY_S)}
            )
        return Response(status_code=202, headers={"Content-Location": self._place(job)})

    def status(self, id_: str) -> Response:
        job = self._job(id_)
        if job.error:
            return FhirJson(operation_outcome("processing", f"$export: {job.error}"), 500)
        if job.finished_at is None:
            progress = f"{job.written:,} resources written" if job.written else "waiting"
            return Response(status_code=202, headers={"X-Progress": progress, "Retry-After": str(POLL_S)})
        expires = http_date(job.created_at + self._limits.seconds)
        return Response(orjson.dumps(self._manifest(job)), 200, {"Expires": expires}, "application/json")

    def cancel(self, id_: str) -> Response:
        self._state.remove_export(self._job(id_).id)
        return Response(status_code=202)

    def download(self, id_: str, name: str) -> Response:
        job = self._job(id_)
        file = next((f for f in job.files if f.name == name), None)
        path = self._folder / job.id / file.name if file is not None else None
        if path is None or not path.is_file():
            raise HTTPException(404, "no such file of this export")
        return FileResponse(path, media_type=NDJSON)

    def _job(self, id_: str) -> ExportJob:
        job = self._state.export(id_) if _JOB.fullmatch(id_) else None
        if job is None or self._clock() - job.created_at > self._limits.seconds:
            raise HTTPException(404, "no such export: it was removed, or is too old")
        return job

    def _place(self, job: ExportJob) -> str:
        return f"{self._base}/_export/{job.id}"

    def _manifest(self, job: ExportJob) -> Resource:
        def listed(files: Sequence[ExportFile]) -> list[Resource]:
            place = self._place(job)
            return [{"type": f.resource_type, "url": f"{place}/{f.name}", "count": f.count} for f in files]

        return {
            "transactionTime": instant(job.transaction_time),
            "request": job.request,
            "requiresAccessToken": False,
            "output": listed([f for f in job.files if not f.deleted]),
            "deleted": listed([f for f in job.files if f.deleted]),
            "error": [],
        }


def _query(query: str) -> list[tuple[str, str]]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=100)
    except ValueError:
        raise InvalidQuery("$export: too many parameters") from None
    return [(n, v.replace(" ", "+") if n in ("_since", "_outputFormat") else v) for n, v in pairs]


def _wanted(parameters: Sequence[tuple[str, str]], known: frozenset[str]) -> tuple[tuple[str, ...], float]:
    """(resource types, since) of the parameters. Raises InvalidQuery naming the one that cannot be followed."""
    kinds: set[str] = set()
    since = 0.0
    seen: set[str] = set()
    for name, value in parameters:
        if name in seen - _MANY:
            raise InvalidQuery(f"{name}: given twice")
        seen.add(name)
        if name == "_type":
            kinds |= set(value.split(","))
        elif name == "_since":
            since = _since(value)
        elif name != "_outputFormat":
            raise InvalidQuery(
                f"{name[:60]}: not supported by this $export; supported are _type, _since and _outputFormat"
            )
        elif value not in FORMATS:
            raise InvalidQuery(f"_outputFormat: allowed are {', '.join(FORMATS)}")
    if not kinds <= known:
        raise InvalidQuery(f"_type: allowed here are {', '.join(sorted(known))}")
    return tuple(sorted(kinds or known)), since


def _since(value: str) -> float:
    covered = date_range(value) if _INSTANT.fullmatch(value) else None
    if covered is None:
        raise InvalidQuery("_since: not an instant, such as 2026-01-31T12:00:00Z")
    return covered[0]
