"""The change feed of Microsoft's DICOM server: what one answer says, and times to the seventh digit."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from bridge.errors import InvalidDicomValue
from bridge.model import Rejection
from bridge.sources.web_client import WebClient
from bridge.translate.uids import checked_uid

TICKS = 10_000_000
"""Ticks in a second. The server's times have seven digits after it: with fewer, entries would fall between."""

LONGEST = 64
"""Characters kept of a name, UID or time: longer ones are none."""

ACTIONS = frozenset({"create", "update", "delete"})
UNKNOWN_ACTION = "changefeed/unknown action"
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def ticks(text: str) -> int | None:
    """Ticks since 1970-01-01 UTC of a time with its zone; None if it is none, or before that day."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    try:
        seconds = (datetime.fromisoformat(match[1] + match[3].replace("Z", "+00:00")) - _EPOCH) // timedelta(seconds=1)
    except (ValueError, OverflowError):
        return None
    return seconds * TICKS + int((match[2] or "").ljust(7, "0")[:7]) if seconds >= 0 else None


def time_text(moment: int) -> str:
    """The time as the server takes it: UTC, Z, seven digits.

    >>> time_text(ticks("2024-03-01T10:00:00.1234567+01:00"))
    '2024-03-01T09:00:00.1234567Z'
    """
    seconds, fraction = divmod(moment, TICKS)
    return f"{(_EPOCH + timedelta(seconds=seconds)):%Y-%m-%dT%H:%M:%S}.{fraction:07}Z"


class Mark(NamedTuple):
    """What tells an entry from every other: one of a replaced database differs under the same number."""

    sequence: int
    timestamp: str
    instance: str

    @classmethod
    def parse(cls, plain: Any) -> Mark | None:
        match plain:
            case [int(sequence), str(timestamp), str(instance)] if whole(sequence) is not None:
                return cls(sequence, timestamp, instance)
        return None


class Entry(NamedTuple):
    """One entry of the feed: something happened to an instance of this study. What it was is not believed: state and
    action of an old entry say nothing about the present. `sequence` None: the entry does not tell its own."""

    sequence: int | None
    study: str
    partition: str
    timestamp: str
    instance: str

    @property
    def mark(self) -> Mark | None:
        return None if self.sequence is None else Mark(self.sequence, self.timestamp, self.instance)


@dataclass(frozen=True)
class LogPage:
    """One answer of /changefeed, in its order.

    Result  `entries` that name a study; `rejected` what is wrong with entries; `sequences` of all entries that have
            one; `timestamps` of all, "" where there is none: their number is that of the entries of any kind
    """

    entries: tuple[Entry, ...]
    rejected: tuple[Rejection, ...]
    sequences: tuple[int, ...]
    timestamps: tuple[str, ...]


class ChangeLog:
    """Asks for the feed, never for metadata: what is read later is what counts. Raises SourceUnavailable."""

    def __init__(self, client: WebClient, base: str) -> None:
        self._client, self._path = client, f"{base}/changefeed"

    def latest(self) -> Mark | None:
        """The newest entry; None when nothing ever happened. Raises also where no DICOM server answers."""
        found = self._client.get(f"{self._path}/latest", {"includeMetadata": "false"}, nothing=frozenset())
        if found is None:
            return None
        row = _camel_case(found) if isinstance(found, Mapping) else {}
        sequence = whole(row.get("sequence"))
        if sequence is None:
            raise self._client.unavailable(f"{self._path}/latest did not answer as a DICOM server does: {_CHECK}")
        return Mark(sequence, _text(row, "timestamp"), _text(row, "sopInstanceUid"))

    def page(self, place: str, parameters: Mapping[str, str | int]) -> LogPage:
        """One part of the feed. `place` says where it begins, to tell of entries that do not say it themselves."""
        found = self._client.get(self._path, {**parameters, "includeMetadata": "false"}, nothing=frozenset())
        if not isinstance(found, list):
            raise self._client.unavailable(f"{self._path} did not answer as a DICOM server does: {_CHECK}")
        return _PageReader(place).read(found)


_CHECK = "check url (it ends before the version) and api_version"


class _PageReader:
    def __init__(self, place: str) -> None:
        self._place = place
        self._usable: dict[str, bool] = {}
        self._rejected: list[Rejection] = []
        self._unknown: list[int] = []
        self._sequences: list[int] = []
        self._timestamps: list[str] = []

    def read(self, rows: Sequence[Any]) -> LogPage:
        entries = tuple(entry for number, row in enumerate(rows, start=1) if (entry := self._entry(number, row)))
        if self._unknown:
            evidence = {"sequence": self._unknown[0], "entries": len(self._unknown)}
            self._rejected.append(Rejection(UNKNOWN_ACTION, _UNKNOWN, evidence))
        return LogPage(entries, tuple(self._rejected), tuple(self._sequences), tuple(self._timestamps))

    def _entry(self, number: int, row: Any) -> Entry | None:
        """The entry; None when it names no study."""
        if not isinstance(row, Mapping):
            self._timestamps.append("")
            self._reject(f"{self._place}, entry {number}", "an entry is not an object", {"position": number})
            return None
        if "studyInstanceUid" not in row or "sequence" not in row:
            row = _camel_case(row)
        sequence, study, timestamp = whole(row.get("sequence")), row.get("studyInstanceUid"), _text(row, "timestamp")
        self._timestamps.append(timestamp)
        if sequence is not None:
            self._sequences.append(sequence)
        if not self._is_uid(study):
            if sequence is None:
                self._reject(f"{self._place}, entry {number}", _NO_STUDY, {"position": number})
            else:
                self._reject(str(sequence), _NO_STUDY, {"sequence": sequence})
            return None
        if sequence is None:
            self._reject(str(study), _NO_SEQUENCE, {"study_instance_uid": str(study)})
        elif str(row.get("action")).lower() not in ACTIONS:
            self._unknown.append(sequence)
        return Entry(sequence, str(study), _text(row, "partitionName"), timestamp, _text(row, "sopInstanceUid"))

    def _reject(self, key: str, error: str, evidence: Mapping[str, str | int]) -> None:
        self._rejected.append(Rejection(f"changefeed/{key}", error, evidence))

    def _is_uid(self, value: Any) -> bool:
        if not isinstance(value, str):
            return False
        if value not in self._usable:
            try:
                self._usable[value] = bool(checked_uid(value, "StudyInstanceUID"))
            except InvalidDicomValue:
                self._usable[value] = False
        return self._usable[value]


_NO_STUDY = "StudyInstanceUID of an entry is absent or not a UID"
_NO_SEQUENCE = "an entry has no usable sequence number; its study is read again all the same"
_UNKNOWN = "the action of entries is not Create, Update or Delete; their studies are read again all the same"
_CAMEL = {
    key.lower(): key
    for key in ("sequence", "studyInstanceUid", "sopInstanceUid", "partitionName", "action", "timestamp")
}


def _camel_case(row: Mapping[str, Any]) -> dict[str, Any]:
    """The same members under the names the server sends; its documentation shows others."""
    return {_CAMEL.get(key.lower(), key): value for key, value in row.items()}


def whole(value: Any) -> int | None:
    """A number that counts something: whole, not negative, small enough for the server; else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else None


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    return value[:LONGEST] if isinstance(value, str) else ""
