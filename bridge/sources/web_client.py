"""Speaks HTTP with one archive: bounded answers, and every failure told as what the operator can do about it."""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import orjson

from bridge.errors import ConfigError, SourceUnavailable
from bridge.sources.json_array import NotAnArray, array_items

logging.getLogger("httpx").setLevel(logging.WARNING)  # its INFO lines quote whole URLs
logging.getLogger("httpcore").setLevel(logging.WARNING)

Transport = httpx.BaseTransport
Parameters = Mapping[str, str | int] | Sequence[tuple[str, str | int]]
"""Query parameters; pairs where one is repeated."""

ANSWER_BYTES = 268_435_456
"""The largest REST answer read into memory: the largest asked for lists 200 series with their instances."""

ARRAY_BYTES = 1_073_741_824
"""The largest streamed answer: the metadata of about 55,000 CT slices."""

ITEM_CHARACTERS = 268_435_456
TIMEOUTS_PER_ANSWER = 10
"""A peer that keeps sending, but slowly, is given up after so many times `timeout_s`."""

KEEP_IDLE_S = 0.5
"""Orthanc closes an idle connection after one second; a request sent at that moment would be lost."""

NOTHING = frozenset({404, 410})
"""What a server answers when there is nothing under a path."""

COMPRESSED = frozenset({"", "identity", "gzip"})
"""What an answer may be packed in, once. httpx unpacks every layer that an answer names, a chunk at a time: gzip in
gzip makes terabytes of one chunk."""

TOO_LARGE = 413
"""Content Too Large (RFC 9110 15.5.14): said by a peer, and of an answer larger than we read."""

_LONGEST_WAIT_S = 3600.0


class UnreadableAnswer(SourceUnavailable):
    """A whole answer came, but it is not the JSON that was asked for."""


class Refusal(SourceUnavailable):
    """The peer answered, but not with what was asked for. `code` is the HTTP status."""

    def __init__(self, message: str, code: int, retry_after_s: float | None = None) -> None:
        super().__init__(message, retry_after_s)
        self.code = code


class WebClient:
    """GET, POST and streamed GET under one base address. Safe to use from several threads.

    `product` is what the operator calls the peer, `setting` the setting its address stands in. Redirects are not
    followed and the environment's proxies not used, so that credentials go to `url` only.
    Raises ConfigError when `url` is not an address, SourceUnavailable when an answer cannot be had.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        product: str,
        setting: str = "url",
        auth: httpx.Auth | None = None,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = 60.0,
        transport: Transport | None = None,
    ) -> None:
        self._name, self._url, self._timeout_s = name, url.rstrip("/"), timeout_s
        self._product, self._setting = product, setting
        _check_address(name, url)
        self._client = httpx.Client(
            auth=auth,
            verify=tls if tls is not None else True,
            timeout=timeout_s,
            headers={"Accept-Encoding": "gzip"},
            limits=httpx.Limits(keepalive_expiry=KEEP_IDLE_S),
            follow_redirects=False,
            transport=transport,
            trust_env=False,
        )

    def close(self) -> None:
        self._client.close()

    def get(
        self,
        path: str,
        parameters: Parameters = (),
        accept: str = "application/json",
        nothing: frozenset[int] = NOTHING,
    ) -> Any:
        """The JSON under a path; None when there is nothing (204, and the statuses of `nothing`)."""
        with self._answer("GET", path, parameters, accept, nothing=nothing) as response:
            return None if response is None or response.status_code == 204 else self._parsed(response)

    def post(self, path: str, text: str) -> Any:
        """The JSON answer to a text; None when nothing is there (404)."""
        with self._answer("POST", path, {}, "application/json", text) as response:
            return None if response is None or response.status_code == 204 else self._parsed(response)

    def each(
        self,
        path: str,
        accept: str,
        visit: Callable[[Any], None],
        parameters: Parameters = (),
        answered: Callable[[Mapping[str, str]], None] = lambda _headers: None,
    ) -> int | None:
        """Visits every item of a JSON array while it arrives; how many there were (204: 0), None for 404 and 410.

        `answered` is shown the answer's headers before the first item.
        """
        count = 0
        with self._answer("GET", path, parameters, accept) as response:
            if response is None:
                return None
            answered(response.headers)
            if response.status_code == 204:
                return 0
            if "xml" in response.headers.get("content-type", "").lower():
                raise self._unreadable(f"the answer is XML instead of JSON: {self._product} must honour Accept")
            try:
                for item in array_items(self._chunks(response, ARRAY_BYTES), ITEM_CHARACTERS):
                    visit(item)
                    count += 1
            except NotAnArray as problem:
                raise self._unreadable(f"the answer is not the JSON list that was asked for: {problem}") from None
        return count

    def unavailable(self, problem: str, retry_after_s: float | None = None) -> SourceUnavailable:
        """The error for a problem, naming the source."""
        return SourceUnavailable(f"source {self._name}: {problem}", retry_after_s)

    def _unreadable(self, problem: str) -> UnreadableAnswer:
        return UnreadableAnswer(f"source {self._name}: {problem}")

    def _parsed(self, response: httpx.Response) -> Any:
        content = b"".join(self._chunks(response, ANSWER_BYTES))
        try:
            return orjson.loads(content)
        except orjson.JSONDecodeError:
            html = content.lstrip()[:1] == b"<"
            kind = "HTML instead of JSON: a proxy or a login page answers" if html else "not JSON"
            raise self._unreadable(
                f"the answer is {kind}; check that {self._setting} is the address of {self._product}"
            ) from None

    def _chunks(self, response: httpx.Response, most: int) -> Iterator[bytes]:
        until, size = time.monotonic() + TIMEOUTS_PER_ANSWER * self._timeout_s, 0
        for chunk in response.iter_bytes():
            size += len(chunk)
            if size > most:
                problem = f"an answer is larger than {most >> 20} MiB: refused"
                raise Refusal(str(self.unavailable(problem)), TOO_LARGE)
            if time.monotonic() > until:
                raise self.unavailable("an answer arrives too slowly: given up; check the network, or raise timeout_s")
            yield chunk

    @contextmanager
    def _answer(
        self,
        method: str,
        path: str,
        parameters: Parameters,
        accept: str,
        text: str | None = None,
        nothing: frozenset[int] = NOTHING,
    ) -> Iterator[httpx.Response | None]:
        """The response to read from, or None for `nothing`. What goes wrong while reading is translated as well."""
        pairs = list(parameters.items() if isinstance(parameters, Mapping) else parameters)
        request: dict[str, Any] = {"params": pairs, "headers": {"Accept": accept}}
        if text is not None:
            request["content"] = text.encode()
        try:
            with self._client.stream(method, self._url + path, **request) as response:
                if response.status_code in nothing:
                    yield None
                elif response.status_code in {200, 204}:
                    if packed_otherwise(response):
                        raise self.unavailable("the answer is packed in another way than gzip: refused")
                    yield response
                else:
                    raise self._refused(response)
        except httpx.HTTPError as error:
            raise self.unavailable(self._explained(error)) from None

    def _refused(self, response: httpx.Response) -> SourceUnavailable:
        code = response.status_code
        hint = _HINTS.get(code, "").format(product=self._product, setting=self._setting)
        if 300 <= code < 400:
            hint = f": redirects are not followed; set {self._setting} to the final address"
        return Refusal(str(self.unavailable(f"HTTP {code}{hint}")), code, _retry_after(response))

    def _explained(self, error: httpx.HTTPError) -> str:
        """What went wrong, from the type and its causes; never the error's own text, which may quote the URL."""
        causes = list(_causes(error))
        if isinstance(error, httpx.ConnectTimeout):
            return f"no connection within {self._timeout_s:g} s (timeout_s): check {self._setting} and the network"
        if isinstance(error, httpx.TimeoutException):
            return f"no answer within {self._timeout_s:g} s (timeout_s)"
        if any(isinstance(c, ssl.SSLError) for c in causes):
            return f"the TLS connection failed: check the certificates, and http or https in {self._setting}"
        if any(isinstance(c, socket.gaierror) for c in causes):
            return f"the host name in {self._setting} is not known"
        if any(isinstance(c, ConnectionRefusedError) for c in causes):
            return f"connection refused: is {self._product} running, and its port the one in {self._setting}?"
        if isinstance(error, httpx.DecodingError):
            return "the answer's compression is damaged"
        if isinstance(error, httpx.ReadError | httpx.WriteError | httpx.CloseError | httpx.RemoteProtocolError):
            return "the connection was cut before the answer was complete"
        return f"cannot be reached ({type(error).__name__}): check {self._setting} and the network"


def packed_otherwise(response: httpx.Response) -> bool:
    """Whether the answer's content is packed as it must not be: it is then not to be read."""
    return response.headers.get("content-encoding", "").strip().lower() not in COMPRESSED


def _check_address(name: str, url: str) -> None:
    try:
        port = httpx.URL(url).port
    except httpx.InvalidURL:
        port = 0
    if port is not None and not 0 < port <= 65_535:
        raise ConfigError(f"source {name}: url is not a valid address; allowed: http://HOST:PORT, PORT 1 to 65535")


_HINTS = {
    401: ": username or password not accepted, or the token",
    403: ": this user may not do this; check the user's rights in {product} or in the proxy before it",
    400: ": the request is not understood; check that {setting} is the address of {product}",
    404: ": there is no such path; check that {setting} is the address of {product}",
    405: ": {product}, or a proxy before it, does not allow this method here",
    429: ": too many requests",
    503: ": {product}, or a proxy before it, cannot answer now",
}


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds that the peer asks to wait (RFC 9110 10.2.3), an hour at most; None when it does not say."""
    value = response.headers.get("retry-after", "")
    if value.isascii() and value.isdigit():
        return min(float(value), _LONGEST_WAIT_S)
    try:
        asked = parsedate_to_datetime(value).timestamp()
        sent = parsedate_to_datetime(response.headers.get("date", "")).timestamp()
    except (TypeError, ValueError):
        return None
    return min(max(asked - sent, 0.0), _LONGEST_WAIT_S)
