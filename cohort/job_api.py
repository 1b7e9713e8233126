"""The routes of questions that take long: asked in the background, watched, cancelled, their answers taken in pages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

from fastapi import APIRouter, HTTPException, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cohort.answer import Answer
from cohort.asked import Format
from cohort.catalogue import question, read_question
from cohort.desk import Caller, Desk
from cohort.generation import Generation
from cohort.jobs import ENDED, Job, Jobs
from cohort.responses import as_http, download
from cohort.sandbox import Limits
from cohort.watch import Watch

LONG = Limits(rows=1_000_000, cpu_s=1200, deadline_s=600.0, memory_mb=2048, answer_bytes=268_435_456)
MOST_ROWS = 100_000
"""Rows of one page."""


class Long(BaseModel):
    """One of a ready question, a question document and a SELECT; the rest as where the answer is waited for."""

    model_config = ConfigDict(extra="forbid")
    question: str = Field(default="", max_length=100)
    document: dict[str, Any] | None = None
    sql: str = Field(default="", max_length=100_000)
    parameters: dict[str, Any] = Field(default_factory=dict, max_length=50)
    on: date | None = Field(default=None, alias="date")
    generation: str = Field(default="", max_length=64, description="Ask this one, by id or name; empty: the newest")

    @model_validator(mode="after")
    def _one(self) -> Long:
        if sum((bool(self.question), self.document is not None, bool(self.sql))) != 1:
            raise ValueError("give one of question, document, sql")
        return self

    def asking(self, desk: Desk, generation: Generation, caller: Caller) -> tuple[str, Callable[[Watch], Answer]]:
        """A name for the answer, and what asks. Raises InvalidQuery."""
        if self.sql:
            return "query", lambda watch: desk.sql(generation, self.sql, caller, replace(LONG, watch=watch))
        asked = question(self.question) if self.question else read_question(self.document, self.parameters)
        day = self.on or datetime.now(UTC).date()
        return asked.name, lambda watch: desk.ask(
            generation, asked, self.parameters, day, caller, replace(LONG, watch=watch)
        )


def job_router(
    generation: Callable[[str], Generation], desk: Desk, caller: Callable[[Request], Caller], jobs: Jobs | None = None
) -> APIRouter:
    """The routes under api/jobs."""
    routes, known = APIRouter(), jobs or Jobs()

    def found(id_: str, request: Request) -> Job:
        job = known.find(id_)
        if job is None or job.who != caller(request).who:
            raise HTTPException(404, "no such job, or it ended long ago: ask again")
        return job

    @routes.post("/api/jobs", status_code=202)
    def begin(asked: Long, request: Request, response: Response) -> dict[str, Any]:
        of, who = generation(asked.generation), caller(request)
        with as_http():
            name, run = asked.asking(desk, of, who)
            job = known.start(who.who, name, run)
        response.headers["Location"] = _place(request, job)
        return _told(job, known)

    @routes.get("/api/jobs/{id_}")
    def state(id_: str, request: Request) -> dict[str, Any]:
        return _told(found(id_, request), known)

    @routes.delete("/api/jobs/{id_}", status_code=204)
    def end(id_: str, request: Request) -> None:
        known.end(found(id_, request).id)

    @routes.get("/api/jobs/{id_}/answer")
    def answer(
        id_: str,
        request: Request,
        format: Format = "json",
        offset: int = Query(default=0, ge=0, le=LONG.rows),
        limit: int = Query(default=1000, ge=1, le=MOST_ROWS),
    ) -> Response:
        job = found(id_, request)
        if job.answer is None:
            raise HTTPException(400 if job.state in ENDED else 409, job.error or f"the job is {job.state}")
        page = replace(job.answer, rows=job.answer.rows[offset : offset + limit])
        with as_http():
            made = download(page, format, job.name)
        made.headers["X-Total-Count"] = str(len(job.answer.rows))
        if offset + limit < len(job.answer.rows):
            following = f"{_place(request, job)}/answer?format={format}&offset={offset + limit}&limit={limit}"
            made.headers["Link"] = f'<{following}>; rel="next"'
        return made

    return routes


def _place(request: Request, job: Job) -> str:
    return f"{request.url.path.partition('/api/jobs')[0]}/api/jobs/{job.id}"


def _told(job: Job, jobs: Jobs) -> dict[str, Any]:
    told: dict[str, Any] = {"id": job.id, "name": job.name, "state": job.state, "seconds": jobs.seconds(job)}
    if job.state == "running":
        told["progress"] = job.watch.progress
    if job.answer is not None:
        told |= {"rows": len(job.answer.rows), "truncated": job.answer.truncated, "generation": job.answer.generation}
        told["notes"] = list(job.answer.notes)
    return told | ({"error": job.error} if job.error else {})
