"""Metrics are what the documents say, and the other way round."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from bridge import config
from bridge.compose import Bridge
from bridge.reconcile.report import Comparison, Report
from bridge.telemetry.state_metrics import exposition
from tests.services.peers import free_port

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fastapi.testclient import TestClient

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
    compared = Report(1.0, 2.0, (Comparison("state", "ehr"),))
    bridge.state.keep_reconciliation(json.dumps(compared.as_json()))
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


def dashboard_queries() -> dict[str, str]:
    """Title of a panel → its query, or all of them in lines."""
    dashboard = json.loads((ROOT / "deploy" / "grafana" / "imaging-bridge.json").read_text("utf-8"))
    return {p["title"] + f" ({p['type']})": "\n".join(t["expr"] for t in p["targets"]) for p in dashboard["panels"]}


def rule_queries() -> dict[str, str]:
    """Alert → its query."""
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yml").read_text("utf-8"))
    return {r["alert"]: r["expr"] for group in rules["groups"] for r in group["rules"]}


QUERIES = dashboard_queries() | rule_queries()
OF_PROMETHEUS = {"job", "le", "instance"}


@pytest.mark.parametrize("query", QUERIES.values(), ids=list(QUERIES))
def test_dashboard_and_alerts_ask_for_metrics_and_labels_that_exist(query: str, shown: dict[str, set[str]]) -> None:
    known = shown | {"bridge_sink_studies": {"sink"}}
    used = set()
    for name, selected in re.findall(r"\b(bridge_\w+)(\{[^}]*\})?", query):
        metric = name if name in known else re.sub(r"_(bucket|sum|count)$", "", name)
        assert metric in known, metric
        assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selected)) <= known[metric] | OF_PROMETHEUS
        used |= known[metric]
    for grouped in re.findall(r"\bby \(([^)]*)\)", query):
        assert {label.strip() for label in grouped.split(",")} <= used | OF_PROMETHEUS


def test_every_alert_says_how_grave_it_is_and_what_to_do_and_stands_in_the_document() -> None:
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yml").read_text("utf-8"))
    for rule in (r for group in rules["groups"] for r in group["rules"]):
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert len(rule["annotations"]["description"]) > 40
        assert f"`{rule['alert']}`" in TOLD


def test_panels_have_titles_of_their_own_and_do_not_overlap() -> None:
    dashboard = json.loads((ROOT / "deploy" / "grafana" / "imaging-bridge.json").read_text("utf-8"))
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_readiness_looks_at_every_peer_that_is_configured(tmp_path: Path) -> None:
    """What is on this machine answers; each kind of peer has a check of its own, told by its name."""
    closed = free_port()
    url = f"http://127.0.0.1:{closed}"
    rule = {"modalities": ["CT"]}
    settings = config.parse({
        "data_dir": str(tmp_path / "data"),
        "sources": [
            {"kind": "folder", "name": "inbox", "path": str(tmp_path)},
            {"kind": "receiver", "name": "receiver"},
            {"kind": "orthanc", "name": "pacs", "url": url},
            {"kind": "dicomweb", "name": "vna", "url": f"{url}/dicom-web"},
            {"kind": "dimse", "name": "old", "host": "127.0.0.1", "port": closed, "ae_title": "OLD"},
        ],
        "sinks": [{"kind": "fhir_server", "name": "ehr", "url": f"{url}/fhir"}],
        "archives": [
            {"kind": "stow", "name": "docs", "url": url},
            {"kind": "c_store", "name": "docs2", "host": "127.0.0.1", "port": closed, "ae_title": "DOCS"},
        ],
        "models": [{"name": "lesions", "url": f"{url}/call", "version": "1", "rule": rule}],
    })  # fmt: skip
    bridge = Bridge(settings)
    bridge.pipeline.prepare()
    client = TestClient(bridge.app(), base_url="http://localhost")
    checks = client.get("/readyz").json()["checks"]
    metrics = client.get("/metrics").text
    bridge.state.close()
    well = {name for name, problem in checks.items() if problem == "ok"}
    assert well == {"state", "source inbox", "source receiver"}
    refused = {name for name, problem in checks.items() if problem == "connection refused"}
    assert refused == {
        "source pacs", "source vna", "source old", "sink ehr", "archive docs", "archive docs2", "model lesions",
    }  # fmt: skip
    assert checks["sink lake"] == "it is not open yet"
    for queue in ("file:inbox", "sink:ehr", "send:docs", "send:docs2", "model:lesions", "study"):
        assert f'bridge_work_parked{{queue="{queue}"}} 0.0' in metrics


def test_a_monitor_calls_the_bridge_by_a_name_that_it_was_told(tmp_path: Path) -> None:
    bridge = Bridge(config.parse({"data_dir": str(tmp_path), "api": {"host_names": ["bridge", "10.0.0.7"]}}))
    client = TestClient(bridge.app())
    asked = {host: client.get("/healthz", headers={"Host": host}).status_code for host in (
        "bridge:8080", "10.0.0.7:8080", "localhost", "evil.example",
    )}  # fmt: skip
    bridge.state.close()
    assert asked == {"bridge:8080": 503, "10.0.0.7:8080": 503, "localhost": 503, "evil.example": 400}  # no loops yet
