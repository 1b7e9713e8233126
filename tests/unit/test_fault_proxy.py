"""The proxy that spoils a FHIR server's answers in service tests."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import httpx
import pytest

from tests.services.fault_proxy import FaultProxy, Rates, running_fault_proxy
from tests.services.namespace import a_namespace, why_not
from tests.web_server import Reply, WebServer, web_server

BODY = b'{"resourceType":"Bundle"}'


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server() as made:
        made.answer = lambda _: Reply(201, BODY, {"ETag": 'W/"3"', "Content-Type": "application/fhir+json"})
        yield made


@pytest.fixture
def proxy(server: WebServer) -> Iterator[FaultProxy]:
    with running_fault_proxy(server.url + "/fhir", seed=7) as made:
        yield made


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=5) as made:
        yield made


def test_without_rates_requests_and_answers_pass_unchanged(
    server: WebServer, proxy: FaultProxy, client: httpx.Client
) -> None:
    for _ in range(2):
        answer = client.post(f"{proxy.url}/Patient?a=b%7C1", content=b"{}", headers={"If-None-Exist": "x"})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (201, BODY, 'W/"3"')
    asked = server.asked[1]
    assert (asked.method, asked.path, asked.content) == ("POST", "/fhir/Patient?a=b%7C1", b"{}")
    assert asked.headers["if-none-exist"] == "x"
    assert f"http://{asked.headers['host']}/fhir" == proxy.url
    assert proxy.counts == {"forwarded": 2}


@pytest.mark.parametrize(("rates", "status"), [(Rates(throttled=1), 429), (Rates(unavailable=1), 503)])
def test_a_server_that_is_busy_says_when_to_come_again_and_was_never_asked(
    server: WebServer, proxy: FaultProxy, client: httpx.Client, rates: Rates, status: int
) -> None:
    proxy.rates, proxy.retry_after_s = rates, 2
    answers = [client.get(proxy.url) for _ in range(20)]
    assert {a.status_code for a in answers} == {status}
    waits = {a.headers["retry-after"] for a in answers}
    assert "2" in waits
    assert any(wait.endswith("GMT") for wait in waits)
    assert server.asked == []


def test_a_cut_connection_hides_an_answer_to_something_that_was_done(
    server: WebServer, proxy: FaultProxy, client: httpx.Client
) -> None:
    proxy.rates = Rates(cut=1)
    with pytest.raises(httpx.RemoteProtocolError):
        client.post(proxy.url, content=b"{}")
    assert [a.content for a in server.asked] == [b"{}"]
    proxy.rates = Rates()
    assert client.get(proxy.url).status_code == 201
    assert proxy.counts == {"cut": 1, "forwarded": 1}


def test_half_an_answer_is_seen_as_broken(server: WebServer, proxy: FaultProxy, client: httpx.Client) -> None:
    proxy.rates = Rates(halved=1)
    with client.stream("GET", proxy.url) as answer, pytest.raises(httpx.RemoteProtocolError):
        assert answer.status_code == 201
        answer.read()
    assert len(server.asked) == 1


def test_a_hanging_server_is_left_by_its_client_and_ends_with_the_proxy(server: WebServer) -> None:
    with running_fault_proxy(server.url, 1, Rates(hung=1), hang_s=600) as proxy:
        with httpx.Client(trust_env=False, timeout=0.1) as hasty, pytest.raises(httpx.ReadTimeout):
            hasty.get(proxy.url)
        ended: list[type[Exception]] = []

        def ask() -> None:
            try:
                httpx.get(proxy.url, timeout=60, trust_env=False)
            except httpx.HTTPError as error:
                ended.append(type(error))

        patient = threading.Thread(target=ask)
        patient.start()
        while proxy.counts["hung"] < 2:
            patient.join(0.01)
    patient.join()
    assert ended == [httpx.RemoteProtocolError]
    assert server.asked == []


def test_the_same_seed_gives_the_same_faults_at_about_the_rates(server: WebServer, client: httpx.Client) -> None:
    def run(seed: int) -> list[int]:
        with running_fault_proxy(server.url, seed, Rates(throttled=0.25, unavailable=0.25)) as proxy:
            return [client.get(proxy.url).status_code for _ in range(100)]

    first = run(5)
    assert first == run(5)
    assert first != run(6)
    assert all(10 < first.count(status) < 40 for status in (429, 503))


def test_a_server_that_is_down_is_a_bad_gateway(client: httpx.Client) -> None:
    with web_server() as gone:
        url = gone.url
    with running_fault_proxy(url, 1) as proxy:
        assert client.get(proxy.url).status_code == 502
        assert proxy.counts == {"unreachable": 1}


def test_a_body_of_unknown_length_is_refused(server: WebServer, proxy: FaultProxy, client: httpx.Client) -> None:
    assert client.post(proxy.url, content=iter([b"{", b"}"])).status_code == 411
    assert client.get(proxy.url).status_code == 201
    assert len(server.asked) == 1


def test_rates_that_cannot_be_are_refused() -> None:
    for wrong in ({"cut": 0.6, "hung": 0.6}, {"cut": -0.1}):
        with pytest.raises(ValueError, match="rates"):
            Rates(**wrong)


def test_an_answer_that_never_comes_is_of_a_request_that_was_done(
    server: WebServer, proxy: FaultProxy, client: httpx.Client
) -> None:
    proxy.rates, proxy.hang_s = Rates(unanswered=1), 0.2
    with pytest.raises(httpx.RemoteProtocolError):
        client.post(f"{proxy.url}/Patient", content=b"{}")
    assert len(server.asked) == 1
    assert proxy.counts == {"unanswered": 1}


def test_a_peer_behind_a_pulled_cable_is_silent_until_it_is_plugged_in(server: WebServer) -> None:
    if reason := why_not():
        pytest.skip(reason)
    with a_namespace() as network, running_fault_proxy(server.url, 7, network=network) as far:
        assert httpx.get(far.url, trust_env=False, timeout=5).status_code == 201
        network.pull()
        with pytest.raises(httpx.ConnectTimeout):
            httpx.get(far.url, trust_env=False, timeout=0.5)
        network.plug_in()
        assert httpx.get(far.url, trust_env=False, timeout=5).status_code == 201
    assert len(server.asked) == 2


def test_a_request_whose_sender_died_in_the_middle_never_reaches_the_server(
    server: WebServer, proxy: FaultProxy
) -> None:
    where = httpx.URL(proxy.url)
    for content in (b"", b'{"resour'):
        with socket.create_connection((where.host, where.port or 0), timeout=5) as dying:
            head = f"PUT {where.path}/Patient/p HTTP/1.1\r\nHost: {where.host}\r\nContent-Length: 40\r\n\r\n"
            dying.sendall(head.encode() + content)
            dying.shutdown(socket.SHUT_WR)
            assert dying.recv(100) == b""
    assert server.asked == []
