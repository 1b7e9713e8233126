"""The other side of an association: how it is reached, and in plain words why it cannot be."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass

from bridge.errors import ConfigError, SourceUnavailable
from bridge.sources.association import acknowledge_at_once, answer_at_once


@dataclass(frozen=True)
class Peer:
    """The other side, and who we are to it.

    `ae_title` is what it is called, `calling_ae_title` what it knows us as. `timeout_s` is the longest silence within
    an exchange. With `tls`, its certificate must name `tls_name`, or `host` when that is empty.
    """

    host: str
    port: int
    ae_title: str
    calling_ae_title: str = "BRIDGE"
    tls: ssl.SSLContext | None = None
    tls_name: str = ""
    connect_timeout_s: float = 10.0
    timeout_s: float = 60.0

    def __post_init__(self) -> None:
        for title in (self.ae_title, self.calling_ae_title):
            if not 0 < len(title.strip()) <= 16 or not title.isascii() or not title.isprintable() or "\\" in title:
                raise ConfigError("an AE title has 1 to 16 ASCII characters other than backslash")

    def unavailable(self, problem: str) -> SourceUnavailable:
        """The error of this peer; `problem` says what to do and quotes nothing of an identifier."""
        return SourceUnavailable(f"{self.ae_title} at {self.host}:{self.port}: {problem}")


def connected(peer: Peer) -> socket.socket:
    try:
        connection = socket.create_connection((peer.host, peer.port), peer.connect_timeout_s)
    except socket.gaierror:
        raise peer.unavailable("its host name cannot be resolved: check host") from None
    except TimeoutError:
        raise peer.unavailable(
            f"no connection within {peer.connect_timeout_s:g} s: check host, port, firewall"
        ) from None
    except OSError as error:
        raise peer.unavailable(f"no connection ({reason_of(error)}): check host and port") from None
    try:
        answer_at_once(connection)
        acknowledge_at_once(connection)
        return peer.tls.wrap_socket(connection, server_hostname=peer.tls_name or peer.host) if peer.tls else connection
    except (OSError, ssl.SSLError, ssl.CertificateError) as error:
        connection.close()
        raise peer.unavailable(_tls_problem(error)) from None


def _tls_problem(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message}): check tls.ca and the name it is issued for"
    if isinstance(error, TimeoutError):
        return "no TLS handshake in time: does the port speak TLS?"
    return f"no TLS with it ({reason_of(error)}): does the port speak TLS, and does it want a certificate of ours?"


def reason_of(error: OSError) -> str:
    return (getattr(error, "reason", None) or error.strerror or type(error).__name__).lower().replace("_", " ")


def refusal(content: bytes, peer: Peer) -> str:
    """Why an association was refused, and what to check (PS3.8 9.3.4)."""
    result, source, diagnostic = (content + b"\0\0\0\0")[1:4]
    reasons = {
        (1, 2): "the application context is not supported",
        (1, 3): f"the calling AE title {peer.calling_ae_title} is not known there: have it entered, with our address",
        (1, 7): f"the called AE title {peer.ae_title} is not known there: check its AE title",
        (2, 2): "the protocol version is not supported",
        (3, 1): "it is congested",
        (3, 2): "it takes no more associations now: lower the number of associations",
    }
    reason = reasons.get((source, diagnostic), "no reason was given: is our AE title known there, with our address?")
    return f"it refused the association{' for now' if result == 2 else ''}: {reason}"


def who_aborted(content: bytes) -> str:
    """Who aborted, and why (PS3.8 9.3.8)."""
    source, reason = (content + b"\0\0\0\0")[2:4]
    if source != 2:
        return "its application"
    reasons = {1: "unrecognized PDU", 2: "unexpected PDU", 4: "unrecognized PDU parameter"}
    reasons |= {5: "unexpected PDU parameter", 6: "invalid PDU parameter"}
    return f"its upper layer: {reasons.get(reason, 'no reason given')}"
