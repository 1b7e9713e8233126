"""A real Prometheus reads a real bridge; the alert rules and the dashboard's queries work on what it has."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.builders import STUDY, write_file
from tests.services.bridge_process import BridgeProcess
from tests.services.peers import free_port, program
from tests.services.test_operations_page import SOURCES
from tests.unit.test_monitoring_documents import dashboard_queries

DEPLOY = Path(__file__).parents[2] / "deploy" / "prometheus"
SCRAPES_EVERY = "1s"


def promtool(*arguments: str) -> None:
    done = subprocess.run([str(program("promtool")), *arguments], capture_output=True, text=True, cwd=DEPLOY)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_configuration_and_the_rules_are_valid() -> None:
    promtool("check", "config", "prometheus.yml")
    promtool("check", "rules", "rules.yml")


def test_each_alert_comes_when_it_must_and_none_when_all_is_well() -> None:
    promtool("test", "rules", "rules_test.yml")
    tested = yaml.safe_load((DEPLOY / "rules_test.yml").read_text("utf-8"))["tests"]
    rules = yaml.safe_load((DEPLOY / "rules.yml").read_text("utf-8"))["groups"][0]["rules"]
    assert {t["name"] for t in tested[1:]} == {r["alert"] for r in rules}
    assert {t["alertname"] for t in tested[0]["alert_rule_test"]} == {r["alert"] for r in rules}


class Prometheus:
    def __init__(self, port: int) -> None:
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=20)

    def ask(self, query: str) -> list[dict[str, Any]]:
        """The series that a query gives now; fails where Prometheus does not understand it."""
        answer = self._client.get("/api/v1/query", params={"query": query}).raise_for_status().json()
        return list(answer["data"]["result"])

    def close(self) -> None:
        self._client.close()

    def wait_for(self, query: str) -> list[dict[str, Any]]:
        until = time.monotonic() + 60
        while True:
            try:
                if found := self.ask(query):
                    return found
            except httpx.TransportError:
                pass
            assert time.monotonic() < until, query
            time.sleep(0.5)


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[BridgeProcess]:
    write_file(tmp_path / "inbox" / "1.dcm", study=STUDY)
    bridge = BridgeProcess(tmp_path, SOURCES.format(closed=free_port()), {})
    bridge.start()
    bridge.study(STUDY, status="available")
    yield bridge
    bridge.close()


@pytest.fixture
def prometheus(bridge: BridgeProcess, tmp_path: Path) -> Iterator[Prometheus]:
    settings = yaml.safe_load((DEPLOY / "prometheus.yml").read_text("utf-8"))
    settings["global"] = {"scrape_interval": SCRAPES_EVERY, "evaluation_interval": SCRAPES_EVERY}
    settings["rule_files"] = [str(DEPLOY / "rules.yml")]
    settings["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{bridge.port}"]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(settings), "utf-8")
    port = free_port()
    command = [
        str(program("prometheus")), f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    with (tmp_path / "prometheus.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    asked = Prometheus(port)
    yield asked
    asked.close()
    process.terminate()
    process.wait(20)


def test_prometheus_reads_the_bridge_and_the_dashboard_has_something_to_show(prometheus: Prometheus) -> None:
    prometheus.wait_for("bridge_state_up == 1")
    prometheus.wait_for("rate(bridge_step_seconds_count[1m])")
    prometheus.wait_for('bridge_source_failing{source="pacs"} == 1')
    empty = set()
    for title, queries in dashboard_queries().items():
        for query in queries.splitlines():
            asked = query.replace("$job", "imaging-bridge").replace("$__rate_interval", "1m")
            if not prometheus.ask(asked):
                empty.add(title)
    # the only FHIR server is away, and has none; nothing was reconciled yet
    assert empty == {
        "Studies of FHIR servers (timeseries)",
        "Differences of the newest reconciliation (timeseries)",
    }
    prometheus.wait_for('ALERTS{alertname="BridgeSinkFailing", sink="ehr"}')
    assert not prometheus.ask('ALERTS{alertname="BridgeStateUnavailable"}')
