"""What the state says at the moment it is asked, for Prometheus: depth, parked, lag."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import wait
from dataclasses import dataclass, field
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily

from bridge.ports import (
    BACKFILL_QUEUE,
    INSTANCE_QUEUE,
    POLL_QUEUE,
    RECHECK_QUEUE,
    RETRANSLATE_QUEUE,
    STUDY_QUEUE,
    SWEEP_QUEUE,
    VERIFY_QUEUE,
    Backlog,
    Turn,
    file_queue,
    model_queue,
    send_queue,
    sink_queue,
)
from bridge.telemetry.bounded import Bounded

ANSWER_WITHIN_S = 5.0
STANDINGS = ("waiting", "parked", "different", "marked")
OTHER = "other"
RECONCILE = "reconcile"
_QUEUES = (
    STUDY_QUEUE, POLL_QUEUE, SWEEP_QUEUE, VERIFY_QUEUE, RECHECK_QUEUE, RETRANSLATE_QUEUE, INSTANCE_QUEUE,
    BACKFILL_QUEUE, "export", "subscription", RECONCILE,
)  # fmt: skip
"""Kept apart in the metrics; those of sources, sinks, models and archives are added, everything else is `other`."""


class ObservedState(Protocol):
    """What of the state is counted."""

    def backlogs(self) -> list[Backlog]: ...

    def turns(self, queue: str) -> dict[str, Turn]: ...

    def deliveries(self) -> dict[str, int]: ...

    def reconciliation(self) -> dict[str, Any] | None: ...


@dataclass(frozen=True)
class Peers:
    """The names that may be labels."""

    sources: Collection[str]
    sinks: Collection[str]
    models: Collection[str] = ()
    archives: Collection[str] = ()
    queues: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        named = {*map(file_queue, self.sources), *map(sink_queue, self.sinks)}
        named |= {*map(model_queue, self.models), *map(send_queue, self.archives)}
        object.__setattr__(self, "queues", frozenset({*_QUEUES, *named}))

    def queue(self, name: str) -> str:
        """The label of a queue: its name where that is known, else `other`."""
        return name if name in self.queues else OTHER


@dataclass(frozen=True)
class Seen:
    """One look at the state."""

    backlogs: list[Backlog]
    polls: dict[str, Turn]
    delivered: dict[str, int]
    reconciles: dict[str, Turn]
    reconciliation: dict[str, Any] | None


class StateMetrics:
    """A collector of Prometheus. A state that does not answer in time leaves `bridge_state_up` 0 and nothing else."""

    def __init__(self, state: ObservedState, peers: Peers, clock: Callable[[], float]) -> None:
        self._peers, self._clock = peers, clock
        self._look = Bounded(
            lambda: Seen(
                state.backlogs(),
                state.turns(POLL_QUEUE),
                state.deliveries(),
                state.turns(RECONCILE),
                state.reconciliation(),
            )
        )

    def collect(self) -> Iterator[GaugeMetricFamily]:
        future = self._look.begin()
        wait([future], ANSWER_WITHIN_S)
        up = future.done() and future.exception() is None
        yield GaugeMetricFamily("bridge_state_up", "Whether the state's database answers", value=float(up))
        if up:
            yield from self._of(future.result())

    def _of(self, seen: Seen) -> Iterator[GaugeMetricFamily]:
        now, by_queue = self._clock(), self._by_queue(seen.backlogs)
        for name, about, values in (
            ("waiting", "Rows of the work table that wait", {q: b.waiting for q, b in by_queue.items()}),
            ("failing", "Waiting rows that failed before", {q: b.failing for q, b in by_queue.items()}),
            ("parked", "Rows that wait for a person", {q: b.parked for q, b in by_queue.items()}),
            ("oldest_seconds", "Age of the oldest row that waits", {q: _age(b, now) for q, b in by_queue.items()}),
        ):
            yield _gauge(f"bridge_work_{name}", about, "queue", values)
        yield _gauge(
            "bridge_source_lag_seconds", "Seconds since a look at its changes was due that has not succeeded yet",
            "source", {s: max(0.0, now - t.due_since) for s, t in seen.polls.items() if s in self._peers.sources},
        )  # fmt: skip
        yield _gauge(
            "bridge_source_failing", "Whether its last look failed", "source",
            {s: bool(t.attempts) for s, t in seen.polls.items() if s in self._peers.sources},
        )  # fmt: skip
        sinks = {s: by_queue.get(sink_queue(s)) for s in self._peers.sinks}
        yield _gauge(
            "bridge_sink_lag_seconds", "Age of the oldest change that it does not have", "sink",
            {s: _age(b, now) if b else 0.0 for s, b in sinks.items()},
        )  # fmt: skip
        yield _gauge(
            "bridge_sink_studies", "Studies it has, by its receipts", "sink",
            {s: n for s, n in seen.delivered.items() if s in self._peers.sinks},
        )  # fmt: skip

        yield from _reconciliation(seen, now)

    def _by_queue(self, backlogs: list[Backlog]) -> dict[str, Backlog]:
        found = {queue: Backlog(queue, 0, 0, 0, None) for queue in self._peers.queues}
        for one in backlogs:
            label = self._peers.queue(one.queue)
            found[label] = found.get(label, Backlog(label, 0, 0, 0, None)).with_(one)
        return found


def _reconciliation(seen: Seen, now: float) -> Iterator[GaugeMetricFamily]:
    lag_s = max((now - turn.due_since for turn in seen.reconciles.values()), default=0.0)
    about = "Seconds since a reconciliation is due that has not succeeded"
    yield GaugeMetricFamily("bridge_reconcile_lag_seconds", about, value=max(0.0, lag_s))
    newest = seen.reconciliation or {"finished_at": 0.0, "agrees": False, "comparisons": ()}
    about = "When all was compared last; 0: never"
    yield GaugeMetricFamily("bridge_reconciled_timestamp_seconds", about, value=newest["finished_at"])
    yield GaugeMetricFamily("bridge_reconciled_agrees", "Whether all agreed then", value=float(newest["agrees"]))
    about = "Differences found by the newest reconciliation; unfinished: 1 if two parties could not be compared"
    found = GaugeMetricFamily("bridge_reconcile_differences", about, labels=["left", "right", "standing"])
    for one in newest["comparisons"]:
        for standing in STANDINGS:
            found.add_metric([one["left"], one["right"], standing], float(one[standing]))
        found.add_metric([one["left"], one["right"], "unfinished"], float("error" in one))
    yield found


def exposition(registry: CollectorRegistry) -> bytes:
    """The text that Prometheus reads (text/plain; version=0.0.4)."""
    return generate_latest(registry)


def _age(backlog: Backlog, now: float) -> float:
    return max(0.0, now - backlog.oldest) if backlog.oldest is not None else 0.0


def _gauge(name: str, about: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, about, labels=[label])
    for key in sorted(values):
        family.add_metric([key], float(values[key]))
    return family
