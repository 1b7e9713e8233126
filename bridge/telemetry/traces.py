"""Spans of the loops' steps, sent by OTLP over HTTP. Needs the extra `otel`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Status, StatusCode

from bridge import __version__
from bridge.observer import Step

SEND_WITHIN_S = 5


class Traces:
    """A span around each step. Of a step its name, its source or sink and the type of its error are told, nothing else.

    Spans are sent in the background, in batches; what a collector that is away does not take is dropped. `share`, 0 to
    1, of the traces is kept.
    """

    def __init__(self, endpoint: str, share: float) -> None:
        about = Resource({"service.name": "imaging-bridge", "service.version": __version__})
        self._provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(share)), resource=about)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint, timeout=SEND_WITHIN_S)))
        self._tracer = self._provider.get_tracer("bridge")

    @contextmanager
    def span(self, step: Step, peer: str) -> Iterator[None]:
        """Around one step; steps within it are its children."""
        about = {"bridge.peer": peer} if peer else {}
        with self._tracer.start_as_current_span(
            step.value, attributes=about, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield
            except BaseException as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(Status(StatusCode.ERROR))
                raise

    def close(self) -> None:
        """Sends what is left."""
        self._provider.shutdown()
