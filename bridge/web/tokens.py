"""Access tokens that the bridge fetches for itself (RFC 6749): one endpoint, and the header made of its answer."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

from bridge.errors import Unavailable
from bridge.web.answers import Unusable, bounded, explained, origin, retry_after, same_origin
from bridge.web.owner import Owner

REFRESH_BEFORE_S = 60.0
"""A token is renewed so long before it ends; one that lives shorter than twice that, at half its life."""

TOKEN_BYTES = 1_048_576
DEFAULT_LIFETIME_S = 300.0
LONGEST_LIFETIME_S = 86_400.0

ERRORS = frozenset(
    {
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
    }
)
"""RFC 6749 5.2. Nothing else of what a token endpoint says about an error is repeated."""


@dataclass(frozen=True)
class Token:
    """An access token, how long it lives, and the scope it was given for ("" where the answer does not say)."""

    value: str
    lifetime_s: float
    scope: str


class TokenEndpoint:
    """Asks for the tokens of the server at `url`. `setting` is where the endpoint's address stands, `check` what to
    look at on a refusal.

    `tls` is shown to the origin of `url`, `token_tls` to token endpoints elsewhere: our certificate stays with the
    server it is for. Redirects are not followed and the environment's proxies not used.
    """

    def __init__(
        self,
        owner: Owner,
        url: str,
        *,
        setting: str,
        check: str,
        tls: ssl.SSLContext | None = None,
        token_tls: ssl.SSLContext | None = None,
        timeout_s: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._owner, self._url, self._setting, self._check = owner, url, setting, check
        self._timeout_s = timeout_s
        self._here = json_client(tls, timeout_s, transport)
        self._elsewhere = json_client(token_tls, timeout_s, transport)

    def close(self) -> None:
        self._here.close()
        self._elsewhere.close()

    def token(
        self, url: str, form: Mapping[str, str], why: Callable[[httpx.Response], str] = lambda _response: ""
    ) -> Token:
        """The token for a form. `why` may know better what a refusal comes from than `check`; "" when it does not.

        Raises  the owner's Unavailable; the message never quotes the server's answer
        """
        client = self._here if same_origin(url, self._url) else self._elsewhere
        try:
            with client.stream("POST", url, data=form) as response:
                if response.status_code != 200:
                    raise self._refused(response, why(response))
                return self._read(self._content(response))
        except Unusable as problem:
            raise self.unavailable(str(problem)) from None
        except httpx.HTTPError as error:
            said = explained(
                error, setting=self._setting, product="the authorization server", timeout_s=self._timeout_s
            )
            raise self.unavailable(said) from None

    def unavailable(self, problem: str, retry_after_s: float | None = None) -> Unavailable:
        return self._owner.unavailable(f"the token endpoint ({self._setting}): {problem}", retry_after_s)

    def _content(self, response: httpx.Response) -> bytes:
        return b"".join(bounded(response, TOKEN_BYTES, self._timeout_s))

    def _refused(self, response: httpx.Response, why: str) -> Unavailable:
        code = response.status_code
        if 300 <= code < 400:
            return self.unavailable(
                f"HTTP {code}: redirects are not followed; set {self._setting} to the final address"
            )
        if code == 429 or code >= 500:
            return self.unavailable(f"HTTP {code}: it cannot answer now", retry_after(response))
        said = ""
        with suppress(Unusable):
            said = _error(self._content(response))
        return self.unavailable(f"HTTP {code}{f' {said}' if said else ''}: {why or f'check {self._check}'}")

    def _read(self, content: bytes) -> Token:
        try:
            answer: Any = orjson.loads(content)
            value, scope = answer["access_token"], answer.get("scope", "")
            lifetime_s = float(answer.get("expires_in", DEFAULT_LIFETIME_S))
            kind = answer.get("token_type", "bearer")
        except (ValueError, TypeError, KeyError, AttributeError):
            raise self.unavailable("its answer holds no access_token") from None
        if not isinstance(value, str) or not value.isascii() or not value.isprintable() or not value:
            raise self.unavailable("its answer holds no usable access_token")
        if not isinstance(kind, str) or kind.lower() != "bearer":
            raise self.unavailable("its answer holds no token of token_type bearer")
        lifetime_s = min(max(lifetime_s, 0.0), LONGEST_LIFETIME_S)
        return Token(value, lifetime_s, scope if isinstance(scope, str) else "")


class FetchedToken(httpx.Auth):
    """A bearer token for the origin of `url`: fetched, kept until shortly before its end, and fetched again once when
    the server refuses it (401). Other origins never see it. Safe to use from several threads.

    `fetch` gives a token and raises what the request is to raise.
    """

    def __init__(self, url: str, fetch: Callable[[], Token]) -> None:
        self._origin, self._fetch = origin(url), fetch
        self._lock = threading.Lock()
        self._token, self._until = "", 0.0

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if origin(str(request.url)) != self._origin:
            yield request
            return
        token = self._current()
        request.headers["Authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code == 401:
            _unread(response)
            request.headers["Authorization"] = f"Bearer {self._current(refused=token)}"
            yield request

    def _current(self, refused: str = "") -> str:
        """A token that is not the refused one and still lives for a while."""
        with self._lock:
            if not self._token or self._token == refused or time.monotonic() >= self._until:
                asked = time.monotonic()
                fetched = self._fetch()
                self._token = fetched.value
                self._until = asked + max(fetched.lifetime_s - REFRESH_BEFORE_S, fetched.lifetime_s / 2)
            return self._token


def json_client(tls: ssl.SSLContext | None, timeout_s: float, transport: httpx.BaseTransport | None) -> httpx.Client:
    """A client that asks for JSON, follows no redirect and uses no proxy of the environment."""
    return httpx.Client(
        verify=tls if tls is not None else True,
        timeout=timeout_s,
        headers={"Accept": "application/json", "Accept-Encoding": "gzip"},
        follow_redirects=False,
        trust_env=False,
        transport=transport,
    )


def _unread(response: httpx.Response) -> None:
    """Throws the content away. httpx would read all of it, however long it is, before it asks again."""
    if isinstance(response.stream, httpx.SyncByteStream):
        response.stream.close()
        response.stream = httpx.ByteStream(b"")


def _error(content: bytes) -> str:
    """The error code of RFC 6749 5.2, where it is one of them."""
    try:
        answer: Any = orjson.loads(content)
    except orjson.JSONDecodeError:
        return ""
    said = answer.get("error") if isinstance(answer, dict) else None
    return said if isinstance(said, str) and said in ERRORS else ""
