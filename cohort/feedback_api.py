"""The routes that bring outcomes back to whoever made the predictions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from cohort.catalogue import outcome, outcomes
from cohort.desk import Caller, Desk
from cohort.feedback import Feedback, Wanted
from cohort.generation import Generation
from cohort.outcome_fhir import MEDIA_TYPE, bundle
from cohort.responses import as_http, download
from cohort.similar import MOST_YEARS, Alike

MOST_ROWS = 100_000
CURSOR = "X-Outcomes-Cursor"
Formats = Literal["json", "csv", "ndjson", "parquet", "arrow", "fhir"]
Text = Annotated[str, Query(max_length=200)]


class AskedSimilar(BaseModel):
    """A patient or a study, as people see them, and the features that others shall share. In the body: addresses are
    written to logs."""

    model_config = ConfigDict(extra="forbid")
    whom: str = Field(min_length=1, max_length=200)
    alike: tuple[Literal["sex", "age", "condition", "modality", "finding"], ...] = ("sex", "age", "condition")
    years: int = Field(default=5, ge=0, le=MOST_YEARS)
    outcome: str = Field(default="", max_length=60)
    format: Literal["json", "csv", "ndjson", "parquet", "arrow"] = "json"


def feedback_router(generation: Callable[[], Generation], desk: Desk, caller: Callable[[Request], Caller]) -> APIRouter:
    """The routes, over the newest generation; `caller` says who asks."""
    routes = APIRouter()

    @routes.get("/api/feedback")
    def definitions() -> list[dict[str, Any]]:
        return [
            {
                "name": d.name,
                "title": d.title,
                "description": d.description,
                "parameters": [p.__dict__ for p in d.parameters],
                "within_days": d.within_days,
                "threshold": d.threshold,
            }
            for d in outcomes().values()
        ]

    @routes.get("/api/feedback/{name}")
    def pull(
        name: str,
        request: Request,
        model: Text = "",
        version: Annotated[str | None, Query(max_length=200)] = None,
        cursor: Annotated[str | None, Query(max_length=60)] = None,
        on: Annotated[date | None, Query(alias="date")] = None,
        limit: Annotated[int, Query(ge=1, le=MOST_ROWS)] = 10_000,
        format: Formats = "json",
    ) -> Response:
        """What became of the predictions of a model, by the definition `name`: all rows, or what changed since the
        cursor. The next cursor is in the header X-Outcomes-Cursor; with Link: rel="next" there are more rows now."""
        found_in = generation()
        with as_http():
            wanted = Wanted(outcome(name), {}, model, version, on, limit)
            found = desk.outcomes(found_in, wanted, caller(request), cursor)
            return _response(found, name, format, request)

    @routes.post("/api/similar")
    def ask_similar(asked: AskedSimilar, request: Request) -> Response:
        """How many patients are like the one named, in which treatments and outcomes; coarse counts."""
        found_in = generation()
        with as_http():
            by = outcome(asked.outcome) if asked.outcome else None
            alike = Alike(asked.whom, asked.alike, asked.years, by)
            return download(desk.similar(found_in, alike, caller(request)), asked.format, "similar")

    return routes


def _response(found: Feedback, name: str, kind: str, request: Request) -> Response:
    if kind == "fhir":
        content = bundle(found.answer, name)
        answer = Response(content, media_type=MEDIA_TYPE, headers={"X-Lake-Generation": found.answer.generation})
    else:
        answer = download(found.answer, kind, name)
    if found.cursor:
        answer.headers[CURSOR] = found.cursor
        if found.answer.truncated:
            answer.headers["Link"] = f'<{request.url.include_query_params(cursor=found.cursor)}>; rel="next"'
    return answer
