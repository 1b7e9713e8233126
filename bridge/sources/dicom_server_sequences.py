"""The change feed by sequence number (API v1): gaps are crossed, the end is never passed, a reset is seen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bridge.model import Rejection
from bridge.sources.dicom_server_log import ChangeLog, Entry, LogPage, Mark, whole

SPAN = 100
"""Sequence numbers asked for at once: the server takes `limit` as a span of numbers, not as a number of entries."""


@dataclass(frozen=True)
class Step:
    """What one look at the feed brought.

    Result  `position` where to go on, "" for where it was; `done` nothing is left for now; `reset` the feed is not
            the one that the position was taken in
    """

    entries: tuple[Entry, ...] = ()
    rejected: tuple[Rejection, ...] = ()
    position: str = ""
    done: bool = False
    reset: bool = False


@dataclass(frozen=True)
class SequencePosition:
    """How far the feed has been read, and the last entry seen there. `sequence` may be ahead of it, in a gap."""

    sequence: int = 0
    mark: Mark | None = None

    @classmethod
    def parse(cls, text: str | None) -> SequencePosition:
        """The position from its text; the start for None and for what is no position of this kind."""
        plain = plain_position(text, "v1")
        sequence = whole(plain.get("sequence"))
        return cls(sequence, Mark.parse(plain.get("mark"))) if sequence is not None else cls()

    @property
    def text(self) -> str:
        return json.dumps({"api": "v1", "sequence": self.sequence, "mark": self.mark}, separators=(",", ":"))

    def after(self, page: LogPage, latest: int) -> SequencePosition:
        """Beyond the highest number on the page, or beyond the span if it is empty: sequence numbers have gaps."""
        end = self.sequence + SPAN
        inside = range(self.sequence + 1, max(end, latest) + 1)
        reached = max((s for s in page.sequences if s in inside), default=min(end, latest))
        last = max((e for e in page.entries if e.sequence in inside), key=lambda e: e.sequence or 0, default=None)
        return SequencePosition(reached, last.mark if last is not None else self.mark)


class SequenceFeed:
    """Walks the feed from a position. The newest entry is asked for first, so that a gap is not taken for the end."""

    def __init__(self, log: ChangeLog) -> None:
        self._log = log

    def steps(self, position: str | None) -> Iterator[Step]:
        """One step for each answer of the server, until done."""
        here, latest = SequencePosition.parse(position), self._log.latest()
        if self._is_other(here, latest):
            yield Step(position=SequencePosition().text, reset=True)
            return
        if latest is None or latest.sequence == here.sequence:
            yield Step(done=True)
            return
        while here.sequence < latest.sequence:
            place = f"after {here.sequence}"
            page = self._log.page(place, {"offset": here.sequence, "limit": SPAN})
            here = here.after(page, latest.sequence)
            yield Step(page.entries, page.rejected, here.text, done=here.sequence >= latest.sequence)

    def _is_other(self, here: SequencePosition, latest: Mark | None) -> bool:
        """Whether the feed is another one than the position's: it is shorter, or the entry seen last is not in it."""
        if here == SequencePosition():
            return False
        if latest is None or latest.sequence < here.sequence:
            return True
        if here.mark is None or latest == here.mark:
            return False
        before = here.mark.sequence - 1
        shown = self._log.page(f"after {before}", {"offset": before, "limit": 1})
        return here.mark not in [e.mark for e in shown.entries]


def plain_position(text: str | None, api: str) -> dict[str, Any]:
    """The members of a position of one API; none for any other text."""
    try:
        plain = json.loads(text or "{}")
    except ValueError:
        return {}
    return plain if isinstance(plain, dict) and plain.get("api") == api else {}
