"""Sends notifications to the endpoints of subscriptions by HTTP. What a receiver answers is hardly looked at."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Protocol

import httpx

from bridge.errors import SinkUnavailable

logging.getLogger("httpx").setLevel(logging.WARNING)  # its INFO lines quote whole URLs
logging.getLogger("httpcore").setLevel(logging.WARNING)

ANSWER_BYTES = 65_536
"""Of an answer's content so much is read, so that the connection can be used again; then it is closed."""

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
            follow_redirects=False, trust_env=False, transport=transport, headers={"User-Agent": "imaging-bridge"}
        )

    def close(self) -> None:
        self._client.close()

    def send(self, method: str, url: str, headers: Sequence[tuple[str, str]], content: bytes, timeout_s: float) -> None:
        """Any 2xx means that the receiver took it. Raises SinkUnavailable, saying why it did not."""
        until = time.monotonic() + timeout_s
        try:
            with self._client.stream(
                method, url, headers=list(headers), content=content, timeout=timeout_s
            ) as response:
                if not response.is_success:
                    raise SinkUnavailable(_refusal(response.status_code), _retry_after(response))
                _finish(response, until)
        except httpx.TimeoutException:
            raise SinkUnavailable(f"no answer within {timeout_s:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise SinkUnavailable(f"cannot be reached ({type(error).__name__})") from None


def _finish(response: httpx.Response, until: float) -> None:
    """Reads a short answer to its end; what is longer, slower or broken is left."""
    size = 0
    try:
        for chunk in response.iter_raw():
            size += len(chunk)
            if size > ANSWER_BYTES or time.monotonic() > until:
                return
    except httpx.HTTPError:
        return


def _refusal(code: int) -> str:
    return f"HTTP {code}: redirects are not followed" if 300 <= code < 400 else f"HTTP {code}"


def _retry_after(response: httpx.Response) -> float | None:
    value = response.headers.get("retry-after", "")
    return min(float(value), LONGEST_RETRY_AFTER_S) if value.isascii() and value.isdigit() else None
