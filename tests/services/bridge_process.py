"""A real `bridge run` in a process of its own, and what a client sees of it over HTTP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tests.policies import EVERYTHING_TOML
from tests.services.peers import free_port

START_S, STOP_S, WAIT_S = 60.0, 40.0, 100.0
SLOW_S = 40.0
"""What takes so long has waited for something: it is asked where it stands, for whoever reads the test's output."""

T = TypeVar("T")


class BridgeProcess:
    """`bridge run` on a configuration of which `sources` is the TOML text of its sources. Its state outlives it.

    `roles` other than all must have `serve`; `settings` is more TOML text, of the settings outside all sections.
    """

    def __init__(
        self, folder: Path, sources: str, environment: dict[str, str], settings: str = "", roles: Sequence[str] = ()
    ) -> None:
        self.port = free_port()
        self.data_dir = folder / "data"
        self.config, self._log = folder / "bridge.toml", folder / "bridge.log"
        self._environment = os.environ | environment
        self._process: subprocess.Popen[bytes] | None = None
        settings += f'data_dir = "data"\nquiet_s = 0.3\nmax_wait_s = 2\n{EVERYTHING_TOML}[api]\nport = {self.port}\n'
        self._roles = roles
        self.config.write_text(settings + sources, "utf-8")
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30, trust_env=False)

    def start(self) -> None:
        """Returns once its status answers."""
        self._process = self.beside(*self._roles)
        try:
            self.wait_for("its status", self._answers, START_S)
        except AssertionError:
            self.kill()
            raise

    def beside(self, *roles: str) -> subprocess.Popen[bytes]:
        """Another process of the same configuration with these roles; all, without any. The caller ends it."""
        command = [str(_script("bridge")), "run", "--config", str(self.config)]
        command += [argument for role in roles for argument in ("--role", role)]
        with self._log.open("ab") as log:
            return subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)

    def stop(self) -> int:
        """Ends it as an operator does; its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        return self._end(signal.SIGKILL)

    def close(self) -> None:
        self.kill()
        self._client.close()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        return self._log.read_text("utf-8", "replace")

    def wait_for(self, what: str, look: Callable[[], T | None], within_s: float = WAIT_S) -> T:
        """What `look` gives once it is neither None nor False.

        Fails when that takes too long, with the log's end. What takes long says before where it stands.
        """
        began, asked = time.monotonic(), False
        while True:
            found = look()
            if found is not None and found is not False:
                return found
            assert self._process is None or self._process.poll() is None, f"the bridge ended:\n{self.log[-3000:]}"
            waited_s = time.monotonic() - began
            if waited_s >= SLOW_S and not asked:
                asked = True
                print(f"{SLOW_S:g} s for {what}: {self._evidence()}", file=sys.__stderr__)
            assert waited_s < within_s, f"waited {within_s:g} s for {what}:\n{self.log[-30_000:]}"
            time.sleep(0.1)

    def get(self, path: str, **parameters: str) -> Any:
        """The JSON under a path."""
        return self._client.get(path, params=parameters).raise_for_status().json()

    def sql(self, query: str) -> list[dict[str, Any]] | None:
        """The rows of a SELECT asked over HTTP; None while the lake has nothing yet."""
        answer = self._client.post("/cohort/api/sql", json={"sql": query})
        return answer.json()["rows"] if answer.status_code == 200 else None

    def cohort(self, query: str) -> list[dict[str, Any]]:
        """The rows of a SELECT asked by `cohort sql` beside the running bridge."""
        command = [str(_script("cohort")), "sql", "--json", "--config", str(self.config), query]
        done = subprocess.run(command, env=self._environment, capture_output=True, check=True)
        rows: list[dict[str, Any]] = json.loads(done.stdout)["rows"]
        return rows

    def post(self, path: str, body: dict[str, str]) -> Any:
        """The JSON that a path answers to a JSON body."""
        return self._client.post(path, json=body).raise_for_status().json()

    def studies(self, study_instance_uid: str) -> list[dict[str, Any]]:
        """The ImagingStudy resources with this UID, as a FHIR client finds them."""
        bundle = self.get("/fhir/ImagingStudy", identifier=f"urn:dicom:uid|urn:oid:{study_instance_uid}")
        return [entry["resource"] for entry in bundle.get("entry", [])]

    def study(self, study_instance_uid: str, **elements: object) -> dict[str, Any]:
        """The one ImagingStudy, once its elements have these values."""

        def look() -> dict[str, Any] | None:
            found = self.studies(study_instance_uid)
            assert len(found) <= 1
            return next((s for s in found if all(s.get(k) == v for k, v in elements.items())), None)

        return self.wait_for(f"a study with {elements}", look)

    def queue(self, name: str) -> dict[str, Any]:
        """One queue of the status; {} when nothing is in it."""
        return next((q for q in self.get("/operations/status")["queues"] if q["queue"] == name), {})

    def until_settled(self) -> None:
        """Returns once no study waits to be read or delivered."""

        def settled() -> bool:
            queues = self.get("/operations/status")["queues"]
            busy = [q["queue"] for q in queues if q["waiting"]]
            return not any(name in ("study", "backfill") or name.startswith("sink:") for name in busy)

        self.wait_for("empty queues", settled)

    def _answers(self) -> bool:
        try:
            return self._client.get("/operations/status").status_code == 200
        except httpx.TransportError:
            return False

    def _evidence(self) -> str:
        """What its status says, and its log with the stacks of its threads."""
        try:
            status = self._client.get("/operations/status").text
        except httpx.TransportError as error:
            return f"no status: {error}\n{self.log[-3000:]}"
        if self._process is not None:
            self._process.send_signal(signal.SIGUSR1)
            time.sleep(1)
        return f"{status}\n{self.log[-30_000:]}"

    def _end(self, number: int) -> int:
        if self._process is None:
            return 0
        self._process.send_signal(number)
        code = self._process.wait(STOP_S)
        self._process = None
        return code


def _script(name: str) -> Path:
    return Path(sys.executable).with_name(name)
