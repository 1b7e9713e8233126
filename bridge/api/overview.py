"""The operations page, under /operations/, and what it shows: sources, sinks, queues, throughput over time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, HTTPException, Query, Response

from bridge.ports import POLL_QUEUE, Backlog, Turn, WorkItem, file_queue, sink_queue

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_STATIC = {"page.js": "text/javascript; charset=utf-8", "page.css": "text/css; charset=utf-8"}

LOOKED_THROUGH = 200
"""Rows of a queue among which an error is looked for."""

BARS = 36
"""Intervals that a time is divided into."""


class OverviewState(Protocol):
    """What of the state is shown."""

    def backlogs(self) -> list[Backlog]: ...

    def turns(self, queue: str) -> dict[str, Turn]: ...

    def deliveries(self) -> dict[str, int]: ...

    def items(self, *, parked: bool | None = None, queue: str | None = None, limit: int = 1000) -> list[WorkItem]: ...

    def changed_studies(self, since: float, interval_s: int) -> dict[int, int]: ...


def overview(
    state: OverviewState, sources: Mapping[str, str], sinks: Sequence[str], failing: frozenset[str], now: float
) -> dict[str, Any]:
    """How each source (name → kind), each sink and each queue is. Times in seconds.

    Result  {"sources": [{name, kind, lag_s, parked, error}], "sinks": [{name, lag_s, waiting, parked, studies,
            error}], "queues": [{queue, waiting, failing, parked, oldest_s}]}; `studies` None where none are counted
    """
    queues, polls, delivered = {b.queue: b for b in state.backlogs()}, state.turns(POLL_QUEUE), state.deliveries()

    def of(queue: str) -> Backlog:
        return queues.get(queue, Backlog(queue, 0, 0, 0, None))

    def source(name: str) -> dict[str, Any]:
        turn = polls.get(name, Turn(now, 0, ""))
        about = {"name": name, "kind": sources[name], "parked": of(file_queue(name)).parked}
        return about | {
            "lag_s": round(max(0.0, now - turn.due_since), 1),
            "error": turn.error if turn.attempts else "",
        }

    def problem(waits: Backlog, unreachable: bool) -> str:
        failed = state.items(queue=waits.queue, parked=False, limit=LOOKED_THROUGH) if waits.failing else []
        told = next((item.error for item in failed if item.error), "")
        return told or ("it could not be reached when it was tried last" if unreachable else "")

    def sink(name: str) -> dict[str, Any]:
        waits = of(sink_queue(name))
        about = {"name": name, "waiting": waits.waiting, "parked": waits.parked, "lag_s": _age_s(waits, now)}
        return about | {"studies": delivered.get(name), "error": problem(waits, name in failing)}

    counted = [
        {"queue": b.queue, "waiting": b.waiting, "failing": b.failing, "parked": b.parked, "oldest_s": _age_s(b, now)}
        for b in queues.values()
    ]
    return {"sources": [*map(source, sources)], "sinks": [*map(sink, sinks)], "queues": counted}


def throughput(state: OverviewState, hours: int, now: float) -> dict[str, Any]:
    """Studies by the time of their last change: all intervals of the last `hours`, oldest first.

    Result  {"interval_s", "intervals": [{start, studies}]}; `start` in seconds since the epoch
    """
    interval_s = hours * 3600 // BARS
    last = int(now // interval_s) * interval_s
    starts = [last - n * interval_s for n in reversed(range(BARS))]
    counted = state.changed_studies(starts[0], interval_s)
    return {"interval_s": interval_s, "intervals": [{"start": s, "studies": counted.get(s, 0)} for s in starts]}


def router(
    state: OverviewState,
    sources: Mapping[str, str],
    sinks: Sequence[str],
    failing: Callable[[], frozenset[str]],
    clock: Callable[[], float],
) -> APIRouter:
    """The page and its routes under /operations."""
    routes = APIRouter(prefix="/operations", tags=["operations"])

    @routes.get("/", include_in_schema=False)
    def page() -> Response:
        return _static("index.html", "text/html; charset=utf-8")

    @routes.get("/static/{name}", include_in_schema=False)
    def static(name: str) -> Response:
        if name not in _STATIC:
            raise HTTPException(404, "no such file")
        return _static(name, _STATIC[name])

    @routes.get("/overview")
    def get_overview() -> dict[str, Any]:
        return overview(state, sources, sinks, failing(), clock())

    @routes.get("/throughput")
    def get_throughput(hours: Annotated[int, Query(ge=1, le=720)] = 3) -> dict[str, Any]:
        return throughput(state, hours, clock())

    return routes


def _age_s(backlog: Backlog, now: float) -> float:
    return round(max(0.0, now - backlog.oldest), 1) if backlog.oldest is not None else 0.0


def _static(name: str, media_type: str) -> Response:
    content = (files("bridge") / "api" / "web" / name).read_bytes()
    return Response(content, media_type=media_type, headers={"Content-Security-Policy": PAGE_POLICY})
