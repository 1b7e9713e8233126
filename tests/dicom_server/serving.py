"""Two ways to the simulated DICOM server: inside the test's thread through httpx, or over TCP."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from tests.dicom_server.app import create
from tests.dicom_server.archive import SimulatedArchive
from tests.dicom_server.tokens import Tokens


class InProcess(httpx.BaseTransport):
    """Answers requests to any host from the application, in the caller's thread: no route of it waits for anything."""

    def __init__(self, archive: SimulatedArchive, tokens: Tokens | None = None) -> None:
        self._app = create(archive, tokens)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = _Answer(self._app)
        answer.run(_scope(request), request.read())
        if len(answer.body) < int(answer.headers.get("content-length", 0)):
            raise httpx.RemoteProtocolError("the peer closed the connection before the whole body was sent")
        return httpx.Response(answer.status, headers=answer.headers, content=answer.body)


class _Answer:
    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self.status, self.headers, self.body = 0, httpx.Headers(), b""

    def run(self, scope: dict[str, Any], content: bytes) -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": content, "more_body": False}

        steps = self._app(scope, receive, self._send).__await__()  # type: ignore[arg-type]
        try:
            next(steps)
        except StopIteration:
            return
        raise AssertionError("a route of the simulator waits: it can only be served over TCP")

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], httpx.Headers(message["headers"])
        else:
            self.body += message.get("body", b"")


def _scope(request: httpx.Request) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": request.url.scheme,
        "path": request.url.path,
        "raw_path": request.url.raw_path.partition(b"?")[0],
        "query_string": request.url.query,
        "headers": [(k.lower(), v) for k, v in request.headers.raw],
        "client": ("127.0.0.1", 1),
        "server": (request.url.host, request.url.port or 80),
    }


@contextmanager
def over_tcp(archive: SimulatedArchive, tokens: Tokens | None = None, port: int = 0) -> Iterator[str]:
    """The address of the server on loopback, until the block ends."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        config = uvicorn.Config(create(archive, tokens), log_config=None, access_log=False, lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=10)
