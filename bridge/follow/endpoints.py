"""Which addresses notifications may be sent to. They come from outside: only what the operator names is used."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

_PLAIN = re.compile(r"https?://[A-Za-z0-9._-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~!$&'()*+,;=:@/-]*)?")
"""No user, query, fragment, escape or other character that two readers of an address could take differently."""

_PORTS = {"http": 80, "https": 443}


def is_plain(endpoint: str) -> bool:
    """Whether an address is one that is understood in one way only.

    >>> is_plain("https://ehr.example/hooks/1"), is_plain("https://ehr.example/hooks/../admin")
    (True, False)
    """
    return bool(_PLAIN.fullmatch(endpoint)) and not {".", ".."} & set(endpoint.split("/"))


def is_allowed(endpoint: str, prefixes: Iterable[str]) -> bool:
    """Whether an address lies under one of the prefixes: the same origin, and a path that begins with whole segments.

    >>> is_allowed("https://ehr.example/hooks/1", ["https://EHR.example:443/hooks"])
    True
    >>> is_allowed("https://ehr.example/hooks2", ["https://ehr.example/hooks"])
    False
    """
    return is_plain(endpoint) and any(_within(endpoint, prefix) for prefix in prefixes)


def _within(endpoint: str, prefix: str) -> bool:
    path, start = urlsplit(endpoint).path.rstrip("/"), urlsplit(prefix).path.rstrip("/")
    return _origin(endpoint) == _origin(prefix) and (path == start or path.startswith(f"{start}/"))


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        return parts.scheme, "", None
    return parts.scheme, (parts.hostname or "").lower(), port or _PORTS[parts.scheme]
