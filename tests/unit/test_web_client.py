from __future__ import annotations

import gzip
from collections.abc import Iterator

import pytest

from bridge.errors import SourceUnavailable
from bridge.sources import web_client
from bridge.sources.web_client import Refusal, WebClient
from bridge.web.auth import ClientCredentials, sign_in
from bridge.web.owner import Owner
from tests.web_server import Reply, WebServer, web_server

MEBI = 1 << 20


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


def connect(server: WebServer, token: str = "") -> WebClient:
    return WebClient("pacs", server.url, product="the archive", auth=sign_in(server.url, bearer_token=token))


def refusal(client: WebClient, step: str) -> SourceUnavailable:
    try:
        with pytest.raises(SourceUnavailable) as caught:
            if step == "get":
                client.get("/studies")
            else:
                client.each("/studies", "application/dicom+json", lambda _item: None)
    finally:
        client.close()
    return caught.value


@pytest.mark.parametrize("step", ["get", "each"])
def test_an_answer_that_unpacks_beyond_the_limit_is_refused(
    server: WebServer, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr(web_client, "ANSWER_BYTES", MEBI)
    monkeypatch.setattr(web_client, "ARRAY_BYTES", MEBI)
    bomb = gzip.compress(b"[" + b" " * (32 * MEBI) + b"]")
    server.answer = lambda _asked: Reply(content=bomb, headers={"Content-Encoding": "gzip"})
    error = refusal(connect(server), step)
    assert "larger than 1 MiB" in str(error)
    assert isinstance(error, Refusal)
    assert error.code == web_client.TOO_LARGE


@pytest.mark.parametrize("encoding", ["gzip, gzip", "gzip,gzip,gzip", "deflate", "br", "zstd", "identity, gzip"])
@pytest.mark.parametrize("step", ["get", "each"])
def test_only_one_layer_of_gzip_is_unpacked(server: WebServer, step: str, encoding: str) -> None:
    bomb = gzip.compress(gzip.compress(b"[" + b" " * MEBI + b"]"))
    server.answer = lambda _asked: Reply(content=bomb, headers={"Content-Encoding": encoding})
    assert "packed in another way" in str(refusal(connect(server), step))


def test_an_answer_packed_once_is_read(server: WebServer) -> None:
    server.answer = lambda _asked: Reply(content=gzip.compress(b'[{"a": 1}]'), headers={"Content-Encoding": "gzip"})
    client = connect(server)
    assert client.get("/studies") == [{"a": 1}]
    client.close()
    assert server.asked[0].headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_no_token_goes_there(server: WebServer, status: int) -> None:
    with web_server() as elsewhere:
        server.answer = lambda _asked: Reply(status, headers={"Location": f"{elsewhere.url}/studies"})
        error = refusal(connect(server, token="secret"), "each")
        assert elsewhere.asked == []
    assert "redirects are not followed" in str(error)
    assert server.asked[0].headers["authorization"] == "Bearer secret"
    assert "secret" not in str(error)


def test_a_secret_goes_to_the_token_endpoint_and_a_token_to_the_archive(server: WebServer) -> None:
    with web_server() as login:
        login.answer = lambda _asked: Reply(content=b'{"access_token": "t1", "expires_in": 3600}')
        auth = ClientCredentials(
            Owner.source("pacs"), server.url, token_url=f"{login.url}/token", client_id="bridge", client_secret="hidden"
        )
        client = WebClient("pacs", server.url, product="the archive", auth=auth)
        client.each("/studies", "application/dicom+json", lambda _item: None)
        client.close()
        auth.close()
    assert [(a.method, a.path) for a in login.asked] == [("POST", "/token")]
    assert "hidden" in login.asked[0].content.decode()
    assert server.asked[0].headers["authorization"] == "Bearer t1"
    assert "hidden" not in str(server.asked)


def test_a_token_endpoint_packs_nothing_twice(server: WebServer) -> None:
    server.answer = lambda _asked: Reply(content=b"x", headers={"Content-Encoding": "gzip, gzip"})
    auth = ClientCredentials(
        Owner.source("pacs"), server.url, token_url=server.url, client_id="bridge", client_secret="hidden"
    )
    client = WebClient("pacs", server.url, product="the archive", auth=auth)
    assert "packed in another way" in str(refusal(client, "get"))
    auth.close()


@pytest.mark.parametrize(
    "content_type", ["application/dicom+xml", 'multipart/related; type="application/dicom+xml"; boundary=x']
)
def test_xml_is_told_from_json(server: WebServer, content_type: str) -> None:
    server.answer = lambda _asked: Reply(content=b"--x", headers={"Content-Type": content_type})
    assert "XML instead of JSON" in str(refusal(connect(server), "each"))


def test_a_refusal_keeps_its_status_and_how_long_to_wait(server: WebServer) -> None:
    server.answer = lambda _asked: Reply(503, headers={"Retry-After": "7"})
    error = refusal(connect(server), "each")
    assert isinstance(error, Refusal)
    assert (error.code, error.retry_after_s) == (503, 7.0)


def test_the_headers_of_a_list_are_shown_before_its_items(server: WebServer) -> None:
    server.answer = lambda _asked: Reply(content=b"[1]", headers={"Warning": "299 more"})
    shown: list[str] = []
    client = connect(server)
    client.each("/", "application/json", lambda _i: shown.append("item"), answered=lambda h: shown.append(h["warning"]))
    client.close()
    assert shown == ["299 more", "item"]
