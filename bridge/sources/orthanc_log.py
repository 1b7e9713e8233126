"""Orthanc's change log: what a page of /changes says, and the position in it that outlives the process."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bridge.model import Rejection

HINTS = frozenset(
    {
        "NewInstance", "NewSeries", "NewStudy", "ModifiedStudy", "ModifiedSeries", "ModifiedPatient",
        "AnonymizedStudy", "AnonymizedSeries", "AnonymizedPatient", "UpdatedMetadata", "UpdatedAttachment",
    }
)  # fmt: skip
"""What is known to mean that a study changed. A type never heard of is taken for one as well."""

SETTLED = frozenset({"StableStudy"})
"""Said of a study some time (StableAge) after its last instance came, which has an entry of its own. It is worth a
count: that finds instances whose entries were cleared, or deleted instances, without reading every study twice."""

NOTHING_NEW = frozenset({"NewPatient", "StablePatient", "StableSeries", "CompletedSeries"})
"""Said besides entries about the same instances. About a patient it would mean to read all the older studies again."""

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{8}){4}")
_LEVELS = {"patients": "Patient", "studies": "Study", "series": "Series", "instances": "Instance"}


def is_orthanc_id(value: object) -> bool:
    """Whether this is an Orthanc identifier (five groups of eight hexadecimal digits): only such go into a URL."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


@dataclass(frozen=True)
class Entry:
    """One entry of the log. `level` is Patient, Study, Series, Instance, or "" when the entry does not say.

    Its Date is the server's local time without zone: it tells entries apart, and is never used as a time.
    """

    sequence: int
    change_type: str
    level: str
    orthanc_id: str
    date: str

    @property
    def mark(self) -> tuple[str, ...]:
        return str(self.sequence), self.orthanc_id, self.date, self.change_type


@dataclass(frozen=True)
class LogPage:
    """One answer of /changes.

    Result  `entries` in the order of the log; `rejected` what is no entry; `last` the log's own cursor;
            `reached` the highest sequence number on the page, `last` if the page has none; `done` nothing follows.
    """

    entries: tuple[Entry, ...]
    rejected: tuple[Rejection, ...]
    last: int
    reached: int
    done: bool

    @classmethod
    def parse(cls, answer: Any, after: int) -> LogPage | None:
        """The page that was asked for from the position `after`; None if it is no page."""
        if not isinstance(answer, Mapping):
            return None
        changes, last = answer.get("Changes"), _whole(answer.get("Last"))
        if not isinstance(changes, list) or last is None:
            return None
        read = list(_read(changes, after))
        entries = tuple(e for e in read if isinstance(e, Entry))
        sequences = [s for c in changes if isinstance(c, Mapping) and (s := _whole(c.get("Seq"))) is not None]
        done = bool(answer.get("Done", True))
        rejected = tuple(r for r in read if isinstance(r, Rejection))
        unnumbered = last if done or changes else 0
        return cls(entries, rejected, last, max(sequences, default=unnumbered), done)


@dataclass(frozen=True)
class Position:
    """How far the log has been read, and the entry that stood there: a replaced database shows another one.

    Result  `mark` is that entry's number, identifier, date and type; () when none stood there.
    """

    sequence: int = 0
    mark: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str | None) -> Position:
        """The position from its text; the start for None and for what is no position of ours."""
        try:
            plain = json.loads(text or "{}")
            sequence, mark = plain.get("sequence", 0), plain.get("mark", [])
        except (ValueError, AttributeError):
            return cls()
        if _whole(sequence) is None or not isinstance(mark, list) or not all(isinstance(m, str) for m in mark):
            return cls()
        return cls(sequence, tuple(mark))

    @property
    def text(self) -> str:
        return json.dumps({"sequence": self.sequence, "mark": self.mark}, separators=(",", ":"))

    @property
    def since(self) -> int:
        """What to ask from: one before the remembered entry, so that it is shown again."""
        return self.sequence - 1 if self.mark else self.sequence

    def contradicts(self, page: LogPage) -> bool:
        """Whether the page is of another log than the one this position was taken in.

        The remembered entry may be missing: entries vanish with what they are about.
        """
        if page.last < self.sequence:
            return True
        there = [e.mark for e in page.entries if e.sequence == self.sequence]
        return bool(self.mark and there) and self.mark not in there

    def after(self, page: LogPage) -> Position:
        """The position once the page is read."""
        if page.reached <= self.sequence:
            return self
        return Position(page.reached, next((e.mark for e in page.entries if e.sequence == page.reached), ()))


def _read(changes: list[Any], after: int) -> Iterator[Entry | Rejection]:
    for number, change in enumerate(changes, start=1):
        sequence = _whole(change.get("Seq")) if isinstance(change, Mapping) else None
        entry = _entry(change, sequence)
        if entry is not None:
            yield entry
        else:
            key = f"change {sequence}" if sequence is not None else f"change {number} after {after}"
            yield Rejection(key, _malformed(change), {"position": sequence if sequence is not None else after})


def _entry(change: Any, sequence: int | None) -> Entry | None:
    if sequence is None or not is_orthanc_id(change.get("ID")):
        return None
    kind, date, level = (change.get(key) for key in ("ChangeType", "Date", "ResourceType"))
    if level not in _LEVELS.values():
        path = str(change.get("Path", "")).strip("/").partition("/")[0]
        level = _LEVELS.get(path, "")
    return Entry(sequence, str(kind), str(level), change["ID"], str(date))


def _malformed(change: Any) -> str:
    if not isinstance(change, Mapping):
        return "an entry of /changes is not an object"
    missing = "Seq" if _whole(change.get("Seq")) is None else "ID"
    return f"an entry of /changes has no usable {missing}"


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
