"""An archive behind TLS, with certificates of our own authority."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from bridge.errors import ConfigError, SourceUnavailable
from bridge.sources.dicomweb import DicomWeb
from bridge.web.auth import ClientCredentials, sign_in
from bridge.web.owner import Owner
from bridge.web.tls import client_context
from tests.services.certificates import Authority
from tests.web_server import Asked, Reply, WebServer, web_server


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.made(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.made(tmp_path_factory.mktemp("stranger"), "stranger")


def inventory(server: WebServer, authority: Authority, client: tuple[Path, Path] | None = None) -> dict[str, int]:
    certificate, key = client or (None, None)
    tls = client_context(Owner.source("pacs"), ca=authority.certificate, certificate=certificate, key=key)
    source = DicomWeb("pacs", server.url, clock=time.time, tls=tls, timeout_s=10)
    try:
        return dict(source.inventory())
    finally:
        source.close()


def test_a_client_with_its_certificate_is_let_in(authority: Authority) -> None:
    with web_server(authority.server_context()) as server:
        assert inventory(server, authority, authority.signed("bridge")) == {}
        assert server.asked


def test_a_client_without_or_with_a_strangers_certificate_is_not(authority: Authority, stranger: Authority) -> None:
    with web_server(authority.server_context()) as server:
        for client in (None, stranger.signed("bridge")):
            with pytest.raises(SourceUnavailable, match=r"the TLS connection failed|connection was cut"):
                inventory(server, authority, client)
        assert server.asked == []


def test_a_server_of_another_authority_is_not_spoken_to(authority: Authority, stranger: Authority) -> None:
    with web_server(stranger.server_context(mutual=False)) as server:
        with pytest.raises(SourceUnavailable, match="the TLS connection failed"):
            inventory(server, authority)
        assert server.asked == []


def test_a_server_with_another_hosts_certificate_is_not_spoken_to(authority: Authority) -> None:
    with web_server(authority.server_context("other", "DNS:other.example", mutual=False)) as server:
        with pytest.raises(SourceUnavailable, match="the TLS connection failed"):
            inventory(server, authority)
        assert server.asked == []


def test_a_bearer_token_travels_under_tls(authority: Authority) -> None:
    with web_server(authority.server_context(mutual=False)) as server:
        tls = client_context(Owner.source("pacs"), ca=authority.certificate)
        auth = sign_in(server.url, bearer_token="t1")
        source = DicomWeb("pacs", server.url, clock=time.time, tls=tls, auth=auth)
        assert list(source.inventory()) == []
        source.close()
        assert {a.headers["authorization"] for a in server.asked} == {"Bearer t1"}


def test_a_token_is_fetched_under_mutual_tls_and_again_when_refused(authority: Authority) -> None:
    tokens = iter(["t1", "t2"])

    def answer(asked: Asked) -> Reply:
        if asked.path == "/token":
            return Reply(content=b'{"access_token": "%s", "expires_in": 3600}' % next(tokens).encode())
        return Reply() if asked.headers["authorization"] == "Bearer t2" else Reply(401)

    with web_server(authority.server_context()) as server:
        server.answer = answer
        tls = client_context(
            Owner.source("pacs"),
            ca=authority.certificate,
            certificate=(bridge := authority.signed("bridge"))[0],
            key=bridge[1],
        )
        auth = ClientCredentials(
            Owner.source("pacs"),
            server.url,
            token_url=f"{server.url}/token",
            client_id="bridge",
            client_secret="hidden",
            tls=tls,
        )
        source = DicomWeb("pacs", server.url, clock=time.time, tls=tls, auth=auth)
        assert list(source.inventory()) == []
        source.close()
        auth.close()


def test_certificate_files_that_cannot_be_used_are_named(authority: Authority, tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    certificate, _ = authority.signed("bridge")
    with pytest.raises(ConfigError, match=r"tls\.ca"):
        client_context(Owner.source("pacs"), ca=nonsense)
    with pytest.raises(ConfigError, match=r"tls\.ca"):
        client_context(Owner.source("pacs"), ca=tmp_path / "missing.pem")
    with pytest.raises(ConfigError, match=r"tls\.certificate"):
        client_context(Owner.source("pacs"), ca=authority.certificate, certificate=certificate, key=nonsense)
