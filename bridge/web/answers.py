"""What every HTTP client of the bridge does alike: addresses, bounded answers, and failures told in words."""

from __future__ import annotations

import ipaddress
import logging
import socket
import ssl
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime

import httpx

from bridge.web.owner import Owner

logging.getLogger("httpx").setLevel(logging.WARNING)  # its INFO lines quote whole URLs, identifiers included
logging.getLogger("httpcore").setLevel(logging.WARNING)

TIMEOUTS_PER_ANSWER = 10
"""A peer that keeps sending, but slowly, is given up after so many times `timeout_s`."""

COMPRESSED = frozenset({"", "identity", "gzip"})
"""What an answer may be packed in, once. httpx unpacks every layer that an answer names, a chunk at a time: gzip in
gzip makes terabytes of one chunk."""

LONGEST_WAIT_S = 3600.0


class Unusable(Exception):
    """An answer that is not read to its end. The message says why; the client that asked makes it its own error."""


class TooLarge(Unusable):
    """The answer is larger than what is read of it."""


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port of an address: what credentials belong to (RFC 6454). Raises httpx.InvalidURL.

    >>> origin("https://ehr.example/fhir") == origin("https://EHR.example:443/other")
    True
    """
    parsed = httpx.URL(url)
    port = parsed.port or {"http": 80, "https": 443}.get(parsed.scheme)
    return parsed.scheme, parsed.host, port


def same_origin(url: str, base: str) -> bool:
    """Whether an address that a peer gave (a link to the next page, a Location) may be asked with what `base` is.

    Result  False as well for what is no address, or carries a user name; relative addresses count from `base`

    >>> same_origin("https://ehr.example/fhir?page=2", "https://ehr.example/fhir")
    True
    >>> same_origin("https://ehr.example@evil.example/", "https://ehr.example/fhir")
    False
    """
    try:
        resolved = httpx.URL(base).join(url)
        return not resolved.userinfo and origin(str(resolved)) == origin(base)
    except (httpx.InvalidURL, ValueError):
        return False


def loopback(url: str) -> bool:
    """Whether an address is on this machine by its text alone; names other than localhost are not looked up.

    >>> loopback("http://127.0.0.1:8080/fhir"), loopback("http://127.0.0.1.evil.example/")
    (True, False)
    """
    try:
        host = httpx.URL(url).host
    except httpx.InvalidURL:
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def can_be_asked(url: str) -> bool:
    """Whether this is an http or https address with a host, and a port that exists."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return False
    port = 80 if parsed.port is None else parsed.port
    return parsed.scheme in ("http", "https") and bool(parsed.host) and 0 < port <= 65_535


def check_address(owner: Owner, url: str) -> None:
    """Raises ConfigError when `url` cannot be asked."""
    if not can_be_asked(url):
        raise owner.misconfigured("url is not a valid address; allowed: http://HOST:PORT, PORT 1 to 65535")


def bounded(response: httpx.Response, most_bytes: int, timeout_s: float) -> Iterator[bytes]:
    """The content of a streamed answer as it arrives.

    Units   most_bytes counts what is unpacked; at most TIMEOUTS_PER_ANSWER times timeout_s are waited in all
    Raises  TooLarge, Unusable; httpx.HTTPError when the connection fails
    """
    if packed_otherwise(response):
        raise Unusable("the answer is packed in another way than gzip: refused")
    until, size = time.monotonic() + TIMEOUTS_PER_ANSWER * timeout_s, 0
    for chunk in response.iter_bytes():
        size += len(chunk)
        if size > most_bytes:
            raise TooLarge(f"an answer is larger than {most_bytes >> 20} MiB: refused")
        if time.monotonic() > until:
            raise Unusable("an answer arrives too slowly: given up; check the network, or raise timeout_s")
        yield chunk


def packed_otherwise(response: httpx.Response) -> bool:
    """Whether the answer's content is packed as it must not be: it is then not to be read."""
    return response.headers.get("content-encoding", "").strip().lower() not in COMPRESSED


def retry_after(response: httpx.Response) -> float | None:
    """Seconds that the peer asks to wait (RFC 9110 10.2.3), an hour at most; None when it does not say."""
    value = response.headers.get("retry-after", "")
    if value.isascii() and value.isdigit():
        return min(float(value), LONGEST_WAIT_S)
    try:
        asked = parsedate_to_datetime(value).timestamp()
        sent = parsedate_to_datetime(response.headers.get("date", "")).timestamp()
    except (TypeError, ValueError):
        return None
    return min(max(asked - sent, 0.0), LONGEST_WAIT_S)


def explained(error: httpx.HTTPError, *, setting: str, product: str, timeout_s: float) -> str:
    """What went wrong, from the type and its causes; never the error's own text, which may quote the URL.

    `setting` is where the address stands, `product` what the operator calls the peer.
    """
    causes = list(_causes(error))
    if isinstance(error, httpx.ConnectTimeout):
        return f"no connection within {timeout_s:g} s (timeout_s): check {setting} and the network"
    if isinstance(error, httpx.TimeoutException):
        return f"no answer within {timeout_s:g} s (timeout_s)"
    if any(isinstance(c, ssl.SSLError) for c in causes):
        return f"the TLS connection failed: check the certificates, and http or https in {setting}"
    if any(isinstance(c, socket.gaierror) for c in causes):
        return f"the host name in {setting} is not known"
    if any(isinstance(c, ConnectionRefusedError) for c in causes):
        return f"connection refused: is {product} running, and its port the one in {setting}?"
    if isinstance(error, httpx.DecodingError):
        return "the answer's compression is damaged"
    if isinstance(error, httpx.ReadError | httpx.WriteError | httpx.CloseError | httpx.RemoteProtocolError):
        return "the connection was cut before the answer was complete"
    return f"cannot be reached ({type(error).__name__}): check {setting} and the network"


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
