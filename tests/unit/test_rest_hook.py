from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from bridge.errors import SinkUnavailable
from bridge.follow.rest_hook import RestHook, _Deadline
from tests.web_server import Reply, WebServer, web_server


@pytest.fixture
def hook() -> Iterator[RestHook]:
    made = RestHook()
    yield made
    made.close()


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server() as made:
        yield made


def test_what_is_sent_arrives_as_it_is(hook: RestHook, server: WebServer) -> None:
    server.answer = lambda _: Reply(201, b"thanks")
    for method in ("POST", "PUT"):
        hook.send(method, f"{server.url}/hooks/1", [("X-Key", "k"), ("Content-Type", "a/b")], b"{}", 5)
    asked = server.asked[1]
    assert (asked.method, asked.path, asked.content) == ("PUT", "/hooks/1", b"{}")
    assert (asked.headers["x-key"], asked.headers["content-type"]) == ("k", "a/b")


@pytest.mark.parametrize(
    ("reply", "told", "wait"),
    [
        (Reply(500), "HTTP 500", None),
        (Reply(404), "HTTP 404", None),
        (Reply(429, headers={"Retry-After": "7"}), "HTTP 429", 7.0),
        (Reply(503, headers={"Retry-After": "soon"}), "HTTP 503", None),
        (Reply(503, headers={"Retry-After": "999999999"}), "HTTP 503", 3600.0),
    ],
)
def test_a_refusal_is_told(hook: RestHook, server: WebServer, reply: Reply, told: str, wait: float | None) -> None:
    server.answer = lambda _: reply
    with pytest.raises(SinkUnavailable, match=told) as caught:
        hook.send("POST", server.url, [], b"", 5)
    assert caught.value.retry_after_s == wait


def test_a_redirect_is_not_followed_with_what_is_secret(hook: RestHook, server: WebServer) -> None:
    with web_server() as other:
        server.answer = lambda _: Reply(307, headers={"Location": other.url})
        with pytest.raises(SinkUnavailable, match="redirects are not followed"):
            hook.send("POST", server.url, [("Authorization", "s3cret")], b"{}", 5)
        assert other.asked == []


def test_no_proxy_of_the_environment_is_used(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with web_server() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        hook = RestHook()
        hook.send("POST", server.url, [], b"", 5)
        hook.close()
        assert (len(server.asked), proxy.asked) == (1, [])


def test_an_endless_answer_is_left(hook: RestHook, server: WebServer) -> None:
    server.answer = lambda _: Reply(200, b"x" * 10_000_000)
    hook.send("POST", server.url, [], b"", 5)


def test_a_receiver_that_says_nothing_or_is_not_there_is_told(hook: RestHook) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(SinkUnavailable, match="no answer within"):
            hook.send("POST", url, [], b"", 0.2)
    with pytest.raises(SinkUnavailable, match="cannot be reached"):
        hook.send("POST", url, [], b"", 5)


def test_an_answer_cut_short_after_its_status_counts(hook: RestHook) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def cut() -> None:
            connection, _ = listener.accept()
            connection.recv(65_536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            connection.close()

        thread = threading.Thread(target=cut)
        thread.start()
        hook.send("POST", f"http://127.0.0.1:{listener.getsockname()[1]}", [], b"", 5)
        thread.join()


@pytest.mark.parametrize("beginning", [b"", b"HTTP/1.1 200 OK\r\nX-A: "])
def test_an_answer_without_end_is_cut(hook: RestHook, beginning: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            connection.recv(65_536)
            try:
                connection.sendall(beginning)
                while True:
                    connection.sendall(b"x")
                    time.sleep(0.02)
            except OSError:
                connection.close()

        thread = threading.Thread(target=drip)
        thread.start()
        with pytest.raises(SinkUnavailable, match="too slowly"):
            hook.send("POST", f"http://127.0.0.1:{listener.getsockname()[1]}", [], b"", 0.2)
        thread.join()


def test_a_deadline_holds_for_tls_too() -> None:
    deadline = _Deadline(60)
    theirs, ours = socket.socketpair()
    deadline.over = True
    stream = type("Stream", (), {"get_extra_info": lambda _self, _name: ours})()
    deadline.trace("connection.start_tls.complete", {"return_value": stream})
    assert theirs.recv(1) == b""
    theirs.close()
    ours.close()
