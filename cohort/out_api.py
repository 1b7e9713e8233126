"""The routes that bring a cohort out: Group, manifest, OMOP tables, and one patient's timeline."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, date, datetime
from typing import Any, Literal

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from cohort import group as fhir
from cohort import timeline_plot as plot
from cohort.catalogue import question
from cohort.desk import Caller, Desk
from cohort.generation import Generation
from cohort.manifest import manifest
from cohort.omop import omop
from cohort.omop_maps import ConceptMap, PersonMap
from cohort.render import MEDIA_TYPES
from cohort.sandbox import Limits
from cohort.selection import Selection

WEB_LIMITS = Limits(rows=100_000, deadline_s=60.0)
"""Larger cohorts go out by the command line."""

_PICTURE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"


class Selected(BaseModel):
    """Values of a question's parameters, and the day ages and periods count from (today if none)."""

    model_config = ConfigDict(extra="forbid")
    parameters: dict[str, Any] = Field(default_factory=dict, max_length=50)
    on: date | None = Field(default=None, alias="date")

    def of(
        self, name: str, export: str, desk: Desk, generation: Generation, caller: Caller
    ) -> AbstractContextManager[Selection]:
        """What the question `name` selects, for `export`."""
        day = self.on or datetime.now(UTC).date()
        return desk.export(export, generation, question(name), self.parameters, day, caller, WEB_LIMITS)


class WhoseTimeline(BaseModel):
    """A patient_id, or the value of an identifier. In the body: addresses are written to logs."""

    model_config = ConfigDict(extra="forbid")
    patient: str = Field(min_length=1, max_length=200)
    format: Literal["json", "png", "svg"] = "json"


def add_routes(
    routes: APIRouter,
    run: Callable[[Callable[[Generation], Response]], Response],
    desk: Desk,
    caller: Callable[[Request], Caller],
) -> None:
    """Adds them to the cohort's routes; `run` gives each the newest generation, and its errors a status; `caller` says
    who asks."""

    @routes.post("/api/questions/{name}/group")
    def ask_group(name: str, asked: Selected, request: Request, version: Literal["r4", "r5"] = "r4") -> Response:
        def made(g: Generation) -> Response:
            with asked.of(name, "group", desk, g, caller(request)) as selection:
                content = orjson.dumps(fhir.group(selection, version))
            return _download(content, fhir.MEDIA_TYPES[version], "", g)

        return run(made)

    @routes.post("/api/questions/{name}/manifest")
    def ask_manifest(name: str, asked: Selected, request: Request, format: Literal["json", "csv"] = "json") -> Response:
        def made(g: Generation) -> Response:
            with asked.of(name, "manifest", desk, g, caller(request)) as selection:
                found = manifest(selection)
            content = found.as_csv() if format == "csv" else found.as_json()
            return _download(content, MEDIA_TYPES[format], f"{name}-manifest.csv" if format == "csv" else "", g)

        return run(made)

    @routes.post("/api/questions/{name}/omop")
    def ask_omop(
        name: str, asked: Selected, request: Request, format: Literal["csv", "parquet"] = "parquet"
    ) -> Response:
        def made(g: Generation) -> Response:
            with asked.of(name, "omop", desk, g, caller(request)) as selection:
                tables = omop(selection, PersonMap(), ConceptMap()).files(format)
            return _download(_zipped(tables), "application/zip", f"{name}-omop.zip", g)

        return run(made)

    @routes.post("/api/timeline")
    def ask_timeline(asked: WhoseTimeline, request: Request) -> Response:
        def made(g: Generation) -> Response:
            found = desk.timeline(g, asked.patient, caller(request), WEB_LIMITS)
            if asked.format == "json":
                return _download(found.as_json(), "application/json", "", g)
            answer = _download(plot.drawn(found, asked.format), plot.MEDIA_TYPES[asked.format], "", g)
            answer.headers["Content-Security-Policy"] = _PICTURE_POLICY
            return answer

        return run(made)


def _download(content: bytes, media_type: str, name: str, generation: Generation) -> Response:
    headers = {"X-Lake-Generation": generation.id}
    if name:
        headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return Response(content, media_type=media_type, headers=headers)


def _zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()
