"""TLS as a client: which certificates are trusted, and which one is ours (PS3.15 B.12: TLS 1.2 or newer)."""

from __future__ import annotations

import ssl
from pathlib import Path

from bridge.web.owner import Owner


def client_context(
    owner: Owner, *, ca: Path | None = None, certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """The TLS settings of one source or sink towards its peer.

    Result  trusts `ca` alone when given, else the system's authorities; shows `certificate` with `key` when given
    Raises  ConfigError, naming the setting, when a file cannot be used
    """
    context = _context(owner, ca, None)
    if certificate is not None:
        try:
            context.load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError):
            raise owner.misconfigured("tls.certificate, tls.key: not a readable PEM certificate with its key") from None
    return context


def token_context(owner: Owner, *, ca: Path | None = None) -> ssl.SSLContext:
    """TLS towards a token endpoint that is not on the server itself, and may be anybody's.

    Result  trusts the system's authorities, and `ca` besides; shows no certificate
    Raises  ConfigError, naming the setting, when the file cannot be used
    """
    return _context(owner, None, ca)


def _context(owner: Owner, only: Path | None, besides: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(only) if only else None)
        if besides is not None:
            context.load_verify_locations(besides)
    except (OSError, ssl.SSLError):
        raise owner.misconfigured("tls.ca: not a readable file of PEM certificates") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
