"""What a running process counts, for Prometheus. Labels are names of the configuration and words of ours."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics

from bridge import __version__
from bridge.observer import Ended, Step

disable_created_metrics()  # type: ignore[no-untyped-call]  # a time for each series, of which nobody has any use

LATENCY_S = (1, 2, 3, 5, 10, 20, 30, 60, 120, 300, 900, 3600, 14_400, 86_400)
STEP_S = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
API = "fhir-api"
LAKE = "lake"
KEPT_ARRIVALS = 100_000
"""Deliveries to the lake remembered until they are published; of more, the oldest are not measured."""

_HINTED = "Studies that may have changed: told by a source (poll), or found by comparing (sweep, verify)"
_TRANSLATED = "Studies read and translated; changed: yes with a new version"
_DELIVERED = "Studies that a sink was made to match; changed: no if it did already"
_FAILED = "Work that failed, and was parked or is tried again"
_ENDED = "Readings of documents that ended their process: by time, memory or a crash"
_VISIBLE = "Seconds from the first hint of a change until it is visible"
_STEPS = "Seconds that single steps of the loops take"
_UNPUBLISHED = "Age of the oldest delivery to the lake that no question sees yet"

Span = Callable[[Step, str], AbstractContextManager[None]]


def no_span(_step: Step, _peer: str) -> AbstractContextManager[None]:
    return nullcontext()


class Metrics:
    """An Observer that counts in `registry`. Every name that may be a label is known from the start.

    `span` is entered around each step (traces); `clock` gives monotonic seconds.
    """

    def __init__(
        self, sources: Sequence[str], sinks: Sequence[str], clock: Callable[[], float], span: Span = no_span
    ) -> None:
        self._clock, self._span, self._lock = clock, span, threading.Lock()
        self._arrivals: deque[tuple[float, float]] = deque(maxlen=KEPT_ARRIVALS)
        self.registry = of = CollectorRegistry()
        ProcessCollector(registry=of)
        Gauge("bridge_info", "The version that runs", ["version"], registry=of).labels(__version__).set(1)
        self._hinted = Counter("bridge_studies_hinted", _HINTED, ["source", "found_by"], registry=of)
        self._translated = Counter("bridge_studies_translated", _TRANSLATED, ["changed"], registry=of)
        self._delivered = Counter("bridge_studies_delivered", _DELIVERED, ["sink", "changed"], registry=of)
        self._failed = Counter("bridge_work_failed", _FAILED, ["queue", "outcome"], registry=of)
        self._ended = Counter("bridge_document_readings_ended", _ENDED, ["why"], registry=of)
        self._visible = Histogram("bridge_study_visible_seconds", _VISIBLE, ["where"], registry=of, buckets=LATENCY_S)
        self._steps = Histogram("bridge_step_seconds", _STEPS, ["step"], registry=of, buckets=STEP_S)
        unpublished = Gauge("bridge_lake_unpublished_seconds", _UNPUBLISHED, registry=of)
        unpublished.set_function(self._unpublished_s)
        self._begin_at_zero(sources, sinks)

    def _begin_at_zero(self, sources: Sequence[str], sinks: Sequence[str]) -> None:
        """So that the first event is a rise, not a series that appears."""
        for source in sources:
            for found_by in (Step.POLL, Step.SWEEP, Step.VERIFY):
                self._hinted.labels(source, found_by)
        for changed in ("yes", "no"):
            self._translated.labels(changed)
            for sink in sinks:
                self._delivered.labels(sink, changed)
        for where in (API, *sinks):
            self._visible.labels(where)
        for step in Step:
            self._steps.labels(step)
        for why in Ended:
            self._ended.labels(why)

    @contextmanager
    def step(self, step: Step, peer: str) -> Iterator[None]:
        started = self._clock()
        with self._span(step, peer):
            try:
                yield
            finally:
                self._steps.labels(step).observe(self._clock() - started)

    def hinted(self, source: str, found_by: Step, studies: int) -> None:
        self._hinted.labels(source, found_by).inc(studies)

    def translated(self, changed: bool, waited_s: float) -> None:
        self._translated.labels(_word(changed)).inc()
        if changed:
            self._visible.labels(API).observe(waited_s)

    def delivered(self, sink: str, changed: bool, waited_s: float) -> None:
        self._delivered.labels(sink, _word(changed)).inc()
        if sink == LAKE:
            with self._lock:
                self._arrivals.append((self._clock(), waited_s))
        elif changed:
            self._visible.labels(sink).observe(waited_s)

    def failed(self, queue: str, parked: bool) -> None:
        self._failed.labels(queue, "parked" if parked else "retried").inc()

    def reading_ended(self, why: Ended) -> None:
        """The process that read a document was ended."""
        self._ended.labels(why).inc()

    def published(self, began_at: float) -> None:
        """What was delivered to the lake before `began_at` (of `clock`) is visible to questions now."""
        now = self._clock()
        with self._lock:
            while self._arrivals and self._arrivals[0][0] <= began_at:
                delivered_at, waited_s = self._arrivals.popleft()
                self._visible.labels(LAKE).observe(waited_s + now - delivered_at)

    def _unpublished_s(self) -> float:
        with self._lock:
            return self._clock() - self._arrivals[0][0] if self._arrivals else 0.0


def _word(changed: bool) -> str:
    return "yes" if changed else "no"
