"""The route for score cards of a model."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import TYPE_CHECKING, Annotated, Literal

import orjson
from fastapi import APIRouter, Query, Request, Response

from bridge.errors import InvalidQuery
from cohort.catalogue import outcome
from cohort.desk import Caller, Desk
from cohort.feedback import Wanted
from cohort.generation import Generation
from cohort.plots import MEDIA_TYPES as PICTURES
from cohort.responses import as_http, download
from cohort.scores.asked import SLICES, Asked

if TYPE_CHECKING:
    from cohort.scores.report import Report

Formats = Literal["json", "csv", "ndjson", "parquet", "arrow", "svg", "png"]
Text = Annotated[str, Query(max_length=200)]

_PICTURE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"


def scores_router(generation: Callable[[], Generation], desk: Desk, caller: Callable[[Request], Caller]) -> APIRouter:
    """The route, over the newest generation; `caller` says who asks."""
    routes = APIRouter()

    @routes.get("/api/feedback/{name}/scores")
    def score(
        name: str,
        request: Request,
        model: Text = "",
        version: Text = "",
        slice: Annotated[list[str], Query(max_length=len(SLICES))] = list(SLICES),  # noqa: B006
        drift: bool = False,
        since: date | None = None,
        versions: bool = False,
        on: Annotated[date | None, Query(alias="date")] = None,
        format: Formats = "json",
    ) -> Response:
        """How well the predictions agree with what became of the patients, by the definition `name`: the report as
        JSON, a line for each number, or the picture of the first card."""
        found_in = generation()
        with as_http():
            wanted = Wanted(outcome(name), {}, model, version or None, on)
            asked = Asked(model, version, tuple(slice), drift, since, versions)
            return _response(desk.scores(found_in, wanted, asked, caller(request)), name, format, found_in.id)

    return routes


def _response(found: Report, name: str, kind: Formats, generation: str) -> Response:
    from cohort.scores.flat import flat
    from cohort.scores.plots import card_plot

    headers = {"X-Lake-Generation": generation}
    if kind == "json":
        return Response(orjson.dumps(found), media_type="application/json", headers=headers)
    if kind != "svg" and kind != "png":
        return download(flat(found, generation), kind, f"{name}-scores")
    if not found.cards:
        raise InvalidQuery("there is no card to draw: it would be of too few patients")
    headers["Content-Security-Policy"] = _PICTURE_POLICY
    return Response(card_plot(found.cards[0], kind), media_type=PICTURES[kind], headers=headers)
