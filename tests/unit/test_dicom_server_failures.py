from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest

from bridge.errors import ConfigError, SourceUnavailable
from bridge.sources.dicom_server import DicomServer
from bridge.web.auth import ClientCredentials, sign_in
from bridge.web.owner import Owner
from tests.dicom_server.archive import Fault, SimulatedArchive
from tests.dicom_server.connecting import URL, Elsewhere, connect
from tests.dicom_server.serving import InProcess, over_tcp
from tests.dicom_server.tokens import CLIENT_ID, CLIENT_SECRET, PATH, SCOPE, Tokens
from tests.feed import follow

STUDY, OTHER = "1.2.3.1", "1.2.3.2"

CALLS: dict[str, Callable[[DicomServer], object]] = {
    "changes": lambda source: source.changes(None),
    "read": lambda source: source.read(STUDY),
    "inventory": lambda source: list(source.inventory()),
    "count": lambda source: source.count([STUDY]),
}


@pytest.fixture
def archive() -> SimulatedArchive:
    archive = SimulatedArchive()
    archive.put(STUDY)
    return archive


@pytest.fixture
def source(archive: SimulatedArchive) -> Iterator[DicomServer]:
    source = connect(archive)
    yield source
    source.close()


FAULTS = [
    (Fault("", 401), "HTTP 401"),
    (Fault("", 403), "HTTP 403"),
    (Fault("", 302, headers={"Location": "https://elsewhere.example/"}), "HTTP 302: redirects are not followed"),
    (Fault("", 429, headers={"Retry-After": "7"}), "HTTP 429: too many requests"),
    (Fault("", 500), "HTTP 500"),
    (Fault("", 503), "HTTP 503"),
    (Fault("", 200, b"<html>Sign in</html>"), "HTML|JSON list"),
    (Fault("", 200, b"hello"), "JSON"),
    (Fault("", 200, b'"text"'), "did not answer as a DICOM server does|JSON list"),
    (Fault("", 200, b"\x1f\x8b garbage", {"Content-Encoding": "gzip"}), "compression is damaged"),
    (Fault("", cut=True), "cut before the answer was complete"),
]


@pytest.mark.parametrize(("fault", "message"), FAULTS, ids=[m for _, m in FAULTS])
@pytest.mark.parametrize("call", CALLS)
def test_every_failure_is_source_unavailable_and_says_what_to_do(
    archive: SimulatedArchive, call: str, fault: Fault, message: str
) -> None:
    archive.partitions_enabled = fault.cut
    source = connect(archive)
    archive.faults.append(fault)
    with pytest.raises(SourceUnavailable, match=message) as caught:
        CALLS[call](source)
    assert str(caught.value).startswith("source cloud: ")
    assert caught.value.retry_after_s == (7 if fault.status == 429 else None)
    archive.faults.clear()
    CALLS[call](source)
    source.close()


def test_a_failing_poll_moves_nothing_and_the_next_one_misses_nothing(
    archive: SimulatedArchive, source: DicomServer
) -> None:
    _, position, _ = follow(source)
    archive.put(OTHER)
    archive.faults.append(Fault("changefeed?", 503, times=1))
    with pytest.raises(SourceUnavailable):
        source.changes(position)
    assert follow(source, position)[0] == {OTHER}


@pytest.mark.parametrize("latest", [b"{}", b"[]", b'{"sequence": "5"}', b'{"sequence": -1}', b"7"])
def test_a_newest_entry_that_is_none_is_unavailable(
    archive: SimulatedArchive, source: DicomServer, latest: bytes
) -> None:
    archive.faults.append(Fault("/latest", 200, latest))
    with pytest.raises(SourceUnavailable, match="api_version"):
        source.changes(None)


@pytest.mark.parametrize("url", ["https://dicom.example:99999", "https://dicom.example:x/"])
def test_an_address_that_is_none_stops_the_start(url: str) -> None:
    with pytest.raises(ConfigError, match="url"):
        DicomServer("cloud", url)


# Signing in


def credentials(transport: httpx.BaseTransport, url: str = URL) -> ClientCredentials:
    return ClientCredentials(
        Owner.source("cloud"),
        url,
        token_url=f"{url}{PATH}",
        client_id=CLIENT_ID,
        client_secret=CLIENT_SECRET,
        scope=SCOPE,
        transport=transport,
    )


def test_a_token_is_fetched_and_used_for_everything(archive: SimulatedArchive) -> None:
    tokens = Tokens()
    transport = InProcess(archive, tokens)
    source = connect(archive, auth=credentials(transport), transport=transport)
    for call in CALLS.values():
        call(source)
    assert tokens.given == 1
    assert {a for a in archive.authorizations if a} == {"Bearer token-1"}
    source.close()


def test_a_token_that_ends_in_the_middle_is_replaced_without_a_failure(archive: SimulatedArchive) -> None:
    tokens = Tokens()
    transport = InProcess(archive, tokens)
    source = connect(archive, auth=credentials(transport), transport=transport)
    _, position, _ = follow(source)
    tokens.end()
    archive.put(OTHER)
    assert follow(source, position)[0] == {OTHER}
    assert tokens.given == 2
    source.close()


def test_without_a_token_nothing_is_answered(archive: SimulatedArchive) -> None:
    for auth in (None, sign_in(URL, bearer_token="not one of theirs")):
        source = connect(archive, tokens=Tokens(), auth=auth)
        with pytest.raises(SourceUnavailable, match="HTTP 401"):
            source.changes(None)
        source.close()


@pytest.mark.parametrize("call", CALLS)
def test_credentials_never_leave_the_address_that_was_configured(archive: SimulatedArchive, call: str) -> None:
    elsewhere = Elsewhere(archive)
    source = connect(archive, auth=sign_in(URL, bearer_token="t1"), transport=elsewhere)
    archive.faults.append(Fault("", 307, headers={"Location": "https://elsewhere.example/v2/studies"}))
    with pytest.raises(SourceUnavailable, match="HTTP 307"):
        CALLS[call](source)
    assert elsewhere.shown == []
    source.close()


def test_an_address_inside_an_answer_is_never_followed(archive: SimulatedArchive) -> None:
    elsewhere = Elsewhere(archive)
    source = connect(archive, auth=sign_in(URL, bearer_token="t1"), transport=elsewhere)
    url = "https://elsewhere.example/v2/studies"
    archive.metadata_edits[f"{STUDY}.1.1"] = lambda m: m | {"00081190": {"vr": "UR", "Value": [url]}}
    archive.entry_edits[1] = lambda e: e | {"filePath": url, "partitionName": f"x/../../{url}"}
    follow(source)
    assert source.read(STUDY).held == 2
    assert elsewhere.shown == []
    source.close()


# Over TCP


def test_it_follows_reads_and_counts_over_tcp_with_tokens(archive: SimulatedArchive) -> None:
    tokens = Tokens()
    archive.partitions_enabled = True
    archive.put(STUDY, "north", instances=3, first=3)
    with over_tcp(archive, tokens) as url:
        auth = ClientCredentials(
            Owner.source("cloud"),
            url,
            token_url=url + PATH,
            client_id=CLIENT_ID,
            client_secret=CLIENT_SECRET,
            scope=SCOPE,
        )
        source = DicomServer("cloud", url, auth=auth)
        named, position, _ = follow(source)
        assert named == {STUDY}
        assert source.read(STUDY).held == 5
        assert dict(source.inventory()) == source.count([STUDY]) == {STUDY: 5}
        tokens.end()
        archive.delete(STUDY, "north")
        assert follow(source, position)[0] == {STUDY}
        assert source.read(STUDY).held == 2
        source.close()
        auth.close()


def test_over_tcp_a_slow_or_broken_answer_is_unavailable(archive: SimulatedArchive) -> None:
    with over_tcp(archive) as url:
        source = DicomServer("cloud", url, timeout_s=0.2)
        archive.faults.append(Fault("/metadata", after_s=0.6, times=1))
        with pytest.raises(SourceUnavailable, match=r"no answer within 0\.2 s"):
            source.read(STUDY)
        archive.faults.append(Fault("/metadata", cut=True, times=1))
        with pytest.raises(SourceUnavailable, match="cut"):
            source.read(STUDY)
        assert source.read(STUDY).held == 2
        source.close()
    with pytest.raises(SourceUnavailable, match="connection refused"):
        source = DicomServer("cloud", url)
        try:
            source.changes(None)
        finally:
            source.close()
