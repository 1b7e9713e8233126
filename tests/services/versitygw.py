"""A real S3 store of the tests' own: Versity's gateway over a folder, on loopback."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.s3_places import KEY, REGION, SECRET, S3Peer
from tests.services.peers import free_port, program

START_S = 30.0


@contextmanager
def running_versitygw() -> Iterator[S3Peer]:
    """Its address. It is empty, and honours If-None-Match and If-Match of requests at the same instant."""
    binary = program("versitygw")
    with tempfile.TemporaryDirectory(prefix="s3-") as folder:
        data, log = Path(folder) / "data", Path(folder) / "log"
        data.mkdir()
        port = free_port()
        environment = os.environ | {"ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": SECRET, "VGW_REGION": REGION}
        command = [str(binary), "--port", f"127.0.0.1:{port}", "--quiet", "posix", str(data)]
        with log.open("wb") as output:
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            _wait(process, port, log)
            yield S3Peer(f"http://127.0.0.1:{port}")
        finally:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + START_S
    while True:
        try:
            httpx.get(f"http://127.0.0.1:{port}/", timeout=2, trust_env=False)
        except httpx.TransportError:
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError("versitygw does not start:\n" + log.read_text("utf-8", "replace")[-2000:]) from None
            time.sleep(0.05)
        else:
            return
