"""Builds what a running bridge is watched by, from its settings and parts. Part of the composition root."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from functools import partial
from urllib.parse import urlsplit

from fastapi import APIRouter
from prometheus_client import Gauge

from bridge.ai_peers import CStoreArchive
from bridge.api import monitoring, overview
from bridge.config import DimseSource, FolderSource, ReceiverSource, Settings
from bridge.errors import ConfigError
from bridge.ports import POLL_QUEUE
from bridge.state import State
from bridge.sync import Pipeline
from bridge.telemetry.health import STATE, Check, Readiness, Verdict, connects, first_of, is_there
from bridge.telemetry.metrics import LAKE, Metrics, Span, no_span
from bridge.telemetry.state_metrics import Peers, StateMetrics, exposition

_PORTS = {"http": 80, "https": 443}


def metrics_of(settings: Settings, closed: list[Callable[[], None]]) -> Metrics:
    """Counters for the sources and sinks of these settings, with traces where they are wanted."""
    sources, sinks = [s.name for s in settings.sources], [*(s.name for s in settings.sinks), LAKE]
    return Metrics(sources, sinks, time.monotonic, _span(settings, closed))


def _span(settings: Settings, closed: list[Callable[[], None]]) -> Span:
    if not settings.traces.endpoint:
        return no_span
    try:
        from bridge.telemetry.traces import Traces
    except ImportError:
        raise ConfigError("traces.endpoint: needs OpenTelemetry: pip install 'imaging-bridge[otel]'") from None
    traces = Traces(settings.traces.endpoint, settings.traces.share)
    closed.append(traces.close)
    return traces.span


def monitoring_router(
    settings: Settings,
    state: State,
    pipeline: Pipeline,
    metrics: Metrics,
    dead: Callable[[], tuple[str, ...]],
    lake: Check,
) -> APIRouter:
    """/healthz, /readyz and /metrics.

    `dead` names the loops that ended, `lake` tells what is wrong with the lake.
    """
    models, archives = [m.name for m in settings.models], [a.name for a in settings.archives]
    peers = Peers(list(pipeline.sources), list(pipeline.sinks), models, archives)
    metrics.registry.register(StateMetrics(state, peers, time.time))
    free = Gauge("bridge_data_free_bytes", "Free space where data_dir is", registry=metrics.registry)
    free.set_function(lambda: shutil.disk_usage(settings.data_dir).free)
    failing = Gauge(
        "bridge_sink_failing", "Whether it could not be reached when it was tried last", ["sink"],
        registry=metrics.registry,
    )  # fmt: skip
    for name in pipeline.sinks:
        failing.labels(name).set_function(partial(_is_failing, pipeline, name))

    def alive() -> Verdict:
        ended = ", ".join(dead())
        return Verdict({"loops": f"ended: {ended}" if ended else ""})

    readiness = Readiness(_checks(settings, state, pipeline) | {f"sink {LAKE}": lake})
    return monitoring.router(alive, readiness.verdict, lambda: exposition(metrics.registry))


def overview_router(settings: Settings, state: State, pipeline: Pipeline) -> APIRouter:
    """The operations page."""
    kinds = {source.name: source.kind for source in settings.sources}
    return overview.router(state, kinds, list(pipeline.sinks), lambda: pipeline.failing_sinks, time.time)


def _checks(settings: Settings, state: State, pipeline: Pipeline) -> dict[str, Check]:
    checks: dict[str, Check] = {STATE: state.problem}
    for source in settings.sources:
        last_look = _last_look(state, source.name)
        if isinstance(source, FolderSource):
            checks[f"source {source.name}"] = first_of(is_there(source.path), last_look)
        elif isinstance(source, ReceiverSource):
            checks[f"source {source.name}"] = last_look
        else:
            reach = connects(source.host, source.port) if isinstance(source, DimseSource) else _http(source.url)
            checks[f"source {source.name}"] = first_of(reach, last_look)
    for sink in settings.sinks:
        checks[f"sink {sink.name}"] = first_of(_http(sink.url), _last_delivery(pipeline, sink.name))
    for archive in settings.archives:
        reach = connects(archive.host, archive.port) if isinstance(archive, CStoreArchive) else _http(archive.url)
        checks[f"archive {archive.name}"] = reach
    for model in settings.models:
        checks[f"model {model.name}"] = _http(model.url)
    return checks


def _http(url: str) -> Check:
    parts = urlsplit(url)
    return connects(parts.hostname or "", parts.port or _PORTS[parts.scheme])


def _last_look(state: State, source: str) -> Check:
    def check() -> str:
        turn = state.turns(POLL_QUEUE).get(source)
        return turn.error if turn is not None and turn.attempts else ""

    return check


def _is_failing(pipeline: Pipeline, sink: str) -> bool:
    return sink in pipeline.failing_sinks


def _last_delivery(pipeline: Pipeline, sink: str) -> Check:
    return lambda: "it could not be reached when it was tried last" if _is_failing(pipeline, sink) else ""
