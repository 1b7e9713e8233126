"""Metrics are what the documents say, and the other way round."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bridge import config
from bridge.compose import Bridge
from bridge.telemetry.state_metrics import exposition

ROOT = Path(__file__).parents[2]
TOLD = (ROOT / "docs" / "monitoring.md").read_text("utf-8")


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Metric, as queries name it → its labels; of a bridge with its default sources and a FHIR server."""
    folder = tmp_path_factory.mktemp("monitored")
    raw = config.embedded(folder).model_dump() | {
        "sinks": [{"kind": "fhir_server", "name": "ehr", "url": "http://127.0.0.1:9/fhir"}]
    }
    bridge = Bridge(config.parse(raw))
    bridge.app()
    bridge.pipeline.prepare()
    bridge.metrics.failed("study", parked=True)
    text = exposition(bridge.metrics.registry).decode("utf-8")
    bridge.state.close()
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        for sample in family.samples:
            found.setdefault(name, set()).update(set(sample.labels) - {"le"})
    return {name: labels for name, labels in found.items() if name.startswith("bridge_")}


def test_every_metric_is_explained_with_its_labels(shown: dict[str, set[str]]) -> None:
    explained: dict[str, set[str]] = {}
    for names, labels in re.findall(r"^\| (`bridge_[^|]*)\|([^|]*)\|", TOLD, re.M):
        for name in re.findall(r"`(\w+)`", names):
            explained[name] = set(re.findall(r"`(\w+)`", labels))
    without_sinks = {"bridge_sink_studies"} - shown.keys()  # nothing was delivered yet
    assert explained == shown | {name: {"sink"} for name in without_sinks}
