"""Speaks HTTP with one archive: bounded answers, and every failure told as what the operator can do about it."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import orjson

from bridge.errors import SourceUnavailable
from bridge.sources.json_array import NotAnArray, array_items
from bridge.web.answers import TooLarge, Unusable, bounded, check_address, explained, retry_after
from bridge.web.multipart import Damaged, boundary, first_part
from bridge.web.owner import Owner

Transport = httpx.BaseTransport
Parameters = Mapping[str, str | int] | Sequence[tuple[str, str | int]]
"""Query parameters; pairs where one is repeated."""

ANSWER_BYTES = 268_435_456
"""The largest REST answer read into memory: the largest asked for lists 200 series with their instances."""

ARRAY_BYTES = 1_073_741_824
"""The largest streamed answer: the metadata of about 55,000 CT slices."""

_MULTIPART_BYTES = 2_097_152
"""So much more than one part may come of a multipart answer: headers of parts, and the last chunk."""

ITEM_CHARACTERS = 268_435_456

KEEP_IDLE_S = 0.5
"""Orthanc closes an idle connection after one second; a request sent at that moment would be lost."""

NOTHING = frozenset({404, 410})
"""What a server answers when there is nothing under a path."""

TOO_LARGE = 413
"""Content Too Large (RFC 9110 15.5.14): said by a peer, and of an answer larger than we read."""


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
        check_address(Owner.source(name), url)
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

    def content(self, path: str, accept: str, most_bytes: int) -> bytes | None:
        """The first so many bytes under a path: of a multipart answer, of its first part. None when nothing is there.

        What is larger is not read to its end.
        """
        with self._answer("GET", path, (), accept) as response:
            if response is None or response.status_code == 204:
                return None
            chunks = self._chunks(response, most_bytes + _MULTIPART_BYTES)
            found = bytearray()
            try:
                mark = boundary(response.headers.get("content-type", ""))
                for chunk in chunks if mark is None else first_part(chunks, mark):
                    found += chunk
                    if len(found) >= most_bytes:
                        break
            except Damaged as problem:
                raise self._unreadable(f"the answer is damaged: {problem}") from None
            return bytes(found[:most_bytes])

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
        return bounded(response, most, self._timeout_s)

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
                    yield response
                else:
                    raise self._refused(response)
        except httpx.HTTPError as error:
            said = explained(error, setting=self._setting, product=self._product, timeout_s=self._timeout_s)
            raise self.unavailable(said) from None
        except TooLarge as problem:
            raise Refusal(str(self.unavailable(str(problem))), TOO_LARGE) from None
        except Unusable as problem:
            raise self.unavailable(str(problem)) from None

    def _refused(self, response: httpx.Response) -> SourceUnavailable:
        code = response.status_code
        hint = _HINTS.get(code, "").format(product=self._product, setting=self._setting)
        if 300 <= code < 400:
            hint = f": redirects are not followed; set {self._setting} to the final address"
        return Refusal(str(self.unavailable(f"HTTP {code}{hint}")), code, retry_after(response))


_HINTS = {
    401: ": username or password not accepted, or the token",
    403: ": this user may not do this; check the user's rights in {product} or in the proxy before it",
    400: ": the request is not understood; check that {setting} is the address of {product}",
    404: ": there is no such path; check that {setting} is the address of {product}",
    405: ": {product}, or a proxy before it, does not allow this method here",
    429: ": too many requests",
    503: ": {product}, or a proxy before it, cannot answer now",
}
