"""How the bridge signs in over HTTP with a password, a token, or a client secret. Credentials stay with one origin."""

from __future__ import annotations

import ssl
from base64 import b64encode
from collections.abc import Generator

import httpx

from bridge.web.answers import origin
from bridge.web.owner import Owner
from bridge.web.tokens import FetchedToken, Token, TokenEndpoint


def sign_in(url: str, *, username: str = "", password: str = "", bearer_token: str = "") -> httpx.Auth | None:
    """Basic with a user name (RFC 7617), bearer with a token, else nothing; sent to the origin of `url` alone."""
    if bearer_token:
        return _OneOrigin(url, f"Bearer {bearer_token}")
    if username:
        return _OneOrigin(url, f"Basic {b64encode(f'{username}:{password}'.encode()).decode()}")
    return None


class _OneOrigin(httpx.Auth):
    """An Authorization header for one origin; other origins never see it."""

    def __init__(self, url: str, header: str) -> None:
        self._origin, self._header = origin(url), header

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if origin(str(request.url)) == self._origin:
            request.headers["Authorization"] = self._header
        yield request


class ClientCredentials(FetchedToken):
    """OAuth2 client credentials (RFC 6749 4.4): the secret goes to `token_url`, the token to the origin of `url`.

    `tls` is shown to the origin of `url`, `token_tls` to a token endpoint elsewhere.

    Raises the owner's Unavailable when no token can be had; the message never quotes the server's answer.
    """

    def __init__(
        self,
        owner: Owner,
        url: str,
        *,
        token_url: str,
        client_id: str,
        client_secret: str,
        scope: str = "",
        resource: str = "",
        tls: ssl.SSLContext | None = None,
        token_tls: ssl.SSLContext | None = None,
        timeout_s: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        super().__init__(url, self._fetched)
        form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": client_secret}
        optional = {"scope": scope, "resource": resource}
        self._token_url, self._form = token_url, form | {key: value for key, value in optional.items() if value}
        self._endpoint = TokenEndpoint(
            owner,
            url,
            setting="oauth.token_url",
            check="oauth.client_id, oauth.client_secret and oauth.scope",
            tls=tls,
            token_tls=token_tls,
            timeout_s=timeout_s,
            transport=transport,
        )

    def close(self) -> None:
        self._endpoint.close()

    def _fetched(self) -> Token:
        return self._endpoint.token(self._token_url, self._form)
