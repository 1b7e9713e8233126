"""Sends notifications to the endpoints of subscriptions by HTTP. Of an answer only the status is read."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

import httpx

from bridge.errors import SinkUnavailable

logging.getLogger("httpx").setLevel(logging.WARNING)  # its INFO lines quote whole URLs
logging.getLogger("httpcore").setLevel(logging.WARNING)

DEADLINE_TIMEOUTS = 3
"""A receiver that sends its answer bit by bit is cut off after so many times the timeout."""

LONGEST_RETRY_AFTER_S = 3600.0


class Hook(Protocol):
    """How a receiver is told something."""

    def send(self, method: str, url: str, headers: Sequence[tuple[str, str]], content: bytes, timeout_s: float) -> None:
        """Returns when the receiver took it. Raises SinkUnavailable, saying why it did not."""
        ...


class RestHook:
    """The channel rest-hook. Redirects are not followed and no proxy is used: what is sent goes to the URL only."""

    def __init__(self, transport: httpx.BaseTransport | None = None) -> None:
        self._client = httpx.Client(
            follow_redirects=False,
            trust_env=False,
            transport=transport,
            headers={"User-Agent": "imaging-bridge"},
            limits=httpx.Limits(max_keepalive_connections=0),  # each request makes the connection that it may cut
        )

    def close(self) -> None:
        self._client.close()

    def send(self, method: str, url: str, headers: Sequence[tuple[str, str]], content: bytes, timeout_s: float) -> None:
        """Any 2xx means that the receiver took it. Raises SinkUnavailable, saying why it did not."""
        deadline = _Deadline(DEADLINE_TIMEOUTS * timeout_s)
        try:
            with (
                deadline,
                self._client.stream(
                    method,
                    url,
                    headers=list(headers),
                    content=content,
                    timeout=timeout_s,
                    extensions={"trace": deadline.trace},
                ) as response,
            ):
                if not response.is_success:
                    raise SinkUnavailable(_refusal(response.status_code), _retry_after(response))
        except httpx.TimeoutException:
            raise SinkUnavailable(f"no answer within {timeout_s:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            problem = "answers too slowly" if deadline.over else f"cannot be reached ({type(error).__name__})"
            raise SinkUnavailable(problem) from None


class _Deadline:
    """Cuts the connection of one request when its time is over, whatever arrives until then."""

    def __init__(self, seconds: float) -> None:
        self.over = False
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Told by the HTTP library what happens: remembers the connection."""
        if event in {"connection.connect_tcp.complete", "connection.start_tls.complete"}:
            self._socket = info["return_value"].get_extra_info("socket")
            if self.over:
                self._cut()

    def _cut(self) -> None:
        self.over = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


def _refusal(code: int) -> str:
    return f"HTTP {code}: redirects are not followed" if 300 <= code < 400 else f"HTTP {code}"


def _retry_after(response: httpx.Response) -> float | None:
    value = response.headers.get("retry-after", "")
    return min(float(value), LONGEST_RETRY_AFTER_S) if value.isascii() and value.isdigit() else None
