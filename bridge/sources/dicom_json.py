"""Lists of DICOM JSON objects (PS3.18 Annex F), asked for in the media type that the archive gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bridge.sources.web_client import Parameters, Refusal, WebClient

NOT_ACCEPTABLE = 406
ACCEPTED = ("application/dicom+json", "application/json")
"""The standard's media type, and the one that some servers and proxies know instead."""


def _ignored(_headers: Mapping[str, str]) -> None:
    return None


class DicomJson:
    """GET of lists under one prefix of an archive. Raises as WebClient does."""

    def __init__(self, client: WebClient, prefix: str) -> None:
        self._client, self._prefix = client, "/" + prefix.strip("/") if prefix.strip("/") else ""
        self._accept = ACCEPTED[0]

    def each(
        self,
        path: str,
        visit: Callable[[Any], None],
        parameters: Parameters = (),
        answered: Callable[[Mapping[str, str]], None] = _ignored,
    ) -> int | None:
        """Visits every item of the list under a path; how many there were, None for 404 and 410."""
        accept = self._accept
        try:
            return self._client.each(self._prefix + path, accept, visit, parameters, answered)
        except Refusal as refusal:
            if refusal.code != NOT_ACCEPTABLE or accept == ACCEPTED[1]:
                raise
        found = self._client.each(self._prefix + path, ACCEPTED[1], visit, parameters, answered)
        self._accept = ACCEPTED[1]
        return found


def first_value(item: Any, tag: str) -> Any:
    """The first value of an attribute of a DICOM JSON object; None when absent, empty or null. Lenient: values may
    stand bare, without the list around them."""
    attribute = item.get(tag) if isinstance(item, Mapping) else None
    value = attribute.get("Value") if isinstance(attribute, Mapping) else attribute
    return (value[0] if value else None) if isinstance(value, list) else value
