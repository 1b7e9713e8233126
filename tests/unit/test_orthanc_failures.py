from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest

from bridge.errors import ConfigError, SourceUnavailable
from bridge.sources.orthanc import Orthanc
from tests.feed import follow
from tests.orthanc_fake import PASSWORD, FakeOrthanc, connect

STUDY, OTHER = "1.2.3.1", "1.2.3.2"


@pytest.fixture
def fake() -> FakeOrthanc:
    return FakeOrthanc()


@pytest.fixture
def source(fake: FakeOrthanc) -> Iterator[Orthanc]:
    source = connect(fake)
    yield source
    source.close()


def refused(_request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("http://u:p@x") from ConnectionRefusedError(111, "Connection refused")


def times_out(_request: httpx.Request) -> httpx.Response:
    raise httpx.ReadTimeout("http://u:p@x")


def no_connection(_request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectTimeout("http://u:p@x")


def cut(_request: httpx.Request) -> httpx.Response:
    raise httpx.RemoteProtocolError("http://u:p@x")


def answers(code: int, content: bytes = b"", headers: dict[str, str] | None = None) -> Callable[..., httpx.Response]:
    return lambda _request: httpx.Response(code, content=content, headers=headers)


FAULTS = [
    (refused, "connection refused"),
    (times_out, "no answer within 60 s"),
    (no_connection, "no connection within 60 s"),
    (cut, "connection was cut"),
    (answers(401), "HTTP 401: username or password not accepted"),
    (answers(403), "HTTP 403"),
    (answers(302, headers={"Location": "http://elsewhere.example/"}), "HTTP 302: redirects are not followed"),
    (answers(429), "HTTP 429: too many requests"),
    (answers(500), "HTTP 500|can read none"),
    (answers(503), "HTTP 503"),
    (answers(200, b"<html>Sign in</html>"), "HTML|JSON list"),
    (answers(200, b"hello"), "JSON"),
    (answers(200, b""), "JSON"),
    (answers(200, b'"text"'), "did not answer as Orthanc does|JSON list"),
    (answers(200, b"\x1f\x8b garbage", {"Content-Encoding": "gzip"}), "compression is damaged"),
]


@pytest.mark.parametrize(("fault", "message"), FAULTS)
@pytest.mark.parametrize("step", ["changes", "read", "metadata", "inventory"])
def test_every_failure_is_source_unavailable_and_says_what_to_do(
    fake: FakeOrthanc, source: Orthanc, step: str, fault: Callable[..., httpx.Response], message: str
) -> None:
    fake.put(STUDY)
    starts = ("/dicom-web", "/series", "/instances") if step == "metadata" else ("/",)
    fake.faults |= dict.fromkeys(starts, fault)
    with pytest.raises(SourceUnavailable, match=message) as caught:
        if step == "changes":
            source.changes(None)
        elif step == "inventory":
            list(source.inventory())
        else:
            source.read(STUDY)
    assert str(caught.value).startswith("source pacs: ")
    assert "http://" not in str(caught.value)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [{}, {"Changes": [], "Done": True}, {"Changes": {}, "Last": 1}, {"Changes": [], "Last": "1"}, []],
)
def test_an_answer_without_its_list_is_not_an_orthanc(fake: FakeOrthanc, source: Orthanc, answer: object) -> None:
    fake.edits["changes"] = lambda _found: answer
    with pytest.raises(SourceUnavailable, match="did not answer as Orthanc does"):
        source.changes(None)


def test_no_changes_under_the_url_is_not_an_empty_log(fake: FakeOrthanc, source: Orthanc) -> None:
    fake.faults["/changes"] = answers(404)
    with pytest.raises(SourceUnavailable, match=r"HTTP 404 for /changes"):
        source.changes(None)


@pytest.mark.parametrize("folder", ["studies", "series"])
def test_no_list_under_the_url_is_not_an_empty_archive(fake: FakeOrthanc, source: Orthanc, folder: str) -> None:
    fake.put(STUDY)
    fake.faults[f"/{folder}"] = answers(404)
    with pytest.raises(SourceUnavailable):
        list(source.inventory())


def test_half_a_metadata_answer_is_not_a_study(fake: FakeOrthanc, source: Orthanc) -> None:
    fake.put(STUDY)
    fake.faults["/dicom-web"] = answers(200, b'[{"0020000D": {"vr": "UI"}}, {"0020')
    with pytest.raises(SourceUnavailable, match="ends before"):
        source.read(STUDY)


def test_a_wrong_password_is_told_by_the_real_check(fake: FakeOrthanc) -> None:
    source = connect(fake, password="wrong")
    with pytest.raises(SourceUnavailable, match="username or password not accepted"):
        source.changes(None)
    source.close()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "999999"}, 3600.0),
        ({"Retry-After": "Fri, 01 Mar 2024 10:00:30 GMT", "Date": "Fri, 01 Mar 2024 10:00:00 GMT"}, 30.0),
        ({"Retry-After": "Fri, 01 Mar 2024 10:00:30 GMT"}, None),
        ({"Retry-After": "soon"}, None),
        ({}, None),
    ],
)
def test_the_wait_that_the_peer_asks_for_is_passed_on(
    fake: FakeOrthanc, source: Orthanc, headers: dict[str, str], seconds: float | None
) -> None:
    fake.faults["/"] = answers(503, headers=headers)
    with pytest.raises(SourceUnavailable) as caught:
        source.changes(None)
    assert caught.value.retry_after_s == seconds


def test_an_answer_too_large_is_refused_before_it_is_read_whole(
    fake: FakeOrthanc, source: Orthanc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.sources.web_client.ANSWER_BYTES", 1 << 20)
    sent: list[int] = []

    def endless() -> Iterator[bytes]:
        while True:
            sent.append(1)
            yield b" " * 65_536

    fake.faults["/changes"] = lambda _request: httpx.Response(200, content=endless())
    with pytest.raises(SourceUnavailable, match="larger than 1 MiB"):
        source.changes(None)
    assert len(sent) < 100


def test_the_password_goes_to_no_other_address(fake: FakeOrthanc, source: Orthanc) -> None:
    hosts: list[str] = []

    def elsewhere(request: httpx.Request) -> httpx.Response:
        hosts.append(request.url.host)
        return httpx.Response(307, headers={"Location": "http://elsewhere.example/changes"})

    fake.faults["/"] = elsewhere
    with pytest.raises(SourceUnavailable):
        source.changes(None)
    assert hosts == ["orthanc.example"]


def test_addresses_are_not_logged(fake: FakeOrthanc, source: Orthanc, caplog: pytest.LogCaptureFixture) -> None:
    fake.put(STUDY)
    with caplog.at_level("INFO"):
        follow(source)
        source.read(STUDY)
    assert caplog.text == ""


def test_an_url_that_is_no_address_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="url is not a valid address"):
        Orthanc("pacs", "http://orthanc.example:99999999")
