"""FHIR servers behind TLS that want a certificate, a password or a token: signed in to as the configuration says."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge import config
from bridge.compose import Bridge
from bridge.errors import ConfigError, SinkUnavailable
from bridge.model import Receipt
from bridge.sign_in import fhir_server_sign_in, signing_keys
from bridge.sinks.fhir_server import FhirServerSink
from tests.authorization_server import CLIENT_ID, SCOPE, AuthorizationServer, FhirServer, key_file, running_site
from tests.contract.fhir_sink import a_state, a_study, delivered
from tests.fhir_fake import FhirFake, over_http
from tests.services.certificates import Authority
from tests.services.peers import free_port
from tests.web_server import Reply, WebServer, web_server


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.made(tmp_path_factory.mktemp("authority"))


def settings(url: str, **ways: Any) -> config.Settings:
    return config.parse({"sinks": [{"kind": "fhir_server", "name": "ehr", "url": url, "timeout_s": 10, **ways}]})


@contextmanager
def connected(found: config.Settings) -> Iterator[FhirServerSink]:
    """A sink as the composition root makes it."""
    (sink_settings,) = found.sinks
    signed_in = fhir_server_sign_in(sink_settings)
    sink = FhirServerSink("ehr", sink_settings.url, auth=signed_in.auth, tls=signed_in.tls, timeout_s=10)
    try:
        yield sink
    finally:
        sink.close()
        signed_in.close()


def tls(authority: Authority, *, certificate: bool = True) -> dict[str, str]:
    files = {"ca": str(authority.certificate)}
    if certificate:
        signed, key = authority.signed("bridge")
        files |= {"certificate": str(signed), "key": str(key)}
    return files


def test_a_server_that_wants_a_certificate_gets_ours(authority: Authority) -> None:
    with web_server(authority.server_context()) as server:
        server.answer = over_http(FhirFake())
        with connected(settings(f"{server.url}/fhir", tls=tls(authority))) as sink:
            delivered(sink, a_state(a_study()))
        assert {a.headers.get("authorization") for a in server.asked} == {None}
        with (
            connected(settings(f"{server.url}/fhir", tls=tls(authority, certificate=False))) as sink,
            pytest.raises(SinkUnavailable),
        ):
            sink.deliver([a_state(a_study())])


def test_a_server_of_an_unknown_authority_is_not_told_the_password(authority: Authority) -> None:
    with web_server(authority.server_context(mutual=False)) as server:
        server.answer = over_http(FhirFake())
        with (
            connected(settings(f"{server.url}/fhir", username="bridge", password="hidden")) as sink,
            pytest.raises(SinkUnavailable),
        ):
            sink.deliver([a_state(a_study())])
        assert server.asked == []


@pytest.mark.parametrize(
    ("way", "header"),
    [
        ({"username": "bridge", "password": "hidden"}, "Basic YnJpZGdlOmhpZGRlbg=="),
        ({"bearer_token": "hidden"}, "Bearer hidden"),
    ],
)
def test_a_password_or_a_token_is_shown_to_the_server_and_not_to_where_it_sends_us(
    authority: Authority, way: dict[str, str], header: str
) -> None:
    with web_server() as evil, web_server(authority.server_context(mutual=False)) as server:
        server.answer = over_http(FhirFake())
        with connected(settings(f"{server.url}/fhir", tls={"ca": str(authority.certificate)}, **way)) as sink:
            delivered(sink, a_state(a_study()))
            server.answer = lambda _asked: Reply(302, headers={"Location": f"{evil.url}/fhir"})
            with pytest.raises(SinkUnavailable):
                sink.deliver([a_state(a_study())])
        assert {a.headers.get("authorization") for a in server.asked} == {header}
        assert evil.asked == []


@contextmanager
def behind_certificates(authority: Authority, token_tls: ssl.SSLContext) -> Iterator[tuple[WebServer, WebServer]]:
    with web_server(token_tls) as login, web_server(authority.server_context()) as server:
        yield server, login


def test_a_client_secret_goes_to_the_token_endpoint_alone(authority: Authority) -> None:
    with behind_certificates(authority, authority.server_context("login", mutual=False)) as (server, login):
        login.answer = lambda _asked: Reply(content=b'{"access_token": "t1", "token_type": "Bearer"}')
        server.answer = over_http(FhirFake())
        oauth = {"token_url": f"{login.url}/token", "client_id": "bridge", "client_secret": "hidden", "scope": "s"}
        with connected(settings(f"{server.url}/fhir", tls=tls(authority), oauth=oauth)) as sink:
            delivered(sink, a_state(a_study()))
        assert {a.headers["authorization"] for a in server.asked} == {"Bearer t1"}
        assert [a.headers.get("authorization") for a in login.asked] == [None]
        assert b"client_secret=hidden" in login.asked[0].content
        assert "hidden" not in str(server.asked)


@pytest.mark.parametrize("algorithm", ["RS384", "ES384"])
def test_smart_goes_together_with_certificates(authority: Authority, tmp_path: Path, algorithm: str) -> None:
    smart = {"client_id": CLIENT_ID, "key": str(key_file(tmp_path, algorithm)), "scope": SCOPE}
    with behind_certificates(authority, authority.server_context("login", mutual=False)) as (server, login):
        found = settings(f"{server.url}/fhir", tls=tls(authority), smart=smart)
        tokens = AuthorizationServer(
            {key.key_id: key.public() for key in signing_keys(found)}, url=f"{login.url}/token"
        )
        fhir = FhirServer(tokens)
        login.answer, server.answer = tokens.answer, fhir.answer
        with connected(found) as sink:
            delivered(sink, a_state(a_study()))
        assert tokens.refused == []
        assert len(fhir.fake.history) == 2


def test_our_certificate_is_not_shown_to_a_token_endpoint_elsewhere(authority: Authority) -> None:
    """It would be let in with it: that it is not proves that it did not show it."""
    with behind_certificates(authority, authority.server_context("login")) as (server, login):
        login.answer = lambda _asked: Reply(content=b'{"access_token": "t1"}')
        server.answer = over_http(FhirFake())
        oauth = {"token_url": f"{login.url}/token", "client_id": "bridge", "client_secret": "hidden"}
        with (
            connected(settings(f"{server.url}/fhir", tls=tls(authority), oauth=oauth)) as sink,
            pytest.raises(SinkUnavailable),
        ):
            sink.deliver([a_state(a_study())])
        assert login.asked == server.asked == []
        at_login = settings(f"{login.url}/fhir", tls=tls(authority), oauth=oauth)
        with connected(at_login) as sink, pytest.raises(SinkUnavailable, match="check url"):
            sink.deliver([a_state(a_study())])
        assert login.asked[0].path == "/token"  # on the server itself it is shown


def test_files_of_a_sink_that_cannot_be_used_are_named(authority: Authority, tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    for wrong, told in (({"ca": str(nonsense)}, r"sink ehr: tls\.ca"), ({"certificate": str(nonsense)}, r"tls\.cert")):
        (found,) = settings("https://ehr.example/fhir", tls=wrong).sinks
        with pytest.raises(ConfigError, match=told):
            fhir_server_sign_in(found)


def test_an_address_of_a_next_page_elsewhere_gets_no_credentials(authority: Authority) -> None:
    with web_server() as evil, web_server(authority.server_context(mutual=False)) as server:
        ways: dict[str, Any] = {"username": "bridge", "password": "hidden"}
        (found,) = settings(f"{server.url}/fhir", tls={"ca": str(authority.certificate)}, **ways).sinks
        signed_in = fhir_server_sign_in(found)
        assert signed_in.tls is not None
        with httpx.Client(auth=signed_in.auth, verify=signed_in.tls, trust_env=False) as client:
            client.get(f"{evil.url}/fhir?page=2")
        assert evil.asked[0].headers.get("authorization") is None


def test_a_whole_bridge_signs_in_with_its_key(tmp_path: Path) -> None:
    smart = {"client_id": CLIENT_ID, "key": str(key_file(tmp_path, "ES384")), "scope": SCOPE}
    with running_site() as site:
        sink = {"kind": "fhir_server", "name": "ehr", "url": site.url, "smart": smart}
        found = config.parse({"data_dir": str(tmp_path), "api": {"port": free_port()}, "sinks": [sink]})
        site.tokens.registered |= {key.key_id: key.public() for key in signing_keys(found)}
        with Bridge(found).running() as bridge:
            (outcome,) = bridge.sinks["ehr"].deliver([a_state(a_study())])
            assert isinstance(outcome, Receipt)
        assert site.tokens.given == 1
        assert site.tokens.refused == []
