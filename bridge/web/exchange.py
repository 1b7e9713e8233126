"""POSTs to one peer: one request, one bounded answer, whatever its status."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from bridge.errors import SinkUnavailable
from bridge.web.answers import Unusable, bounded, check_address, explained, retry_after
from bridge.web.owner import Owner

_HINTS = {
    401: ": the credentials are not accepted",
    403: ": the account may not do this; check its rights",
    404: ": there is nothing under this address; check {setting}",
    405: ": {product} does not take this under this address; check {setting}",
    429: ": too many requests",
}
NOT_NOW = frozenset({401, 403, 404, 405, 407, 408, 425, 429, 502, 503, 504})
"""Besides 3xx: what says nothing of the content, and may be another answer once somebody saw to it."""


class Doubtful(SinkUnavailable):
    """The peer failed at this request. Whether it fails at others too tells if the request or the peer is at fault."""


@dataclass(frozen=True)
class Answer:
    """What a peer answered. `retry_after_s` seconds that it asks to wait, or None."""

    status: int
    content: bytes
    retry_after_s: float | None = None


class Exchange:
    """One peer under one address; redirects are not followed and no proxy is used, so that nothing goes elsewhere.

    `product` is what the operator calls the peer, `setting` the setting its address stands in. Safe to use from several
    threads. Raises ConfigError when `url` is no address; the owner's Unavailable when no answer can be had, and for
    every answer that says nothing of what was sent; Doubtful where that may be the fault of what was sent.
    """

    def __init__(
        self,
        owner: Owner,
        url: str,
        *,
        product: str,
        setting: str = "url",
        auth: httpx.Auth | None = None,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = 60.0,
        most_bytes: int = 4_194_304,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        check_address(owner, url)
        self._owner, self._url, self._timeout_s, self._most = owner, url.rstrip("/"), timeout_s, most_bytes
        self._named = {"product": product, "setting": setting}
        self._client = httpx.Client(
            auth=auth,
            verify=tls if tls is not None else True,
            timeout=timeout_s,
            headers={"Accept-Encoding": "gzip", "User-Agent": "imaging-bridge"},
            follow_redirects=False,
            transport=transport,
            trust_env=False,
        )

    def close(self) -> None:
        self._client.close()

    def post(self, path: str, content: bytes, headers: Mapping[str, str]) -> Answer:
        """The answer to a POST below the address."""
        try:
            with self._client.stream("POST", self._url + path, content=content, headers=dict(headers)) as response:
                status, wait_s = response.status_code, retry_after(response)
                if status in NOT_NOW or 300 <= status < 400:
                    raise self._owner.unavailable(self._said(status), wait_s)
                if status >= 500:
                    raise Doubtful(f"{self._owner}: {self._said(status)}", wait_s)
                return Answer(status, b"".join(bounded(response, self._most, self._timeout_s)), wait_s)
        except httpx.HTTPError as error:
            said = explained(error, timeout_s=self._timeout_s, **self._named)
            if isinstance(error, httpx.ReadTimeout | httpx.ReadError | httpx.RemoteProtocolError | httpx.DecodingError):
                raise Doubtful(f"{self._owner}: {said}") from None
            raise self._owner.unavailable(said) from None
        except Unusable as problem:
            raise Doubtful(f"{self._owner}: {problem}") from None

    def _said(self, status: int) -> str:
        moved = f": redirects are not followed; set {self._named['setting']} to the final address"
        hint = moved if 300 <= status < 400 else _HINTS.get(status, "").format(**self._named)
        return f"HTTP {status}{hint}"
