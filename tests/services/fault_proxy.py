"""An HTTP proxy before a server, on loopback, that answers errors, cuts, halves and hangs at rates, by a seed."""

from __future__ import annotations

import http.client
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, fields
from email.utils import formatdate
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any
from urllib.parse import urlsplit

from tests.services.namespace import Namespace

_STATUS = {
    "throttled": 429, "unavailable": 503, "unauthorized": 401, "conflict": 409, "precondition": 412, "failed": 500,
}  # fmt: skip
_OF_ONE_CONNECTION = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "te", "upgrade"})


@dataclass(frozen=True)
class Rates:
    """How often, of all requests, each fault happens; at most one to a request. They add up to 1 at most.

    Result  `throttled` 429 and `unavailable` 503, with Retry-After, never forwarded; `cut` forwarded, then the
            connection ends without an answer; `halved` forwarded, then half the answer; `hung` never forwarded and
            never answered, until `FaultProxy.hang_s` are over; `unauthorized` 401, `conflict` 409, `precondition`
            412 and `failed` 500, never forwarded.
    """

    throttled: float = 0.0
    unavailable: float = 0.0
    cut: float = 0.0
    halved: float = 0.0
    hung: float = 0.0
    unanswered: float = 0.0
    unauthorized: float = 0.0
    conflict: float = 0.0
    precondition: float = 0.0
    failed: float = 0.0

    def __post_init__(self) -> None:
        if min(astuple(self)) < 0 or sum(astuple(self)) > 1 + 1e-9:
            raise ValueError("rates are 0 or more and add up to 1 at most")


class FaultProxy:
    """`url` stands for the server's; `rates`, and `delay_s` of what is forwarded, may be set at any time; `counts`
    tells what happened to how many requests.

    The names in `counts` are those of the rates, `forwarded` for what went through whole, and `unreachable` (502).
    The n-th request meets the n-th draw of the seed: with requests one after another a run repeats exactly.
    """

    def __init__(
        self, target: str, seed: int, rates: Rates, retry_after_s: int, hang_s: float, address: str = "127.0.0.1"
    ) -> None:
        split = urlsplit(target)
        self.host, self.port = str(split.hostname), split.port or 80
        self.rates, self.retry_after_s, self.hang_s, self.delay_s = rates, retry_after_s, hang_s, 0.0
        self.counts: Counter[str] = Counter()
        self._random, self._lock = random.Random(seed), threading.Lock()
        self._connections: set[socket.socket] = set()
        self.stopping = threading.Event()
        self._listener = _Listener((address, 0), _Handler)
        self._listener.proxy = self
        self._thread = threading.Thread(target=self._listener.serve_forever, kwargs={"poll_interval": 0.05})
        self.url = f"http://{address}:{self._listener.server_port}{split.path}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends what still hangs and every connection."""
        self.stopping.set()
        self._listener.shutdown()
        self._thread.join()
        with self._lock:
            for connection in self._connections:
                _shut(connection)
        self._listener.server_close()

    def drawn(self) -> tuple[str, bool]:
        """What happens to the next request, and whether Retry-After is a date rather than seconds."""
        with self._lock:
            at, as_date = self._random.random(), self._random.random() < 0.5
            for rate in fields(self.rates):
                at -= getattr(self.rates, rate.name)
                if at < 0:
                    return rate.name, as_date
            return "forwarded", as_date

    def count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1

    def opened(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.add(connection)
        if self.stopping.is_set():
            _shut(connection)

    def closed(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.discard(connection)


class _Listener(ThreadingHTTPServer):
    daemon_threads = False
    proxy: FaultProxy

    def server_bind(self) -> None:
        """Without asking anybody for the name of the address."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[0], self.server_address[1]

    def handle_error(self, *_: object) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener

    def setup(self) -> None:
        super().setup()
        self.server.proxy.opened(self.connection)

    def finish(self) -> None:
        self.server.proxy.closed(self.connection)
        with suppress(OSError):
            super().finish()

    def log_message(self, *_: object) -> None:
        return None

    def __getattr__(self, name: str) -> Any:
        """Every method goes the same way."""
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)

    def _serve(self) -> None:
        proxy = self.server.proxy
        if "Transfer-Encoding" in self.headers:
            self._answer(411, [("Connection", "close")], b"")  # bodies of unknown length are not forwarded
            self.close_connection = True
            with suppress(OSError):  # what is left unread would reset the connection, and the answer with it
                self.connection.settimeout(2)
                self.connection.shutdown(socket.SHUT_WR)
                while self.connection.recv(65_536):
                    pass
            return
        length = int(self.headers.get("Content-Length") or 0)
        content = self.rfile.read(length)
        if len(content) < length:  # who asked was killed while it asked: no server heeds a part of a request
            self._cut()
            return
        what, as_date = proxy.drawn()
        if what in _STATUS:
            proxy.count(what)
            wait = formatdate(time.time() + proxy.retry_after_s, usegmt=True) if as_date else str(proxy.retry_after_s)
            self._answer(_STATUS[what], [("Retry-After", wait)] if _STATUS[what] in (429, 503) else [], b"")
            return
        if what == "hung":
            proxy.count(what)
            proxy.stopping.wait(proxy.hang_s)
            self._cut()
            return
        proxy.stopping.wait(proxy.delay_s)
        try:
            status, headers, body = self._asked(content)
        except (OSError, http.client.HTTPException):
            proxy.count("unreachable")
            self._answer(502, [], b"")
            return
        proxy.count(what)
        if what == "unanswered":
            proxy.stopping.wait(proxy.hang_s)
        if what in ("cut", "unanswered"):
            self._cut()
        else:
            self._answer(status, headers, body, whole=what == "forwarded")

    def _asked(self, content: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """The server's answer: status, headers, content. It sees the proxy's address as its own, so links lead back."""
        upstream = http.client.HTTPConnection(self.server.proxy.host, self.server.proxy.port, timeout=120)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _OF_ONE_CONNECTION:
                    upstream.putheader(name, value)
            upstream.putheader("Content-Length", str(len(content)))
            upstream.endheaders(content)
            answer = upstream.getresponse()
            left_out = _OF_ONE_CONNECTION - ({"content-length"} if self.command == "HEAD" else set())
            headers = [(n, v) for n, v in answer.getheaders() if n.lower() not in left_out]
            return answer.status, headers, answer.read()
        finally:
            upstream.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, *, whole: bool = True) -> None:
        self.send_response_only(status)
        if not any(name.lower() == "date" for name, _ in headers):
            self.send_header("Date", self.date_time_string())
        for name, value in headers:
            self.send_header(name, value)
        if status not in (204, 304) and self.command != "HEAD":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if whole else body[: len(body) // 2])
        if not whole:
            self._cut()

    def _cut(self) -> None:
        self.close_connection = True
        _shut(self.connection)


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def running_fault_proxy(
    target: str,
    seed: int,
    rates: Rates | None = None,
    *,
    retry_after_s: int = 1,
    hang_s: float = 60.0,
    network: Namespace | None = None,
) -> Iterator[FaultProxy]:
    """A proxy before the server at `target`, until the block ends. Without rates it only forwards. With `network` it
    listens there, and forwards from here."""
    make = partial(FaultProxy, target, seed, rates or Rates(), retry_after_s, hang_s)
    proxy = network.inside(lambda: make(network.address)) if network is not None else make()
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
