from __future__ import annotations

import httpx
import pytest

from bridge.errors import ConfigError, SinkUnavailable, SourceUnavailable
from bridge.web import answers
from bridge.web.answers import TooLarge, Unusable, bounded, check_address, loopback, retry_after, same_origin
from bridge.web.owner import Owner

BASE = "https://ehr.example/fhir"


@pytest.mark.parametrize(
    "url",
    [
        f"{BASE}?_getpages=1",
        "https://ehr.example:443/elsewhere",
        "HTTPS://EHR.example/fhir",
        "?page=2",
        "/fhir/Patient?page=2",
    ],
)
def test_links_within_the_origin_may_be_followed(url: str) -> None:
    assert same_origin(url, BASE)


@pytest.mark.parametrize(
    "url",
    [
        "http://ehr.example/fhir",
        "https://ehr.example:8443/fhir",
        "https://ehr.example.evil.example/fhir",
        "https://ehr.example@evil.example/fhir",
        "https://ehr.example\\@evil.example/fhir",
        "https://user:word@ehr.example/fhir",
        "https://ehr.example./fhir",
        "//evil.example/fhir",
        "file:///etc/passwd",
        "https://[ehr.example/fhir",
        "https://ehr.example:99999999/fhir",
        "https://ehr.example/\x00",
        "https://127.0.0.1/",
    ],
)
def test_links_that_lead_elsewhere_are_told(url: str) -> None:
    assert not same_origin(url, BASE)


@pytest.mark.parametrize("url", ["http://localhost/fhir", "http://127.1.2.3:8080", "http://[::1]:8080/fhir"])
def test_this_machine_is_known_by_its_addresses(url: str) -> None:
    assert loopback(url)


@pytest.mark.parametrize(
    "url", ["http://localhost.example", "http://127.0.0.1.example", "http://10.0.0.1", "http://0.0.0.0", "http://127"]
)
def test_other_machines_are_not_taken_for_this_one(url: str) -> None:
    assert not loopback(url)


def test_an_answer_is_read_to_its_bound_and_no_further() -> None:
    assert b"".join(bounded(httpx.Response(200, content=b"x" * 10), 10, 1)) == b"x" * 10
    with pytest.raises(TooLarge):
        list(bounded(httpx.Response(200, content=b"x" * 11), 10, 1))


def test_an_answer_that_only_trickles_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 5.0, 10.5])
    monkeypatch.setattr(answers.time, "monotonic", lambda: next(now))
    response = httpx.Response(200, content=(b"x" for _ in range(3)))
    with pytest.raises(Unusable, match="too slowly"):
        list(bounded(response, 10, 1))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"Retry-After": "17"}, 17.0),
        ({"Retry-After": "999999"}, 3600.0),
        ({"Retry-After": "\u0661"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "Fri, 01 Mar 2024 09:00:30 GMT", "Date": "Fri, 01 Mar 2024 09:00:00 GMT"}, 30.0),
        ({"Retry-After": "Fri, 01 Mar 2024 08:00:00 GMT", "Date": "Fri, 01 Mar 2024 09:00:00 GMT"}, 0.0),
        ({"Retry-After": "Fri, 01 Mar 2024 09:00:30 GMT"}, None),
    ],
)
def test_the_wait_that_a_peer_asks_for(headers: dict[str, str], expected: float | None) -> None:
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert retry_after(httpx.Response(503, headers=encoded)) == expected


def test_an_error_names_its_owner_and_has_its_type() -> None:
    error = Owner.sink("ehr").unavailable("no answer", 3.0)
    assert (type(error), str(error), error.retry_after_s) == (SinkUnavailable, "sink ehr: no answer", 3.0)
    assert type(Owner.source("vna").unavailable("no answer")) is SourceUnavailable
    with pytest.raises(ConfigError, match="sink ehr: url"):
        check_address(Owner.sink("ehr"), "http://ehr.example:0")
