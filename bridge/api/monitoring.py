"""What monitoring asks: /healthz, /readyz and /metrics. They answer also when the state's database hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from bridge.telemetry.health import STATE, Verdict

EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"
THREADS = 2
"""Of their own, for each of the two that look at peers: requests that wait for the database take all the others."""


def router(alive: Callable[[], Verdict], ready: Callable[[], Verdict], metrics: Callable[[], bytes]) -> APIRouter:
    """200 when all is well, 503 otherwise; the body says what is not."""
    routes = APIRouter(tags=["monitoring"])
    for_readiness = ThreadPoolExecutor(THREADS, thread_name_prefix="readiness")
    for_metrics = ThreadPoolExecutor(THREADS, thread_name_prefix="metrics")

    async def readiness() -> Verdict:
        return await asyncio.get_running_loop().run_in_executor(for_readiness, ready)

    @routes.get("/healthz")
    async def get_health() -> JSONResponse:
        return _told(alive())

    @routes.get("/readyz")
    async def get_readiness() -> JSONResponse:
        return _told(await readiness())

    @routes.get("/readyz/state")
    async def get_readiness_of_the_state() -> JSONResponse:
        return _told((await readiness()).only(STATE))

    @routes.get("/metrics")
    async def get_metrics() -> Response:
        text = await asyncio.get_running_loop().run_in_executor(for_metrics, metrics)
        return Response(text, media_type=EXPOSITION)

    return routes


def _told(verdict: Verdict) -> JSONResponse:
    body = {"well": verdict.well, "checks": {name: problem or "ok" for name, problem in verdict.problems.items()}}
    return JSONResponse(body, 200 if verdict.well else 503)
