"""The process is killed at every stage of calling a model and of storing documents; no result is lost or doubled."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from pydicom import dcmread

from tests.ai_results import a_result
from tests.builders import STUDY, write_file
from tests.kill_runs import KILLED, Run, kill_runs, result
from tests.web_server import Asked, Reply, web_server

STAGES = (
    "claimed", "translated", "study committed", "delivered", "model claimed", "model answered", "answer kept",
    "document claimed", "document stored", "document noted",
)  # fmt: skip
STUDIES = (f"{STUDY}.1", f"{STUDY}.2")


class Peer:
    """A model that reads the images and finds one thing, and an archive: `stored` SOP Instance UID → bytes, `called`
    studies."""

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}
        self.called: list[str] = []
        self.images: list[str] = []

    def answer(self, asked: Asked) -> Reply:
        if asked.path == "/model":
            call = orjson.loads(asked.content)
            self.called.append(call["study_instance_uid"])
            self.images.append(_images(call["wado_rs"]))
            made = a_result(run_id=call["run_id"], study_instance_uid=call["study_instance_uid"])
            return Reply(200, orjson.dumps(made))
        (limit,) = re.findall("boundary=(.*)", asked.headers["content-type"])
        for part in asked.content.split(b"--" + limit.encode())[1:-1]:
            content = part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
            uid = str(dcmread(BytesIO(content)).SOPInstanceUID)
            assert self.stored.setdefault(uid, content) == content
        return Reply(200, b"{}")


def _images(wado_rs: dict[str, str]) -> str:
    """The study of the images that a call opens."""
    headers = {"Authorization": f"Bearer {wado_rs['token']}"}
    answer = httpx.get(wado_rs["study"], headers=headers, timeout=30, trust_env=False).raise_for_status()
    (part,) = answer.content.split(b"\r\n\r\n", 1)[1:]
    return str(dcmread(BytesIO(part)).StudyInstanceUID)


@pytest.fixture
def peer() -> Iterator[tuple[Peer, str]]:
    peer = Peer()
    with web_server() as server:
        server.answer = peer.answer
        yield peer, server.url


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    with kill_runs() as runs:
        yield runs


def fill(folder: Path) -> None:
    for uid in STUDIES:
        write_file(folder / "inbox" / f"{uid}.dcm", study=uid, PatientID=f"P{uid[-1]}")


def whole(found: dict[str, Any], peer: Peer) -> None:
    """Each study has two results, each a report of its own and a document in the archive."""
    assert len(found["results"]) == len(set(found["results"])) == 4
    reports = [v for key, v in found["resources"].items() if key.startswith("DiagnosticReport/")]
    assert [version for version, _ in reports] == [1] * 4
    assert len(peer.stored) == 4
    assert set(peer.called) == set(STUDIES)
    assert set(peer.images) == set(STUDIES)
    assert Counter(peer.images) <= Counter(peer.called)  # a kill may come between a call and its images


@pytest.mark.timeout(200)
def test_a_run_without_a_kill_reaches_every_stage(tmp_path: Path, peer: tuple[Peer, str], run: Run) -> None:
    fill(tmp_path)
    found = result(run(tmp_path, peer=peer[1]))
    assert set(STAGES) <= set(found["stages"])
    whole(found, peer[0])
    assert len(peer[0].called) == len(peer[0].images) == 2


@pytest.mark.timeout(200)
@pytest.mark.parametrize("stage", STAGES)
def test_a_kill_loses_no_result_and_doubles_none(tmp_path: Path, peer: tuple[Peer, str], run: Run, stage: str) -> None:
    fill(tmp_path)
    assert run(tmp_path, stage, peer=peer[1]).returncode == KILLED
    whole(result(run(tmp_path, peer=peer[1])), peer[0])
    assert len(peer[0].called) <= 4  # two at once, both of which may have been on their way
