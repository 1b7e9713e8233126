"""Spans, as a collector gets them: the steps, whom they were done with, and nothing of what they were about."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bridge import config
from bridge.errors import ConfigError
from bridge.monitoring import metrics_of
from bridge.observer import Step
from bridge.state import State
from bridge.telemetry.metrics import Metrics
from bridge.telemetry.traces import Traces
from tests.builders import STUDY, headers
from tests.unit.test_sync import Rig
from tests.web_server import WebServer, web_server

CANARY = "CANARY"


@pytest.fixture
def collector() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


def spans(collector: WebServer) -> list[Any]:
    requests = [ExportTraceServiceRequest.FromString(asked.content) for asked in collector.asked]
    return [s for r in requests for one in r.resource_spans for scope in one.scope_spans for s in scope.spans]


def attributes(span: Any) -> dict[str, str]:
    return {a.key: a.value.string_value for a in span.attributes}


def test_a_study_is_one_trace_and_its_steps_say_with_whom_they_were_done(collector: WebServer, tmp_path: Path) -> None:
    state, traces = State(f"sqlite:///{tmp_path / 's.sqlite'}"), Traces(f"{collector.url}/v1/traces", 1.0)
    rig = Rig(state)
    rig.run()
    rig.pipeline.observer = Metrics(["a", "b"], ["ehr", "lake"], lambda: 0.0, traces.span)
    rig.a.put(headers(study=STUDY, PatientName=CANARY, PatientID=CANARY))
    rig.run()
    traces.close()
    state.close()
    found = spans(collector)
    (study,) = [s for s in found if s.name == "study"]
    children = {s.name: attributes(s) for s in found if s.parent_span_id == study.span_id}
    assert children == {"read": {"bridge.peer": "a"}, "translate": {}}
    assert {attributes(s)["bridge.peer"] for s in found if s.name == "deliver"} == {"ehr", "lake"}
    assert {attributes(s)["bridge.peer"] for s in found if s.name == "poll"} == {"a", "b"}
    sent = b"".join(asked.content for asked in collector.asked)
    assert CANARY.encode() not in sent
    assert STUDY.encode() not in sent
    assert b"imaging-bridge" in sent


def test_of_an_error_the_type_alone_is_told(collector: WebServer) -> None:
    traces = Traces(f"{collector.url}/v1/traces", 1.0)
    with pytest.raises(ValueError, match=CANARY), traces.span(Step.READ, "pacs"):
        raise ValueError(CANARY)
    traces.close()
    (span,) = spans(collector)
    assert attributes(span) == {"bridge.peer": "pacs", "error.type": "ValueError"}
    assert span.status.code == 2
    assert (span.status.message, list(span.events)) == ("", [])


def test_a_part_of_the_traces_is_kept_whole(collector: WebServer) -> None:
    traces = Traces(f"{collector.url}/v1/traces", 0.25)
    for _ in range(400):
        with traces.span(Step.STUDY, ""), traces.span(Step.READ, "pacs"):
            pass
    traces.close()
    found = spans(collector)
    kept = {s.trace_id for s in found}
    assert 40 < len(kept) < 180
    assert len(found) == 2 * len(kept)


def test_without_an_address_there_are_none_and_without_the_extra_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Any] = []
    metrics_of(config.embedded(tmp_path), closed)
    assert closed == []
    wanted = config.parse({"traces": {"endpoint": "http://127.0.0.1:4318/v1/traces"}})
    really = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("bridge.telemetry.traces"):
            raise ImportError
        return really(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install 'imaging-bridge\[otel\]'"):
        metrics_of(wanted, closed)
