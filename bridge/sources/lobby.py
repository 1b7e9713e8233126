"""Where connections wait until they have asked for an association: one thread, however many peers are silent.

A connection costs a descriptor and at most one request's bytes here. TLS handshakes happen here too, without blocking.
When there are too many, the one that has waited longest goes, so that a newcomer always gets in.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from bridge.sources.association import Peer
from bridge.sources.upper_layer import HEADER, MAXIMUM_REQUEST, Pdu

log = logging.getLogger("bridge.receiver")

REQUEST_S = 5.0
"""So long a connection may take for its TLS handshake and its A-ASSOCIATE-RQ."""

BACKLOG = 4096
ACCEPTED_AT_ONCE = 256
_TICK_S = 0.5


@dataclass(eq=False)
class _Waiting:
    connection: socket.socket
    peer: Peer
    expires_at: float
    request: bytearray = field(default_factory=bytearray)
    shaking_hands: bool = False
    interest: int = selectors.EVENT_READ


class Lobby:
    """Accepts on a listening socket. `arrived(connection, peer, request)` gets each whole A-ASSOCIATE-RQ and must
    return at once; `dropped(peer, reason)` is told of each connection that asked for nothing useful."""

    def __init__(
        self,
        listener: socket.socket,
        arrived: Callable[[socket.socket, Peer, bytes], None],
        dropped: Callable[[Peer, str], None],
        *,
        maximum: int,
        tls: ssl.SSLContext | None = None,
        request_s: float = REQUEST_S,
    ) -> None:
        self._listener, self._arrived, self._dropped = listener, arrived, dropped
        self._maximum, self._tls, self._request_s = maximum, tls, request_s
        self._waiting: dict[socket.socket, _Waiting] = {}
        self._selector = selectors.DefaultSelector()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lobby", daemon=True)

    def start(self) -> None:
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=10)
        for waiting in list(self._waiting.values()):
            self._forget(waiting)
            waiting.connection.close()
        self._selector.close()
        self._listener.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            for key, _ in self._selector.select(_TICK_S):
                if key.data is None:
                    self._accept()
                else:
                    self._go_on(key.data)
            self._drop_late()

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connection, address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                log.warning("a connection could not be accepted: %s", error.strerror)
                self._drop_oldest()
                return
            while len(self._waiting) >= self._maximum:
                self._drop_oldest()
            self._admit(connection, Peer(str(address[0])))

    def _admit(self, connection: socket.socket, peer: Peer) -> None:
        connection.setblocking(False)
        if self._tls is not None:
            try:
                connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            except OSError:
                connection.close()
                return
        waiting = _Waiting(connection, peer, time.monotonic() + self._request_s, shaking_hands=self._tls is not None)
        self._waiting[connection] = waiting
        self._selector.register(connection, waiting.interest, waiting)

    def _go_on(self, waiting: _Waiting) -> None:
        if waiting.connection not in self._waiting:
            return  # dropped to make room while this round went on
        try:
            if waiting.shaking_hands:
                self._shake_hands(waiting)
            if not waiting.shaking_hands:
                self._read(waiting)
        except (BlockingIOError, ssl.SSLWantReadError):
            self._wait_for(waiting, selectors.EVENT_READ)
        except ssl.SSLWantWriteError:
            self._wait_for(waiting, selectors.EVENT_WRITE)
        except ssl.SSLError:
            self._drop(waiting, "the TLS handshake failed")
        except OSError:
            self._drop(waiting, "the connection was lost before a request")

    def _shake_hands(self, waiting: _Waiting) -> None:
        connection: Any = waiting.connection
        connection.do_handshake()
        waiting.shaking_hands = False
        certificate = connection.getpeercert(binary_form=True) or b""
        names = names_of(certificate, connection.getpeercert() or {})
        waiting.peer = Peer(waiting.peer.address, certificate, names)

    def _read(self, waiting: _Waiting) -> None:
        """Reads on; never past the request, so that what follows is the association's to read."""
        request = waiting.request
        while True:
            wanted = HEADER if len(request) < HEADER else HEADER + int.from_bytes(request[2:6], "big")
            found = waiting.connection.recv(wanted - len(request))
            if not found:
                self._drop(waiting, "closed before a request")
                return
            request += found
            if request[0] != Pdu.ASSOCIATE_RQ:
                self._drop(waiting, "not a DICOM association request")
                return
            if len(request) < HEADER:
                continue
            length = int.from_bytes(request[2:6], "big")
            if not 68 <= length <= MAXIMUM_REQUEST:
                self._drop(waiting, "an association request of impossible length")
                return
            if len(request) == HEADER + length:
                self._forget(waiting)
                self._arrived(waiting.connection, waiting.peer, bytes(request))
                return

    def _wait_for(self, waiting: _Waiting, interest: int) -> None:
        if waiting.interest != interest:
            waiting.interest = interest
            self._selector.modify(waiting.connection, interest, waiting)

    def _drop_late(self) -> None:
        now = time.monotonic()
        for waiting in list(self._waiting.values()):  # in order of arrival, so in order of expiry
            if waiting.expires_at > now:
                return
            self._drop(waiting, "no request in time")

    def _drop_oldest(self) -> None:
        oldest = next(iter(self._waiting.values()), None)
        if oldest is not None:
            self._drop(oldest, "no request, and others waited")

    def _drop(self, waiting: _Waiting, reason: str) -> None:
        self._forget(waiting)
        waiting.connection.close()
        self._dropped(waiting.peer, reason)

    def _forget(self, waiting: _Waiting) -> None:
        self._waiting.pop(waiting.connection, None)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(waiting.connection)


def names_of(certificate: bytes, decoded: Mapping[str, Any]) -> frozenset[str]:
    """What a certificate's holder may be called: `sha256:…` of it, its common names and its DNS names (RFC 5280)."""
    if not certificate:
        return frozenset()
    common = {value for part in decoded.get("subject", ()) for kind, value in part if kind == "commonName"}
    other = {value for kind, value in decoded.get("subjectAltName", ()) if kind == "DNS"}
    return frozenset({f"sha256:{sha256(certificate).hexdigest()}"} | common | other)
