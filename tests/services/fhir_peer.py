"""A real FHIR R4 server from npm (Medplum's), on loopback."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.services.peers import free_port, missing

HERE = Path(__file__).parent / "fhir_server"


class FhirPeer:
    """The server as tests see it; `url` is its FHIR base."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/fhir"
        self._client = httpx.Client(timeout=30, trust_env=False)

    def put(self, resource: dict[str, Any]) -> None:
        path = f"{self.url}/{resource['resourceType']}/{resource['id']}"
        self._client.put(path, json=resource).raise_for_status()

    def search(self, kind: str, **parameters: str) -> list[dict[str, Any]]:
        bundle = self._client.get(f"{self.url}/{kind}", params=parameters).raise_for_status().json()
        return [entry["resource"] for entry in bundle.get("entry", [])]

    def versions(self, kind: str, id_: str) -> int:
        bundle = self._client.get(f"{self.url}/{kind}/{id_}/_history").raise_for_status().json()
        return len(bundle["entry"])

    def fail_with(self, status: int) -> None:
        """Every FHIR request is answered so; 0 ends it."""
        self._client.post(f"{self.url}/$fault", json={"status": status}).raise_for_status()

    def close(self) -> None:
        self._client.close()


@contextmanager
def running_fhir_server(folder: Path) -> Iterator[FhirPeer]:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        missing("node with npm")
    for name in ("package.json", "server.mjs"):
        shutil.copyfile(HERE / name, folder / name)
    installed = subprocess.run(
        [npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"],
        cwd=folder,
        capture_output=True,
        check=False,
        timeout=300,
    )
    if installed.returncode:
        missing("the npm packages of tests/services/fhir_server")
    port = free_port()
    process = subprocess.Popen([node, "server.mjs", str(port)], cwd=folder, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        peer = FhirPeer(port)
        yield peer
        peer.close()
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
