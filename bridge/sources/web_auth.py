"""How the bridge signs in to an archive over HTTP: a password, a token, or a token it fetches for itself."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Generator
from typing import Any

import httpx

from bridge.errors import SourceUnavailable
from bridge.sources.web_client import packed_otherwise

REFRESH_BEFORE_S = 60.0
"""A token is renewed so long before it ends."""

TOKEN_BYTES = 1_048_576
DEFAULT_LIFETIME_S = 300.0


def sign_in(url: str, *, username: str = "", password: str = "", bearer_token: str = "") -> httpx.Auth | None:
    """Basic with a user name, bearer with a token, else nothing; sent to the origin of `url` alone."""
    if bearer_token:
        return _OneOrigin(url, f"Bearer {bearer_token}")
    return httpx.BasicAuth(username, password) if username else None


class _OneOrigin(httpx.Auth):
    """An Authorization header for one origin; other origins never see it."""

    def __init__(self, url: str, header: str) -> None:
        self._origin, self._header = origin(url), header

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if origin(str(request.url)) == self._origin:
            request.headers["Authorization"] = self._header
        yield request


class ClientCredentials(httpx.Auth):
    """OAuth2 client credentials (RFC 6749 4.4): a token is fetched, kept until shortly before its end, and fetched
    again once when the archive refuses it. The secret goes to `token_url`, the token to the origin of `url`.

    Raises SourceUnavailable when no token can be had; the message never quotes the server's answer.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        token_url: str,
        client_id: str,
        client_secret: str,
        scope: str = "",
        resource: str = "",
        tls: ssl.SSLContext | None = None,
        timeout_s: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._name, self._origin, self._token_url = name, origin(url), token_url
        form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": client_secret}
        optional = {"scope": scope, "resource": resource}
        self._form = form | {key: value for key, value in optional.items() if value}
        self._client = httpx.Client(
            verify=tls if tls is not None else True,
            timeout=timeout_s,
            follow_redirects=False,
            trust_env=False,
            transport=transport,
        )
        self._lock = threading.Lock()
        self._token, self._until = "", 0.0

    def close(self) -> None:
        self._client.close()

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if origin(str(request.url)) != self._origin:
            yield request
            return
        token = self._current()
        request.headers["Authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code == 401:
            request.headers["Authorization"] = f"Bearer {self._current(refused=token)}"
            yield request

    def _current(self, refused: str = "") -> str:
        """A token that is not the refused one and still lives for a while."""
        with self._lock:
            if not self._token or self._token == refused or time.monotonic() >= self._until:
                self._token, lifetime_s = self._fetched()
                self._until = time.monotonic() + max(lifetime_s - REFRESH_BEFORE_S, lifetime_s / 2)
            return self._token

    def _fetched(self) -> tuple[str, float]:
        try:
            with self._client.stream("POST", self._token_url, data=self._form) as response:
                if response.status_code != 200:
                    raise self._unavailable(
                        f"HTTP {response.status_code}: check oauth.client_id, oauth.client_secret and oauth.scope"
                    )
                if packed_otherwise(response):
                    raise self._unavailable("its answer is packed in another way than gzip")
                content = b""
                for chunk in response.iter_bytes():
                    content += chunk
                    if len(content) > TOKEN_BYTES:
                        raise self._unavailable("its answer is too large")
            return self._read(httpx.Response(200, content=content))
        except httpx.HTTPError as error:
            raise self._unavailable(f"cannot be reached ({type(error).__name__})") from None

    def _read(self, response: httpx.Response) -> tuple[str, float]:
        try:
            answer: Any = response.json()
            token, lifetime = answer["access_token"], answer.get("expires_in", DEFAULT_LIFETIME_S)
            lifetime_s = float(lifetime)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise self._unavailable("its answer holds no access_token") from None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise self._unavailable("its answer holds no usable access_token")
        return token, lifetime_s

    def _unavailable(self, problem: str) -> SourceUnavailable:
        return SourceUnavailable(f"source {self._name}: the token endpoint (oauth.token_url): {problem}")


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port of an address: what credentials belong to (RFC 6454)."""
    parsed = httpx.URL(url)
    port = parsed.port or {"http": 80, "https": 443}.get(parsed.scheme)
    return parsed.scheme, parsed.host, port
