"""SMART Backend Services against an authorization server that checks every assertion."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge.errors import SinkUnavailable
from bridge.sinks.fhir_server import FhirServerSink
from bridge.web.keys import SigningKey, signing_key
from bridge.web.owner import Owner
from bridge.web.smart import BackendServices
from tests.authorization_server import CLIENT_ID, SCOPE, Site, key_file, running_site
from tests.contract.fhir_sink import a_state, a_study, delivered
from tests.web_server import Reply, web_server

EHR = Owner.sink("ehr")


@pytest.fixture(scope="module", params=["RS384", "ES384"])
def each_key(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return signing_key(EHR, key_file(tmp_path_factory.mktemp("keys"), request.param))


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return signing_key(EHR, key_file(tmp_path_factory.mktemp("key"), "ES384"))


@pytest.fixture
def site(key: SigningKey) -> Iterator[Site]:
    with running_site(key.public()) as running:
        yield running


@contextmanager
def client(url: str, key: SigningKey, **settings: Any) -> Iterator[httpx.Client]:
    auth = BackendServices(EHR, url, **({"client_id": CLIENT_ID, "key": key, "scope": SCOPE} | settings))
    with httpx.Client(auth=auth, trust_env=False) as found:
        yield found
    auth.close()


def problem(site: Site, key: SigningKey, **settings: Any) -> str:
    """What is said when no token can be had; the FHIR server was then not asked for anything."""
    with client(site.url, key, **settings) as asking, pytest.raises(SinkUnavailable) as caught:
        asking.get(f"{site.url}/Patient")
    assert "QUOTED" not in str(caught.value)
    assert not [a for a in site.fhir_web.asked if "authorization" in a.headers]
    return str(caught.value)


def test_a_study_is_delivered_with_a_token_for_a_signed_assertion(each_key: SigningKey) -> None:
    with running_site(each_key.public()) as site:
        auth = BackendServices(EHR, site.url, client_id=CLIENT_ID, key=each_key, scope=SCOPE)
        sink = FhirServerSink("ehr", site.url, auth=auth)
        delivered(sink, a_state(a_study()))
        assert site.tokens.refused == []
        assert [name.partition("/")[0] for name in site.fhir.fake.history] == ["Endpoint", "ImagingStudy"]
        assert site.tokens.given == 1
        sink.close()
        auth.close()
    header, claims = site.tokens.assertions[0]
    assert header == {"typ": "JWT", "alg": each_key.algorithm, "kid": each_key.key_id}
    assert claims["aud"] == site.tokens.url


def test_a_token_that_ends_in_mid_run_is_replaced_without_a_loss(site: Site, key: SigningKey) -> None:
    auth = BackendServices(EHR, site.url, client_id=CLIENT_ID, key=key, scope=SCOPE)
    sink = FhirServerSink("ehr", site.url, auth=auth)
    delivered(sink, a_state(a_study()))
    site.tokens.end()
    delivered(sink, a_state(a_study()))
    assert site.tokens.given == 2
    assert len({claims["jti"] for _, claims in site.tokens.assertions}) == 2
    assert site.tokens.refused == []
    sink.close()
    auth.close()


def test_a_short_token_is_fetched_again_before_it_is_shown(site: Site, key: SigningKey) -> None:
    site.tokens.lifetime_s = 0
    with client(site.url, key) as asking:
        assert [asking.get(f"{site.url}/Patient").status_code for _ in range(3)] == [200, 200, 200]
    assert site.tokens.given == 3
    assert len([a for a in site.fhir_web.asked if "smart-configuration" in a.path]) == 1


def test_many_threads_share_one_token(site: Site, key: SigningKey) -> None:
    ready = threading.Barrier(8)

    def ask(asking: httpx.Client) -> int:
        ready.wait()
        return asking.get(f"{site.url}/Patient").status_code

    with client(site.url, key) as asking, ThreadPoolExecutor(8) as threads:
        assert set(threads.map(ask, [asking] * 8)) == {200}
        site.tokens.end()
        assert set(threads.map(ask, [asking] * 8)) == {200}
    assert site.tokens.given == 2


def test_a_token_url_of_the_settings_and_a_jku_are_used(site: Site, key: SigningKey) -> None:
    settings = {"token_url": site.tokens.url, "jku": "https://bridge.example/jwks"}
    site.fhir.changes["token_endpoint"] = "https://evil.example/token"
    with client(site.url, key, **settings) as asking:
        assert asking.get(f"{site.url}/Patient").status_code == 200
    assert site.tokens.assertions[0][0]["jku"] == "https://bridge.example/jwks"
    assert [a.path for a in site.fhir_web.asked] == ["/fhir/Patient"]


def test_less_scope_than_asked_for_is_told_once(site: Site, key: SigningKey, caplog: pytest.LogCaptureFixture) -> None:
    site.tokens.scope, site.tokens.lifetime_s = "system/*.rs QUOTED", 0
    with caplog.at_level(logging.WARNING), client(site.url, key) as asking:
        for _ in range(3):
            asking.get(f"{site.url}/Patient")
    (record,) = [r for r in caplog.records if r.name == "bridge.web"]
    expected = "sink ehr: the server gave less than smart.scope asks for; not given: "
    assert record.getMessage() == expected + "system/ImagingStudy.cruds system/Endpoint.cruds"


def test_a_token_endpoint_that_is_down_or_moved_is_found_again(key: SigningKey) -> None:
    with running_site(key.public()) as site, client(site.url, key) as asking:
        moved = site.tokens.url
        with web_server() as gone:
            site.fhir.changes["token_endpoint"] = f"{gone.url}/token"
        with pytest.raises(SinkUnavailable, match=r"the token endpoint .*: connection refused"):
            asking.get(f"{site.url}/Patient")
        site.fhir.changes["token_endpoint"] = moved
        assert asking.get(f"{site.url}/Patient").status_code == 200


def test_a_sink_whose_token_endpoint_is_down_says_so_and_goes_on_later(site: Site, key: SigningKey) -> None:
    auth = BackendServices(EHR, site.url, client_id=CLIENT_ID, key=key, scope=SCOPE)
    sink = FhirServerSink("ehr", site.url, auth=auth)
    site.token_web.answer = lambda _asked: Reply(503, b"QUOTED", {"Retry-After": "7"})
    with pytest.raises(SinkUnavailable) as raised:
        sink.deliver([a_state(a_study())])
    outcome = raised.value
    assert isinstance(outcome, SinkUnavailable)
    assert outcome.retry_after_s == 7
    assert "token endpoint" in str(outcome)
    site.token_web.answer = site.tokens.answer
    delivered(sink, a_state(a_study()))
    sink.close()
    auth.close()


@pytest.mark.parametrize(("ahead_s", "said"), [(1000, "1000 s ahead of"), (-1000, "1000 s behind")])
def test_a_wrong_clock_is_told(site: Site, key: SigningKey, ahead_s: int, said: str) -> None:
    told = problem(site, key, clock=lambda: time.time() + ahead_s)
    assert "HTTP 400 invalid_client" in told
    assert said.split(" ", 1)[1] in told  # the Date of an answer has whole seconds
    assert site.tokens.refused == ["exp" if ahead_s > 0 else "ExpiredSignatureError"]


@pytest.mark.parametrize("off_s", [-100, 100])
def test_a_clock_that_is_a_little_wrong_does_no_harm(site: Site, key: SigningKey, off_s: int) -> None:
    with client(site.url, key, clock=lambda: time.time() + off_s) as asking:
        assert asking.get(f"{site.url}/Patient").status_code == 200


def test_an_unknown_key_is_told_with_the_code_of_the_standard_alone(site: Site, key: SigningKey) -> None:
    site.tokens.registered.clear()
    assert "HTTP 400 invalid_client: check smart.client_id" in problem(site, key)


def test_a_key_that_is_not_the_registered_one_is_refused(site: Site, key: SigningKey, tmp_path: Path) -> None:
    other = signing_key(EHR, key_file(tmp_path, "ES384"), key_id=key.key_id)
    assert "invalid_client" in problem(site, other)
    assert site.tokens.refused == ["InvalidSignatureError"]


def test_another_client_and_another_scope_are_refused(site: Site, key: SigningKey) -> None:
    assert "invalid_client" in problem(site, key, client_id="other")
    assert "invalid_scope" in problem(site, key, scope="launch")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"token_endpoint": None}, "names no token_endpoint"),
        ({"token_endpoint": ["QUOTED"]}, "names no token_endpoint"),
        ({"token_endpoint": "https://x/\nQUOTED"}, "names no token_endpoint"),
        ({"token_endpoint": "http://login.example/token"}, "not an https address"),
        ({"token_endpoint": "file:///etc/QUOTED"}, "not an https address"),
        ({"token_endpoint": "https://QUOTED@login.example/token"}, "not an https address"),
        ({"token_endpoint": "https://login.example:99999/QUOTED"}, "not an https address"),
        ({"token_endpoint_auth_methods_supported": ["client_secret_basic"]}, "does not offer private_key_jwt"),
        ({"token_endpoint_auth_signing_alg_values_supported": ["RS384"]}, "does not accept ES384"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_told(
    site: Site, key: SigningKey, changes: dict[str, Any], said: str
) -> None:
    site.fhir.changes |= changes
    told = problem(site, key)
    assert said in told
    assert ".well-known/smart-configuration" in told
    assert site.token_web.asked == []


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(404), "HTTP 404: check url, or set smart.token_url"),
        (Reply(302, headers={"Location": "https://evil.example"}), "HTTP 302"),
        (Reply(content=b"<html>"), "not a JSON object"),
        (Reply(content=b"[]"), "not a JSON object"),
        (Reply(content=b" " * 2_000_000), "larger than 1 MiB"),
        (Reply(content=b"x", headers={"Content-Encoding": "gzip, gzip"}), "packed in another way"),
    ],
)
def test_a_configuration_that_cannot_be_read_is_told(site: Site, key: SigningKey, reply: Reply, said: str) -> None:
    site.fhir_web.answer = lambda _asked: reply
    assert said in problem(site, key)


def test_a_server_elsewhere_cannot_send_an_assertion_to_this_machine(key: SigningKey) -> None:
    asked: list[str] = []

    class Elsewhere(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            asked.append(request.url.path)
            return httpx.Response(200, json={"token_endpoint": "http://127.0.0.1:8080/token"})

    settings: dict[str, Any] = {"transport": Elsewhere()}
    with client("https://ehr.example/fhir", key, **settings) as asking, pytest.raises(SinkUnavailable):
        asking.get("https://ehr.example/fhir/Patient")
    assert asked == ["/fhir/.well-known/smart-configuration"]


def test_no_token_and_no_assertion_reaches_another_origin(site: Site, key: SigningKey) -> None:
    with web_server() as evil, client(site.url, key) as asking:
        asking.get(f"{site.url}/Patient")
        asking.get(f"{evil.url}/fhir?page=2")
        site.fhir_web.answer = lambda _asked: Reply(302, headers={"Location": f"{evil.url}/fhir"})
        asking.get(f"{site.url}/Patient")
        asking.get(f"{site.url}/Patient", follow_redirects=True)
        assert [a.headers.get("authorization") for a in evil.asked] == [None, None]
        assert not [a for a in evil.asked if a.content]
    assert all("authorization" not in a.headers for a in site.token_web.asked)
    assert all(b"client_assertion=" not in a.content for a in site.fhir_web.asked)


def test_a_token_endpoint_that_redirects_gets_no_second_assertion_sent_on(site: Site, key: SigningKey) -> None:
    with web_server() as evil:
        site.token_web.answer = lambda _asked: Reply(307, headers={"Location": f"{evil.url}/token"})
        assert "redirects are not followed" in problem(site, key)
        assert evil.asked == []


def test_a_refusal_is_not_read_before_the_second_try(site: Site, key: SigningKey) -> None:
    pulled = 0

    class Endless(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            nonlocal pulled
            while pulled < 1000:
                pulled += 1
                yield b" " * 65_536

    class Refusing(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if request.headers.get("Authorization") == first:
                return httpx.Response(401, stream=Endless())
            return httpx.Response(200, json={})

    auth = BackendServices(EHR, site.url, client_id=CLIENT_ID, key=key, scope=SCOPE)
    with httpx.Client(auth=auth, trust_env=False) as plain:
        plain.get(f"{site.url}/Patient")
    first = site.fhir_web.asked[-1].headers["authorization"]
    with httpx.Client(auth=auth, transport=Refusing()) as asking:
        assert asking.get(f"{site.url}/Patient").status_code == 200
    assert pulled == 0
    auth.close()
