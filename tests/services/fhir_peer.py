"""A real FHIR R4 server from npm (Medplum's), on loopback."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.services.fhir_client import FhirClient
from tests.services.peers import free_port, missing

HERE = Path(__file__).parent / "fhir_server"


class FhirPeer(FhirClient):
    """The server as tests see it, and its faults."""

    def __init__(self, port: int) -> None:
        super().__init__(f"http://127.0.0.1:{port}/fhir")

    def fail_with(self, status: int) -> None:
        """Every FHIR request is answered so; 0 ends it."""
        self._client.post(f"{self.url}/$fault", json={"status": status}).raise_for_status()


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
