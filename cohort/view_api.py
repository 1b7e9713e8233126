"""The operations of SQL on FHIR: `$sql-run` at once, `$sql-export` in the background. Below /cohort/fhir."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Body, Request, Response

from bridge.errors import InvalidQuery, NotAllowed, Unavailable
from cohort.answer import Answer
from cohort.desk import Caller, Desk
from cohort.dialects.duckdb import sql
from cohort.lake import Lake
from cohort.relation import Table
from cohort.render import rendered
from cohort.sandbox import Limits
from cohort.schema import view_tables
from cohort.view_export import Exports, Job
from cohort.view_process import run_apart
from cohort.view_request import ViewRequest, Wanted, read_request

FHIR_JSON = "application/fhir+json; charset=utf-8"
MEDIA = {
    "json": "application/json", "ndjson": "application/x-ndjson", "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
}  # fmt: skip
RUN, EXPORT = ("sql-run", "run"), ("sql-export", "export", "viewdefinition-export")
"""The operations' names and their older ones."""


def view_router(lake: Lake, desk: Desk, caller: Callable[[Request], Caller]) -> APIRouter:
    """The routes. Views of ours are answered from the lake's newest generation as the desk allows it, others from
    resources given."""
    routes = APIRouter(prefix="/fhir", tags=["views"])
    exports = Exports()

    def rows(wanted: Wanted, asked: ViewRequest, who: Caller) -> Answer:
        limits = replace(desk.limits, rows=asked.limit)
        if wanted.definition is None:
            return _stored(lake, desk, wanted, asked, who, limits)
        if not asked.resources:
            raise InvalidQuery("resource: a view of your own needs the resources it is to run over")
        with desk.turn(who):
            return run_apart(wanted.definition, asked.resources, limits).answer

    def run(asked: ViewRequest, who: Caller) -> Response:
        if len(asked.views) != 1:
            raise InvalidQuery("viewReference or viewResource: exactly one view can be run")
        answer = rows(asked.views[0], asked, who)
        headers = {"X-Lake-Generation": answer.generation} if answer.generation else {}
        if answer.truncated:
            headers["X-Truncated"] = "true"
        return Response(written(answer, asked.format, asked.header), media_type=MEDIA[asked.format], headers=headers)

    def export(asked: ViewRequest, who: Caller) -> Response:
        if any(wanted.definition is None for wanted in asked.views):
            desk.policy.require_rows("an export of views")

        def make(wanted: Wanted) -> bytes:
            answer = rows(wanted, asked, who)
            if answer.truncated:
                raise InvalidQuery(f"{wanted.name}: has more than {asked.limit} rows")
            return written(answer, asked.format, asked.header)

        job = exports.start([(w.name, _later(make, w)) for w in asked.views], asked.format)
        return Response(status_code=202, headers={"Content-Location": f"/cohort/fhir/export/{job.id}"})

    for names, answer in ((RUN, run), (EXPORT, export)):
        for name in names:
            routes.add_api_route(f"/ViewDefinition/${name}", _route(answer, caller), methods=["POST"])

    @routes.get("/ViewDefinition/{name}/${operation_name}")
    def run_named(name: str, operation_name: str, request: Request) -> Response:
        if operation_name not in RUN:
            return outcome(404, "not-found", "no such operation")
        reference = {"name": "viewReference", "valueReference": {"reference": f"ViewDefinition/{name}"}}
        body = {"resourceType": "Parameters", "parameter": [reference]}
        return _guarded(lambda: run(read_request(body, request.query_params), caller(request)))

    @routes.get("/export/{id}")
    def status(id: str) -> Response:
        job = exports.find(id)
        return _state(job) if job else outcome(404, "not-found", "no such export (any more)")

    @routes.delete("/export/{id}")
    def cancel(id: str) -> Response:
        return Response(status_code=202) if exports.cancel(id) else outcome(404, "not-found", "no such export")

    @routes.get("/export/{id}/{number}")
    def download(id: str, number: int) -> Response:
        job = exports.find(id)
        if job is None or job.state != "completed" or not 0 <= number < len(job.outputs):
            return outcome(404, "not-found", "no such output")
        return Response(job.outputs[number][1], media_type=MEDIA[job.format])

    return routes


def _route(
    answer: Callable[[ViewRequest, Caller], Response], caller: Callable[[Request], Caller]
) -> Callable[..., Response]:
    def route(request: Request, body: Annotated[Any, Body()]) -> Response:
        return _guarded(lambda: answer(read_request(body, request.query_params), caller(request)))

    return route


def written(answer: Answer, format: str, header: bool) -> bytes:
    """The rows as a list of objects, one object a line, CSV or Parquet."""
    if format == "parquet":
        return rendered(answer, "parquet")
    if format == "csv":
        text = rendered(answer, "csv")
        if header:
            return text
        first = io.StringIO()
        csv.writer(first).writerow([name for name, _ in answer.columns])
        return text[len(first.getvalue().encode()) :]
    names = [name for name, _ in answer.columns]
    objects = [dict(zip(names, row, strict=True)) for row in answer.rows]
    return orjson.dumps(objects) if format == "json" else b"".join(orjson.dumps(o) + b"\n" for o in objects)


def outcome(status: int, code: str, said: str) -> Response:
    """An OperationOutcome."""
    issue = {"severity": "error", "code": code, "diagnostics": said}
    content = orjson.dumps({"resourceType": "OperationOutcome", "issue": [issue]})
    return Response(content, status, media_type=FHIR_JSON)


def _stored(lake: Lake, desk: Desk, wanted: Wanted, asked: ViewRequest, who: Caller, limits: Limits) -> Answer:
    if wanted.name not in view_tables():
        raise InvalidQuery("viewReference: no such view; `GET /cohort/api/tables` lists the tables they make")
    if asked.resources:
        raise InvalidQuery("resource: give the view as viewResource to run it over resources of your own")
    generation = lake.current()
    if generation is None:
        raise Unavailable("there is no data yet")
    return desk.view(generation, wanted.name, sql(Table(wanted.name)), who, limits)


def _later(make: Callable[[Wanted], bytes], wanted: Wanted) -> Callable[[], bytes]:
    return lambda: make(wanted)


def _state(job: Job) -> Response:
    if job.state == "running":
        return Response(status_code=202, headers={"Retry-After": "1", "X-Progress": f"{len(job.outputs)} views done"})
    if job.state == "failed":
        return outcome(400, "processing", job.error)
    parts: list[dict[str, Any]] = [
        {"name": "exportId", "valueString": job.id},
        {"name": "status", "valueCode": "completed"},
        {"name": "_format", "valueCode": job.format},
    ]
    for number, (name, _) in enumerate(job.outputs):
        location = {"name": "location", "valueUri": f"/cohort/fhir/export/{job.id}/{number}"}
        parts.append({"name": "output", "part": [{"name": "name", "valueString": name}, location]})
    return Response(orjson.dumps({"resourceType": "Parameters", "parameter": parts}), media_type=FHIR_JSON)


def _guarded(answer: Callable[[], Response]) -> Response:
    try:
        return answer()
    except NotAllowed as error:
        return outcome(403, "forbidden", str(error))
    except InvalidQuery as error:
        return outcome(400, "invalid", str(error))
    except Unavailable as error:
        return outcome(503, "transient", str(error))
