"""What Prometheus reads: counted by the loops, and looked up in the state when it asks."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from bridge.errors import RefusedByServer, SinkUnavailable, StateUnavailable
from bridge.observer import Ended, Step
from bridge.ports import STUDY_QUEUE, Backlog, Turn, sink_queue
from bridge.reconcile.report import Comparison, Difference, Level, Report, Standing
from bridge.reconcile.scheduled import RECONCILE_QUEUE
from bridge.state import State
from bridge.telemetry import state_metrics
from bridge.telemetry.metrics import Metrics
from bridge.telemetry.state_metrics import Peers, StateMetrics, exposition
from tests.builders import STUDY, headers
from tests.unit.test_sync import Rig

Samples = dict[tuple[str, str], float]


def read(registry: CollectorRegistry) -> Samples:
    """(name, values of the labels in order of their names, joined by a space) → value."""
    text = exposition(registry).decode("utf-8")
    families = text_string_to_metric_families(text)
    return {
        (s.name, " ".join(value for _, value in sorted(s.labels.items()))): s.value for f in families for s in f.samples
    }


class Watched:
    def __init__(self, state: State) -> None:
        self.rig = Rig(state)
        self.clock = 0.0
        self.metrics = Metrics(["a", "b"], ["ehr", "lake"], lambda: self.clock)
        self.rig.pipeline.observer = self.metrics
        self.metrics.registry.register(StateMetrics(state, Peers(["a", "b"], ["ehr", "lake"]), lambda: self.rig.now))

    def samples(self) -> Samples:
        return read(self.metrics.registry)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    made = State(f"sqlite:///{tmp_path / 's.sqlite'}")
    yield made
    made.close()


@pytest.fixture
def watched(state: State) -> Watched:
    return Watched(state)


def test_a_study_is_counted_on_its_way_and_its_latency_begins_with_the_first_hint(watched: Watched) -> None:
    watched.rig.run()
    watched.rig.a.put(headers(instance=1))
    watched.rig.run()
    found = watched.samples()
    assert found["bridge_studies_hinted_total", "poll a"] == 1
    assert found["bridge_studies_translated_total", "yes"] == 1
    assert found["bridge_studies_delivered_total", "yes ehr"] == 1
    assert found["bridge_study_visible_seconds_count", "fhir-api"] == 1
    assert found["bridge_study_visible_seconds_sum", "fhir-api"] == 3  # the quiet period
    assert found["bridge_study_visible_seconds_sum", "ehr"] == 3  # since the hint, not since the study was translated
    assert found["bridge_sink_studies", "ehr"] == 1
    assert found["bridge_step_seconds_count", "read"] == 1


def test_what_waits_for_a_sink_is_as_old_as_the_change(watched: Watched) -> None:
    watched.rig.ehr.down = True
    watched.rig.a.put(headers(instance=1))
    hinted = watched.rig.now + 1
    watched.rig.run(30)
    assert watched.samples()["bridge_sink_lag_seconds", "ehr"] == watched.rig.now - hinted


def test_the_lake_counts_when_it_is_published(watched: Watched) -> None:
    watched.rig.run()
    watched.rig.a.put(headers(instance=1))
    watched.rig.run()
    assert watched.samples()["bridge_study_visible_seconds_count", "lake"] == 0
    watched.clock = 2.0
    assert watched.samples()["bridge_lake_unpublished_seconds", ""] == 2.0
    watched.metrics.published(began_at=-1.0)
    assert watched.samples()["bridge_study_visible_seconds_count", "lake"] == 0
    watched.metrics.published(began_at=1.0)
    found = watched.samples()
    assert found["bridge_study_visible_seconds_count", "lake"] == 1
    assert found["bridge_study_visible_seconds_sum", "lake"] == 5.0
    assert found["bridge_lake_unpublished_seconds", ""] == 0


def test_what_a_sink_had_already_is_no_latency(watched: Watched) -> None:
    watched.rig.a.put(headers(instance=1))
    watched.rig.run()
    watched.rig.state.mark(sink_queue("ehr"), [STUDY], watched.rig.now)
    watched.rig.run()
    found = watched.samples()
    assert found["bridge_studies_delivered_total", "no ehr"] == 1
    assert found["bridge_study_visible_seconds_count", "ehr"] == 1


def test_a_source_that_fails_lags_more_and_more_and_is_well_again(watched: Watched) -> None:
    watched.rig.run()
    assert watched.samples()["bridge_source_lag_seconds", "a"] == 0
    watched.rig.a.down = True
    watched.rig.run(60)
    found = watched.samples()
    assert found["bridge_source_lag_seconds", "a"] > 50
    assert (found["bridge_source_failing", "a"], found["bridge_source_failing", "b"]) == (1, 0)
    assert found["bridge_work_failed_total", "retried poll"] > 2
    watched.rig.a.down = False
    watched.rig.run(400)
    assert watched.samples()["bridge_source_lag_seconds", "a"] == 0
    assert watched.samples()["bridge_source_failing", "a"] == 0


def test_parked_work_is_counted_by_queue_and_does_not_age(watched: Watched) -> None:
    watched.rig.ehr.refuses[STUDY] = RefusedByServer("sink ehr: HTTP 422")
    watched.rig.a.put(headers(instance=1))
    watched.rig.run(60)
    found = watched.samples()
    assert found["bridge_work_parked", "sink:ehr"] == 1
    assert found["bridge_work_failed_total", "parked sink:ehr"] == 1
    assert found["bridge_work_oldest_seconds", "sink:ehr"] == 0
    assert found["bridge_work_parked", "study"] == 0


def test_what_a_sweep_finds_is_told_from_what_a_change_told(watched: Watched) -> None:
    watched.rig.run()
    watched.rig.a.put(headers(instance=1), quietly=True)
    watched.rig.run(1010)
    assert watched.samples()["bridge_studies_hinted_total", "sweep a"] == 1
    assert watched.samples()["bridge_studies_hinted_total", "poll a"] == 0


def test_queues_that_nobody_configured_share_one_label(watched: Watched) -> None:
    for number in range(50):
        watched.rig.state.mark(f"sink:gone-{number}", ["1.2.3"], watched.rig.now)
    found = watched.samples()
    assert found["bridge_work_waiting", "other"] == 50
    assert not [label for _, label in found if "gone" in label]


def test_no_label_says_anything_about_a_study(watched: Watched) -> None:
    watched.rig.a.put(headers(instance=1, PatientName="CANARY^ANNA", PatientID="CANARY1"))
    watched.rig.ehr.refuses[STUDY] = RefusedByServer("sink ehr: HTTP 422")
    watched.rig.run()
    text = exposition(watched.metrics.registry).decode("utf-8")
    assert "CANARY" not in text
    assert STUDY not in text


class Away:
    """A state that does not answer: at once, or for as long as `held`."""

    def __init__(self) -> None:
        self.held = threading.Event()
        self.asked = 0

    def backlogs(self) -> list[Backlog]:
        self.asked += 1
        if not self.held.wait(5):
            return []
        raise StateUnavailable("state: the database cannot answer now")

    def turns(self, queue: str) -> dict[str, Turn]:
        return {}

    def deliveries(self) -> dict[str, int]:
        return {}

    def reconciliation(self) -> dict[str, Any] | None:
        return None


def test_a_state_that_is_away_or_hangs_takes_nothing_else_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_metrics, "ANSWER_WITHIN_S", 0.05)
    state, metrics = Away(), Metrics(["a"], ["ehr"], lambda: 0.0)
    metrics.registry.register(StateMetrics(state, Peers(["a"], ["ehr"]), lambda: 0.0))
    metrics.hinted("a", Step.POLL, 3)
    for _ in range(3):
        found = read(metrics.registry)
        assert found["bridge_state_up", ""] == 0
        assert found["bridge_studies_hinted_total", "poll a"] == 3
    assert state.asked == 1  # one that hangs is not asked a second time
    state.held.set()
    assert read(metrics.registry)["bridge_state_up", ""] == 0
    assert ("bridge_work_waiting", "study") not in read(metrics.registry)


def test_a_step_that_fails_is_timed_too(watched: Watched) -> None:
    with pytest.raises(SinkUnavailable), watched.metrics.step(Step.DELIVER, "ehr"):
        raise SinkUnavailable("sink ehr: connection refused")
    assert watched.samples()["bridge_step_seconds_count", "deliver"] == 1


def test_the_state_tells_of_each_source(watched: Watched) -> None:
    watched.rig.a.down = True
    watched.rig.run(5)
    turns = watched.rig.state.turns("poll")
    assert turns["b"].attempts == 0
    assert turns["a"].attempts > 0
    assert "source a" in turns["a"].error
    assert [b.queue for b in watched.rig.state.backlogs()] == ["poll", "sweep", "verify"]
    assert watched.rig.state.problem() == ""
    assert STUDY_QUEUE not in turns


def test_studies_are_counted_by_the_time_of_their_last_change(watched: Watched) -> None:
    watched.rig.a.put(headers(study=f"{STUDY}.1"), headers(study=f"{STUDY}.2"))
    watched.rig.run()
    first = watched.rig.now
    watched.rig.now += 600
    watched.rig.a.put(headers(study=f"{STUDY}.2", instance=2))
    watched.rig.run()
    found = watched.rig.state.changed_studies(0.0, 300)
    assert sorted(found.values()) == [1, 1]
    assert min(found) <= first < min(found) + 300 + 10
    assert watched.rig.state.changed_studies(first + 300, 300) == {max(found): 1}


def test_what_the_newest_reconciliation_found_is_told_by_pair_and_standing(watched: Watched) -> None:
    assert watched.samples()["bridge_reconcile_lag_seconds", ""] == 0
    agrees, away = Comparison("pacs", "state"), Comparison("state", "ehr", error="sink ehr: connection refused")
    agrees.add(Difference(STUDY, Level.STUDY, "is missing", Standing.WAITING))
    away.add(Difference(STUDY, Level.STUDY, "is missing", Standing.MARKED))
    watched.rig.state.keep_reconciliation(json.dumps(Report(1.0, 2.0, (agrees, away)).as_json()))
    watched.rig.state.mark("reconcile", ["all"], watched.rig.now - 50)
    found = watched.samples()
    assert found["bridge_reconcile_differences", "pacs state waiting"] == 1
    assert found["bridge_reconcile_differences", "pacs state different"] == 0
    assert found["bridge_reconcile_differences", "pacs state unfinished"] == 0
    assert found["bridge_reconcile_differences", "state ehr marked"] == 1
    assert found["bridge_reconcile_differences", "state ehr unfinished"] == 1
    assert found["bridge_reconcile_lag_seconds", ""] == 50
    assert {s.value for s in Standing} == set(state_metrics.STANDINGS)
    assert state_metrics.RECONCILE == RECONCILE_QUEUE


def test_readings_that_were_ended_are_counted_by_why(watched: Watched) -> None:
    watched.metrics.reading_ended(Ended.TIME)
    name = "bridge_document_readings_ended_total"
    assert [watched.samples()[name, why] for why in ("time", "memory", "crash")] == [1, 0, 0]
