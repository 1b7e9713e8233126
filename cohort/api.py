"""The cohort API and page, under /cohort. No accounts yet: served on loopback; whoever asks is known by address."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response

from cohort.answer import Answer
from cohort.asked import Asked, Compared, Document, Sql
from cohort.catalogue import question, questions, read_question
from cohort.desk import Caller, Chart, Desk
from cohort.disclosure import meaning
from cohort.feedback_api import feedback_router
from cohort.generation import Generation
from cohort.job_api import job_router
from cohort.lake import Lake
from cohort.out_api import add_routes
from cohort.question import Question
from cohort.responses import as_http, download
from cohort.schema import TableSchema, catalogue
from cohort.scores_api import scores_router
from cohort.view_api import view_router

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_STATIC = {"page.js": "text/javascript; charset=utf-8", "page.css": "text/css; charset=utf-8"}


_CHARTS = (
    Chart(
        "modalities",
        "SELECT date_trunc('month', s.started_date)::DATE AS month, s.modality, count(*) AS studies, "
        "count(DISTINCT s.patient_id) AS patients "
        "FROM (SELECT patient_id, started_date, unnest(modalities) AS modality FROM imaging_study "
        "WHERE status = 'available' AND started_date IS NOT NULL) s GROUP BY ALL",
        ("month", "modality"),
        ("studies",),
    ),
    Chart(
        "ages",
        "SELECT (date_sub('year', p.birth_date, current_date) // 10) * 10 AS age, p.gender, count(*) AS patients "
        "FROM patient p WHERE p.birth_date IS NOT NULL AND EXISTS "
        "(SELECT 1 FROM imaging_study s WHERE s.patient_id = p.patient_id AND s.status = 'available') GROUP BY ALL",
        ("age", "gender"),
    ),
)
CHARTS = {chart.name: chart for chart in _CHARTS}
"""The page's two plots: studies by modality and month, imaged patients by decade of age and gender."""


def router(lake: Lake, desk: Desk | None = None) -> APIRouter:
    """Every route of the cohort. What may be seen is the desk's to say; without one, what the safe policy has."""
    routes = APIRouter(prefix="/cohort", tags=["cohort"])
    desk = desk or Desk(lake.root)
    service = _Service(lake)

    @routes.get("/", include_in_schema=False)
    def page() -> Response:
        return _static("index.html", "text/html; charset=utf-8")

    @routes.get("/static/{name}", include_in_schema=False)
    def static(name: str) -> Response:
        if name not in _STATIC:
            raise HTTPException(404, "no such file")
        return _static(name, _STATIC[name])

    @routes.get("/api/questions")
    def list_questions() -> list[dict[str, Any]]:
        return [_described(q) for q in questions().values()]

    @routes.post("/api/questions/{name}")
    def ask_question(name: str, asked: Asked, request: Request) -> Response:
        with as_http():
            wanted = question(name)
        on = asked.on or datetime.now(UTC).date()
        return service.answered(
            lambda g: desk.ask(g, wanted, asked.parameters, on, _caller(request)),
            asked.format,
            name,
            asked.generation,
        )

    @routes.post("/api/questions/{name}/attrition")
    def ask_attrition(name: str, asked: Asked, request: Request) -> Response:
        with as_http():
            wanted = question(name)
        on = asked.on or datetime.now(UTC).date()
        return service.answered(
            lambda g: desk.attrition(g, wanted, asked.parameters, on, _caller(request)),
            asked.format,
            f"{name}-attrition",
            asked.generation,
        )

    @routes.post("/api/ask")
    def ask_document(asked: Document, request: Request) -> Response:
        with as_http():
            wanted = read_question(asked.document, asked.parameters)
        on = asked.on or datetime.now(UTC).date()
        return service.answered(
            lambda g: desk.ask(g, wanted, asked.parameters, on, _caller(request)),
            asked.format,
            wanted.name,
            asked.generation,
        )

    @routes.post("/api/compare")
    def ask_comparison(asked: Compared, request: Request) -> Response:
        with as_http():
            first, second = (
                read_question(question(c.question).document, c.parameters) for c in (asked.first, asked.second)
            )
        on = asked.on or datetime.now(UTC).date()
        return service.answered(
            lambda g: desk.compare(g, first, second, on, _caller(request)),
            asked.format,
            "comparison",
            asked.generation,
        )

    @routes.post("/api/sql")
    def ask_sql(asked: Sql, request: Request) -> Response:
        return service.answered(
            lambda g: desk.sql(g, asked.sql, _caller(request)), asked.format, "query", asked.generation
        )

    @routes.get("/api/tables")
    def tables() -> list[dict[str, Any]]:
        with as_http():
            current = lake.current()
        return [
            {
                "name": t.name,
                "title": t.title,
                "rows": desk.policy.table_rows(
                    current.tables[t.name].rows if current and t.name in current.tables else 0
                ),
                "columns": _columns(t, desk),
            }
            for t in catalogue().values()
        ]

    @routes.get("/api/generation")
    def generation() -> dict[str, Any]:
        with as_http():
            current, pending = lake.current(), lake.pending()
        if current is None:
            return {"generation": None, "pending": pending}
        return {"generation": current.id, "created": current.created, "pending": pending}

    @routes.get("/api/policy")
    def policy() -> dict[str, Any]:
        return {
            "line_level": desk.policy.line_level,
            "identifiers": desk.policy.identifiers,
            "small_cells": desk.policy.small_cells,
            "notes": desk.policy.notes_on_rows() if desk.policy.line_level else desk.policy.notes_on_counts(),
        }

    @routes.get("/api/charts/{name}")
    def chart(name: str, request: Request) -> Response:
        if name not in CHARTS:
            raise HTTPException(404, f"no such chart; known: {', '.join(CHARTS)}")
        return service.answered(lambda g: desk.chart(g, CHARTS[name], _caller(request)), "json", name)

    add_routes(routes, service.run, desk, _caller)
    routes.include_router(view_router(lake, desk, _caller))
    routes.include_router(feedback_router(service.generation, desk, _caller))
    routes.include_router(scores_router(service.generation, desk, _caller))
    routes.include_router(job_router(service.generation, desk, _caller))
    return routes


class _Service:
    def __init__(self, lake: Lake) -> None:
        self._lake = lake

    def answered(self, run: Callable[[Generation], Answer], kind: str, name: str, wanted: str = "") -> Response:
        """The answer in a format."""
        return self.run(lambda generation: download(run(generation), kind, name), wanted)

    def run(self, run: Callable[[Generation], Response], wanted: str = "") -> Response:
        """What `run` makes of a generation, the newest if none is named. 409 before there is data, 400 for a wrong
        query, 403 for one that is not allowed, 404 for an unknown question, 503 when all places are taken."""
        generation = self.generation(wanted)
        with as_http():
            return run(generation)

    def generation(self, wanted: str = "") -> Generation:
        """The generation of this id or name, the newest if none is named. Raises HTTPException as `run` says."""
        with as_http():
            found = self._lake.generation(wanted) if wanted else self._lake.current()
        if found is None:
            raise HTTPException(409, "there is no data yet: load clinical data or let the bridge deliver studies")
        return found


def _caller(request: Request) -> Caller:
    return Caller(request.client.host if request.client else "unknown", "api")


def _columns(table: TableSchema, desk: Desk) -> list[dict[str, Any]]:
    return [c.__dict__ | {"shown": meaning(table.name, c.name, desk.policy)} for c in table.columns]


def _described(asked: Question) -> dict[str, Any]:
    return {
        "name": asked.name,
        "title": asked.title,
        "description": asked.description,
        "parameters": [p.__dict__ for p in asked.parameters],
        "columns": list(asked.columns or asked.group_by),
    }


def _static(name: str, media_type: str) -> Response:
    content = (files("cohort") / "web" / name).read_bytes()
    return Response(content, media_type=media_type, headers={"Content-Security-Policy": PAGE_POLICY})
