"""A real `bridge run` and receivers of notifications in processes of their own, killed and started again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.builders import STUDY, write_file
from tests.notified import Receiver
from tests.services.bridge_process import BridgeProcess
from tests.subscribing import by_criteria, by_topic, in_r5, told

SOURCES = """subscription_endpoints = [{endpoints}]
[[sources]]
kind = "folder"
name = "inbox"
path = "inbox"
poll_s = 0.2
settle_s = 0
"""


@pytest.fixture
def receivers(tmp_path: Path) -> Iterator[list[Receiver]]:
    made = [Receiver(tmp_path, f"r{n}") for n in range(3)]
    for one in made:
        one.start()
    yield made
    for one in made:
        one.kill()


@pytest.fixture
def bridge(tmp_path: Path, receivers: list[Receiver]) -> Iterator[BridgeProcess]:
    (tmp_path / "inbox").mkdir()
    endpoints = ", ".join(f'"http://127.0.0.1:{one.port}/hooks"' for one in receivers)
    made = BridgeProcess(tmp_path, SOURCES.format(endpoints=endpoints), {})
    made.start()
    yield made
    made.close()


def put(folder: Path, study: int, instance: int = 1) -> None:
    write_file(folder / "inbox" / f"{study}-{instance}.dcm", study=f"{STUDY}.{study}", instance=instance)


def create(bridge: BridgeProcess, content: dict[str, Any], media_type: str = "application/fhir+json") -> str:
    url = f"http://127.0.0.1:{bridge.port}/fhir/Subscription"
    answer = httpx.post(url, json=content, headers={"Content-Type": media_type}, trust_env=False)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def numbers(receiver: Receiver) -> list[int]:
    return [number for bundle in receiver.bundles() for number in told(bundle)["events"]]


def test_no_event_is_lost_whoever_is_killed(bridge: BridgeProcess, receivers: list[Receiver], tmp_path: Path) -> None:
    topic, criteria, r5 = receivers
    by = create(bridge, by_topic(topic.url, "ImagingStudy?modality=CT", content="full-resource", header=["X-Key: k"]))
    create(bridge, by_criteria(criteria.url))
    create(bridge, in_r5(r5.url, content="full-resource", maxCount=3), "application/fhir+json; fhirVersion=5.0")
    bridge.wait_for("handshakes", lambda: topic.bundles() and r5.bundles())
    put(tmp_path, 0)
    bridge.wait_for("the first event", lambda: numbers(topic) == [1])
    topic.kill()
    for n in range(1, 4):
        put(tmp_path, n)
        bridge.study(f"{STUDY}.{n}")
    bridge.wait_for("the others", lambda: max(numbers(r5), default=0) == 4 and len(criteria.requests()) == 4)
    bridge.wait_for("the error", lambda: bridge.get(f"/fhir/Subscription/{by}")["status"] == "error")
    bridge.kill()
    put(tmp_path, 4)
    bridge.start()
    bridge.study(f"{STUDY}.4")
    topic.start()
    bridge.wait_for("what was missed", lambda: max(numbers(topic), default=0) == 5)
    bridge.wait_for("the others", lambda: max(numbers(r5), default=0) == 5 and len(criteria.requests()) >= 5)
    for receiver in (topic, r5):
        assert sorted(set(numbers(receiver))) == [1, 2, 3, 4, 5]
    told_of = {e["resource"]["id"] for b in topic.bundles() for e in b["entry"][1:]}
    assert told_of == {bridge.studies(f"{STUDY}.{n}")[0]["id"] for n in range(5)}
    assert all(request["headers"]["X-Key"] == "k" for request in topic.requests())
    assert {request["path"].split("/")[-2] for request in criteria.requests()} == {"ImagingStudy"}
    assert bridge.get(f"/fhir/Subscription/{by}")["status"] == "active"
    for secret in ("X-Key: k", "Test^Eva", "Eva"):
        assert secret not in bridge.log


def test_an_export_is_written_though_the_bridge_is_killed(bridge: BridgeProcess, tmp_path: Path) -> None:
    for n in range(3):
        put(tmp_path, n)
    for n in range(3):
        bridge.study(f"{STUDY}.{n}")
    base = f"http://127.0.0.1:{bridge.port}"
    asked = httpx.get(f"{base}/fhir/$export", headers={"Prefer": "respond-async"}, trust_env=False)
    assert asked.status_code == 202
    bridge.kill()
    bridge.start()
    place = asked.headers["content-location"]

    def manifest() -> Any:
        answer = httpx.get(place, trust_env=False)
        assert answer.status_code in (200, 202)
        return answer.json() if answer.status_code == 200 else None

    found = bridge.wait_for("the manifest", manifest)
    (studies,) = [o for o in found["output"] if o["type"] == "ImagingStudy"]
    lines = httpx.get(studies["url"], trust_env=False).content.splitlines()
    assert {orjson.loads(line)["id"] for line in lines} == {bridge.studies(f"{STUDY}.{n}")[0]["id"] for n in range(3)}
    bridge.kill()
    bridge.start()
    assert httpx.get(studies["url"], trust_env=False).status_code == 200
    assert httpx.delete(place, trust_env=False).status_code == 202
    assert httpx.get(studies["url"], trust_env=False).status_code == 404
