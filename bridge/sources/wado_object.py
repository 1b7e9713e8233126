"""One object by WADO-RS (PS3.18 10.4.1.1.2), as the archive keeps it."""

from __future__ import annotations

from urllib.parse import quote

from bridge.errors import InvalidFile
from bridge.model import InstanceName
from bridge.sources.web_client import Refusal, UnreadableAnswer, WebClient

_ACCEPTED = (
    'multipart/related; type="application/dicom"; transfer-syntax=*',
    'multipart/related; type="application/dicom"',
    "application/dicom; transfer-syntax=*",
)
"""As it is kept; for servers that know no `transfer-syntax=*`; for those that do not wrap one instance."""

_NOT_ACCEPTABLE = frozenset({400, 406, 415})
_ABOUT_THE_INSTANCE = frozenset({400, 406, 415, 500, 501})


class WadoObject:
    """Objects of one archive. `prefix` stands before `/studies`."""

    def __init__(self, client: WebClient, prefix: str) -> None:
        self._client, self._prefix = client, "/" + prefix.strip("/") if prefix.strip("/") else ""
        self._accepted = 0

    def instance(self, name: InstanceName, most_bytes: int, prefix: str | None = None) -> bytes | None:
        """See `bridge.ports.GivesObjects`; `prefix` where there are several."""
        study, series, instance = (
            quote(uid, safe="") for uid in (name.study_instance_uid, name.series_instance_uid, name.sop_instance_uid)
        )
        path = f"{self._prefix if prefix is None else prefix}/studies/{study}/series/{series}/instances/{instance}"
        for number in range(self._accepted, len(_ACCEPTED)):
            try:
                found = self._client.content(path, _ACCEPTED[number], most_bytes)
            except Refusal as refusal:
                if refusal.code in _NOT_ACCEPTABLE and number + 1 < len(_ACCEPTED):
                    continue
                if refusal.code in _ABOUT_THE_INSTANCE:
                    raise InvalidFile(f"the archive does not give this object: HTTP {refusal.code}") from None
                raise
            except UnreadableAnswer as error:
                raise InvalidFile(str(error)) from None
            self._accepted = number
            return found
        return None
