"""A receiver of notifications in a process of its own: writes each to a file, then says that it took it.

python -m tests.notified PORT FILE
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from tests.services.peers import free_port


def main() -> None:
    port, path = int(sys.argv[1]), Path(sys.argv[2])
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            told = {"method": self.command, "path": self.path, "headers": dict(self.headers), "body": body.decode()}
            os.write(file, json.dumps(told).encode() + b"\n")
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_PUT(self) -> None:
            self.do_POST()

        def do_GET(self) -> None:
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return None

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


class Receiver:
    """The receiver, to be started, killed and started again. What it took outlives it."""

    def __init__(self, folder: Path, name: str = "receiver") -> None:
        self.port, self._file = free_port(), folder / f"{name}.jsonl"
        self.url = f"http://127.0.0.1:{self.port}/hooks/{name}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.notified", str(self.port), str(self._file)]
        self._process = subprocess.Popen(command)
        until = time.monotonic() + 60
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{self.port}/", trust_env=False)
                return
            except httpx.TransportError:
                assert time.monotonic() < until
                time.sleep(0.05)

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def requests(self) -> list[dict[str, Any]]:
        """What it took, in its order."""
        if not self._file.exists():
            return []
        return [json.loads(line) for line in self._file.read_text("utf-8").splitlines()]

    def bundles(self) -> list[dict[str, Any]]:
        return [json.loads(one["body"]) for one in self.requests() if one["method"] == "POST" and one["body"]]


if __name__ == "__main__":
    main()
