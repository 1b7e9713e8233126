from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable

import httpx
import pytest

from bridge.errors import SourceUnavailable
from bridge.web.answers import origin
from bridge.web.auth import ClientCredentials, sign_in
from bridge.web.owner import Owner

URL, TOKEN_URL = "https://dicom.example/v2", "https://login.example/token"


class TokenServer(httpx.BaseTransport):
    """Hands out token 1, 2, 3 …; `answer` replaces what it says."""

    def __init__(self, lifetime_s: float = 3600.0) -> None:
        self.given, self.lifetime_s = 0, lifetime_s
        self.forms: list[str] = []
        self.answer: Callable[[], httpx.Response] | None = None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.forms.append(request.read().decode())
        if self.answer is not None:
            return self.answer()
        self.given += 1
        return httpx.Response(200, json={"access_token": f"t{self.given}", "expires_in": self.lifetime_s})


class Archive(httpx.BaseTransport):
    """Accepts one token and remembers every Authorization header it was shown."""

    def __init__(self) -> None:
        self.accepts = "t1"
        self.shown: list[str | None] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.shown.append(request.headers.get("Authorization"))
        return httpx.Response(200 if self.shown[-1] == f"Bearer {self.accepts}" else 401)


def credentials(server: httpx.BaseTransport) -> ClientCredentials:
    return ClientCredentials(
        Owner.source("cloud"),
        URL,
        token_url=TOKEN_URL,
        client_id="bridge",
        client_secret="a secret",
        scope="dicom",
        transport=server,
    )


def test_one_token_serves_many_requests() -> None:
    server, archive = TokenServer(), Archive()
    with httpx.Client(transport=archive, auth=credentials(server)) as client:
        assert [client.get(f"{URL}/changefeed").status_code for _ in range(3)] == [200, 200, 200]
    assert server.given == 1
    assert "grant_type=client_credentials" in server.forms[0]
    assert "scope=dicom" in server.forms[0]


def test_a_refused_token_is_replaced_once() -> None:
    server, archive = TokenServer(), Archive()
    with httpx.Client(transport=archive, auth=credentials(server)) as client:
        client.get(URL)
        archive.accepts = "t2"
        assert client.get(URL).status_code == 200
        archive.accepts = "never"
        assert client.get(URL).status_code == 401
    assert server.given == 3


def test_a_token_that_has_ended_is_fetched_again_before_it_is_shown() -> None:
    server, archive = TokenServer(lifetime_s=0), Archive()
    with httpx.Client(transport=archive, auth=credentials(server)) as client:
        client.get(URL)
        archive.accepts = "t2"
        client.get(URL)
    assert archive.shown == ["Bearer t1", "Bearer t2"]


@pytest.mark.parametrize(
    "answer",
    [
        lambda: httpx.Response(401, json={"error": "invalid_client"}),
        lambda: httpx.Response(200, content=b"<html>"),
        lambda: httpx.Response(200, json={"token": "x"}),
        lambda: httpx.Response(200, json={"access_token": "two\nlines"}),
        lambda: httpx.Response(200, json={"access_token": "x", "token_type": "mac"}),
        lambda: httpx.Response(200, content=b'{"access_token": "x", "expires_in": NaN}'),
        lambda: httpx.Response(302, headers={"Location": "https://evil.example"}),
        lambda: httpx.Response(200, json={"access_token": "x", "expires_in": "soon"}),
        lambda: httpx.Response(200, content=b" " * 2_000_000),
    ],
)
def test_no_token_means_unavailable_and_nothing_is_quoted(answer: Callable[[], httpx.Response]) -> None:
    server, archive = TokenServer(), Archive()
    server.answer = answer
    client = httpx.Client(transport=archive, auth=credentials(server))
    with client, pytest.raises(SourceUnavailable, match=r"oauth\.token_url") as caught:
        client.get(URL)
    assert "a secret" not in str(caught.value)
    assert archive.shown == []


@pytest.mark.parametrize(
    "other", ["https://other.example/v2", "http://dicom.example/v2", "https://dicom.example:8443/"]
)
def test_a_token_never_leaves_its_origin(other: str) -> None:
    server, archive = TokenServer(), Archive()
    for auth in (
        credentials(server),
        sign_in(URL, bearer_token="t1"),
        sign_in(URL, username="bridge", password="a secret"),
    ):
        with httpx.Client(transport=archive, auth=auth) as client:
            client.get(other)
    assert archive.shown == [None, None, None]


def test_an_origin_has_its_port_whether_it_is_written_or_not() -> None:
    assert origin("https://dicom.example/a") == origin("https://dicom.example:443/b")
    assert origin("https://dicom.example") != origin("https://dicom.example.evil.example")


def test_a_password_is_shown_to_its_own_origin() -> None:
    archive = Archive()
    with httpx.Client(transport=archive, auth=sign_in(URL, username="bridge", password="schlüssel:1")) as client:
        client.get(URL)
    assert archive.shown == ["Basic " + b64encode("bridge:schlüssel:1".encode()).decode()]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"error": "invalid_client", "error_description": "QUOTED"}', "HTTP 400 invalid_client: check oauth"),
        (b'{"error": "QUOTED"}', "HTTP 400: check oauth"),
        (b'["QUOTED"]', "HTTP 400: check oauth"),
        (b"<html>QUOTED", "HTTP 400: check oauth"),
    ],
)
def test_a_refusal_is_told_by_its_standard_code_alone(content: bytes, said: str) -> None:
    server = TokenServer()
    server.answer = lambda: httpx.Response(400, content=content)
    with (
        httpx.Client(transport=Archive(), auth=credentials(server)) as client,
        pytest.raises(SourceUnavailable) as caught,
    ):
        client.get(URL)
    assert said in str(caught.value)
    assert "QUOTED" not in str(caught.value)


def test_a_token_endpoint_says_how_long_to_wait() -> None:
    server = TokenServer()
    server.answer = lambda: httpx.Response(503, headers={"Retry-After": "17"})
    with (
        httpx.Client(transport=Archive(), auth=credentials(server)) as client,
        pytest.raises(SourceUnavailable) as caught,
    ):
        client.get(URL)
    assert caught.value.retry_after_s == 17
