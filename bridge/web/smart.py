"""SMART Backend Services (SMART App Launch 2.2): a signed assertion for a token, without any shared secret."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any
from uuid import uuid4

import httpx
import orjson

from bridge.errors import Unavailable
from bridge.web.answers import Unusable, bounded, can_be_asked, explained, loopback, retry_after, same_origin
from bridge.web.keys import SigningKey
from bridge.web.owner import Owner
from bridge.web.scopes import not_given
from bridge.web.tokens import FetchedToken, Token, TokenEndpoint, json_client

log = logging.getLogger("bridge.web")

WELL_KNOWN = "/.well-known/smart-configuration"
CONFIGURATION_BYTES = 1_048_576

ASSERTION_S = 150
"""How long an assertion lives: half of the 300 s that are allowed, so that a clock may be wrong by that much in either
direction. Nothing else in it depends on the clock."""

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class BackendServices(FetchedToken):
    """A bearer token for the origin of `url`, got with an assertion signed by `key` (private_key_jwt).

    The token endpoint is `token_url`, else the one that the server names in `url` + WELL_KNOWN. Only assertions go
    there, each for that endpoint alone and usable once. `tls` is shown to the origin of `url`, `token_tls` elsewhere.
    Raises the owner's Unavailable when no token can be had; messages never quote the server.
    """

    def __init__(
        self,
        owner: Owner,
        url: str,
        *,
        client_id: str,
        key: SigningKey,
        scope: str,
        token_url: str = "",
        jku: str = "",
        tls: ssl.SSLContext | None = None,
        token_tls: ssl.SSLContext | None = None,
        timeout_s: float = 30.0,
        clock: Callable[[], float] = time.time,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        super().__init__(url, self._fetched)
        self._owner, self._url, self._timeout_s, self._clock = owner, url.rstrip("/"), timeout_s, clock
        self._client_id, self._key, self._scope = client_id, key, scope
        self._headers = {"jku": jku} if jku else {}
        self._token_url, self._found, self._told = token_url, "", ""
        self._client = json_client(tls, timeout_s, transport)
        self._endpoint = TokenEndpoint(
            owner,
            url,
            setting="smart.token_url" if token_url else f"token_endpoint in url{WELL_KNOWN}",
            check="smart.client_id, smart.scope, and that the public key is registered (bridge jwks shows it)",
            tls=tls,
            token_tls=token_tls,
            timeout_s=timeout_s,
            transport=transport,
        )

    def close(self) -> None:
        self._client.close()
        self._endpoint.close()

    def _fetched(self) -> Token:
        url = self._token_url or self._found or self._discovered()
        form = {
            "grant_type": "client_credentials",
            "scope": self._scope,
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": self._assertion(url),
        }
        self._found = ""  # what was found is kept only when it works: an endpoint that moved is found again
        token = self._endpoint.token(url, form, self._clock_told)
        self._found = url
        self._tell_narrower(token)
        return token

    def _assertion(self, url: str) -> str:
        claims = {
            "iss": self._client_id,
            "sub": self._client_id,
            "aud": url,
            "exp": int(self._clock()) + ASSERTION_S,
            "jti": str(uuid4()),
        }
        return self._key.signed(claims, self._headers)

    def _clock_told(self, response: httpx.Response) -> str:
        """What is wrong with our clock, judged by the Date of a refusal (RFC 9110 6.6.1); "" when nothing is."""
        try:
            ahead_s = self._clock() - parsedate_to_datetime(response.headers.get("date", "")).timestamp()
        except (TypeError, ValueError, OverflowError):
            return ""
        if abs(ahead_s) < ASSERTION_S:
            return ""
        way = "ahead of" if ahead_s > 0 else "behind"
        return (
            f"this machine's clock is {abs(ahead_s):.0f} s {way} the server's, so the assertion's exp is refused: "
            "set the clock (NTP)"
        )

    def _tell_narrower(self, token: Token) -> None:
        missing = " ".join(not_given(self._scope, token.scope)) if token.scope else ""
        if missing and missing != self._told:
            log.warning("%s: the server gave less than smart.scope asks for; not given: %s", self._owner, missing)
        self._told = missing

    def _discovered(self) -> str:
        """The token endpoint that the server names."""
        found = self._configuration()
        url = found.get("token_endpoint")
        if not isinstance(url, str) or not url.isascii() or not url.isprintable():
            raise self._undiscovered("it names no token_endpoint; set smart.token_url")
        if not _may_be_asked(url, self._url):
            raise self._undiscovered("its token_endpoint is not an https address; set smart.token_url")
        methods = found.get("token_endpoint_auth_methods_supported")
        if isinstance(methods, list) and "private_key_jwt" not in methods:
            raise self._undiscovered("it does not offer private_key_jwt; if it does all the same, set smart.token_url")
        algorithms = found.get("token_endpoint_auth_signing_alg_values_supported")
        if isinstance(algorithms, list) and self._key.algorithm not in algorithms:
            raise self._undiscovered(f"it does not accept {self._key.algorithm}: use a key of the other kind")
        return url

    def _configuration(self) -> dict[str, Any]:
        try:
            with self._client.stream("GET", self._url + WELL_KNOWN) as response:
                if response.status_code != 200:
                    problem = f"HTTP {response.status_code}: check url, or set smart.token_url"
                    raise self._undiscovered(problem, retry_after(response))
                content = b"".join(bounded(response, CONFIGURATION_BYTES, self._timeout_s))
            found = orjson.loads(content)
        except orjson.JSONDecodeError:
            found = None
        except Unusable as problem:
            raise self._undiscovered(str(problem)) from None
        except httpx.HTTPError as error:
            said = explained(error, setting="url", product="the FHIR server", timeout_s=self._timeout_s)
            raise self._undiscovered(said) from None
        if not isinstance(found, dict):
            raise self._undiscovered("the answer is not a JSON object; check url, or set smart.token_url")
        return found

    def _undiscovered(self, problem: str, retry_after_s: float | None = None) -> Unavailable:
        return self._owner.unavailable(f"url{WELL_KNOWN}: {problem}", retry_after_s)


def _may_be_asked(url: str, base: str) -> bool:
    """Whether an assertion may go to a token endpoint that `base` named: over https, or where `base` itself is."""
    if not can_be_asked(url) or httpx.URL(url).userinfo:
        return False
    return httpx.URL(url).scheme == "https" or same_origin(url, base) or (loopback(url) and loopback(base))
