"""A light FHIR server in memory, in a process of its own, so that no server's speed hides the bridge's.

python -m bench.backfill_fhir       prints its address, and serves until it is killed
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

from bench.results_file import ROOT
from tests.fhir_fake import FhirFake, over_http
from tests.web_server import Asked, Reply, web_server


class IndexedFhir(FhirFake):
    """Finds by identifier without looking at everything, and counts the ImagingStudies that it is given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._by_token: dict[tuple[str, str], set[str]] = {}
        self.uids: set[str] = set()
        self.counted = {"studies": 0, "written": 0, "instances": 0, "last_at": 0.0}

    def found(self, kind: str, token: str) -> list[dict[str, Any]]:
        there = (self.read(where) for where in sorted(self._by_token.get((kind, token), ())))
        return [resource for resource in there if resource is not None]

    def _store(self, kind: str, id_: str, body: Any) -> tuple[int, Any, str]:
        stored = super()._store(kind, id_, body)
        for identifier in body.get("identifier", []):
            token = f"{identifier.get('system', '')}|{identifier.get('value')}"
            self._by_token.setdefault((kind, token), set()).add(stored[2])
        if kind == "ImagingStudy":
            self._count(body)
        return stored

    def _count(self, study: dict[str, Any]) -> None:
        self.counted["written"] += 1
        self.counted["last_at"] = time.time()
        (uid,) = (i["value"] for i in study["identifier"] if i.get("system") == "urn:dicom:uid")
        if uid not in self.uids:
            self.uids.add(uid)
            self.counted["studies"] += 1
            self.counted["instances"] += sum(len(series["instance"]) for series in study["series"])


@dataclass(frozen=True)
class Counted:
    """`written` is how often an ImagingStudy was written, `last_at` when the last one was (seconds since the epoch)."""

    studies: int
    written: int
    instances: int
    last_at: float


@dataclass(frozen=True)
class LightFhir:
    """The server as a benchmark sees it."""

    url: str
    pid: int

    def counted(self) -> Counted:
        return Counted(**httpx.get(f"{self.url}/$counted", trust_env=False).raise_for_status().json())


@contextmanager
def running_light_fhir() -> Iterator[LightFhir]:
    """An empty server until the block ends."""
    command = [sys.executable, "-m", "bench.backfill_fhir"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield LightFhir(process.stdout.readline().strip(), process.pid)
        finally:
            process.kill()


def main() -> None:
    fhir, one_at_a_time = IndexedFhir(), threading.Lock()
    with web_server() as server:
        answered = over_http(fhir)

        def answer(asked: Asked) -> Reply:
            with one_at_a_time:
                server.asked.clear()
                if asked.path == "/fhir/$counted":
                    return Reply(content=orjson.dumps(fhir.counted))
                return answered(asked)

        server.answer = answer
        print(f"{server.url}/fhir", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
