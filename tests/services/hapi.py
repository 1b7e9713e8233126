"""A real HAPI FHIR JPA server, R4 or R5, on loopback, with a database that outlives it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from tests.services.fhir_client import FhirClient
from tests.services.hapi_build import hapi_classpath
from tests.services.peers import free_port, program

Version = Literal["R4", "R5"]

HEAP: dict[Version, str] = {"R4": "-Xmx1g", "R5": "-Xmx1536m"}
"""R5's definitions alone hold 600 MB; with 1 GB half its start is garbage collection."""

JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""Quick to start rather than fast after minutes: R4 takes 10 s of processor time, R5 20 s."""


class HapiPeer(FhirClient):
    """The server as tests see it. `start`, `kill` and `restart` keep its port and database.

    Options, each as HAPI has it by default: `client_ids` which ids a PUT may create: ALPHANUMERIC (not digits
    alone), ANY or NOT_ALLOWED (404); `transactions` false answers them with 400, like HAPI without its system provider;
    `referential_integrity`; `search_reuse_ms` for how long a search that was asked before is answered as it was then,
    unless the client sends Cache-Control: no-cache; 0 never.
    """

    def __init__(self, folder: Path, version: Version, options: dict[str, str | int | bool]) -> None:
        port = free_port()
        super().__init__(f"http://127.0.0.1:{port}/fhir")
        self.version: Version = version
        self._log = folder / "hapi.log"
        self._words = [f"version={version}", f"port={port}", f"folder={folder}"]
        for name, value in options.items():
            self._words.append(f"{name}={str(value).lower() if isinstance(value, bool) else value}")
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Returns once it answers."""
        jvm = [str(program("java")), HEAP[self.version], *JVM, "-cp", hapi_classpath()]
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [*jvm, "bridge.hapi.Main", *self._words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=self._log.parent,
            )
        self._process = process
        assert process.stdout is not None
        if "ready\n" not in iter(process.stdout.readline, ""):
            self.kill()
            raise AssertionError(f"HAPI did not start:\n{self._log.read_text('utf-8', 'replace')[-3000:]}")

    def kill(self) -> None:
        """SIGKILL: nothing is closed or flushed."""
        if self._process is not None:
            self._process.kill()
            self._ended()

    def restart(self) -> None:
        """Ends it in good order and starts it again."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait(60)
            self._ended()
        self.start()

    def validate(self, resource: dict[str, Any]) -> list[tuple[str, str, str]]:
        """What $validate says of a resource: (severity, location, code) of each issue.

        The code is the validator's own (`http://hl7.org/fhir/StructureDefinition/DomainResource#dom-6`), or the
        issue's where there is none.
        """
        answer = self._client.post(f"{self.url}/{resource['resourceType']}/$validate", json=resource)
        outcome = answer.json()
        assert outcome.get("resourceType") == "OperationOutcome", f"$validate: HTTP {answer.status_code}"
        return [_issue(issue) for issue in outcome["issue"]]

    def close(self) -> None:
        self.kill()
        super().close()

    def _ended(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


def _issue(issue: dict[str, Any]) -> tuple[str, str, str]:
    where = issue.get("expression") or issue.get("location") or [""]
    codings = issue.get("details", {}).get("coding", [])
    return str(issue["severity"]), str(where[0]), str(codings[0]["code"] if codings else issue["code"])


@contextmanager
def running_hapi(folder: Path, version: Version = "R4", **options: str | int | bool) -> Iterator[HapiPeer]:
    """A started server with its database in a folder. The first use on a machine builds it, which takes minutes."""
    peer = HapiPeer(folder, version, options)
    try:
        peer.start()
        yield peer
    finally:
        peer.close()
