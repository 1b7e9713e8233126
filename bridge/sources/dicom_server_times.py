"""The change feed by time (API v2): read forward, the newest part again and again until nothing can be late."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from bridge.sources.dicom_server_log import TICKS, ChangeLog, LogPage, Mark, ticks, time_text, whole
from bridge.sources.dicom_server_sequences import Step, plain_position

ROWS = 200
"""Entries asked for at once: the most that the server gives."""

RUNS = 500
"""Runs of sequence numbers remembered: a few suffice, since they have few gaps."""


@dataclass(frozen=True)
class Seen:
    """Sequence numbers read already, as runs [first, last] in order. The lowest are forgotten when there are too many
    runs: an entry that is then read again only names its study again."""

    runs: tuple[tuple[int, int], ...] = ()

    def __contains__(self, number: object) -> bool:
        if not isinstance(number, int):
            return False
        place = bisect_right(self.runs, (number, 2**63))
        return place > 0 and number <= self.runs[place - 1][1]

    def with_all(self, numbers: Iterable[int]) -> Seen:
        """These numbers as well.

        >>> Seen().with_all([5, 1, 2, 3]).with_all([4]).runs
        ((1, 5),)
        """
        joined: list[tuple[int, int]] = []
        for first, last in sorted([*self.runs, *((n, n) for n in set(numbers))]):
            if joined and first <= joined[-1][1] + 1:
                joined[-1] = joined[-1][0], max(last, joined[-1][1])
            else:
                joined.append((first, last))
        return Seen(tuple(joined[-RUNS:]))

    @classmethod
    def parse(cls, plain: Any) -> Seen:
        if not isinstance(plain, list):
            return cls()
        runs = [(r[0], r[1]) for r in plain if isinstance(r, list) and len(r) == 2 and None not in map(whole, r)]
        return cls(tuple(sorted(runs)))


@dataclass(frozen=True)
class TimePosition:
    """Where a pass over the feed has come to, and what the passes before it found. Times are ticks.

    Result  `start`, `skip`: the pass goes on with entries from this time, less so many that were read already;
            `again`: where the next pass begins, once this one has come to entries that late ones may still precede;
            `newest`: the last entry when a pass was last complete, `met`: this pass has come across it;
            `settles_s`: when nothing can be late any more, in seconds since the epoch; `settled`: a pass was
            complete after that
    """

    start: int = 0
    skip: int = 0
    again: int | None = None
    newest: Mark | None = None
    met: bool = False
    settles_s: float = 0.0
    settled: bool = False
    seen: Seen = field(default_factory=Seen)

    @classmethod
    def parse(cls, text: str | None) -> TimePosition:
        """The position from its text; the start for None and for what is no position of this kind."""
        plain = plain_position(text, "v2")
        start, skip, settles_s = whole(plain.get("start")), whole(plain.get("skip")), plain.get("settles_s")
        if start is None or skip is None or not isinstance(settles_s, int | float):
            return cls()
        return cls(
            start,
            skip,
            whole(plain.get("again")),
            Mark.parse(plain.get("newest")),
            plain.get("met") is True,
            settles_s,
            plain.get("settled") is True,
            Seen.parse(plain.get("seen")),
        )

    @property
    def misses_newest(self) -> bool:
        """Whether the pass has not come across the entry that was the newest, though that has a time to be found by."""
        return self.newest is not None and not self.met and ticks(self.newest.timestamp) is not None

    @property
    def text(self) -> str:
        plain = {"api": "v2", **self.__dict__, "seen": self.seen.runs}
        return json.dumps(plain, separators=(",", ":"))


@dataclass(frozen=True)
class _Look:
    """What a walk knows of the present: the newest entry, its time (`newest`), the clock; `calm` is the time before
    which nothing new appears any more. Times are ticks, but for those ending in `_s`."""

    latest: Mark
    newest: int
    now_s: float
    overlap_s: float

    @property
    def calm(self) -> int:
        """By the clock as well: the newest entry's own time may be one that is far in the future."""
        return max(0, min(self.newest, int(self.now_s * TICKS)) - int(self.overlap_s * TICKS))


class TimeFeed:
    """Walks the feed from a position.

    Entries are timed before they are committed, so one may appear among older ones. What is younger than `overlap_s`
    is therefore read again, until the clock says that it has aged. Each request begins at the time that the one
    before ended with: the server skips only entries of that very time, and a year without entries costs nothing.
    """

    def __init__(self, log: ChangeLog, overlap_s: float, clock: Callable[[], float]) -> None:
        self._log, self._overlap_s, self._clock = log, overlap_s, clock

    def steps(self, position: str | None) -> Iterator[Step]:
        """One step for each answer of the server, until done."""
        here, now_s, latest = TimePosition.parse(position), self._clock(), self._log.latest()
        if _is_shorter(here, latest):
            yield _RESET
            return
        if latest is None or (here.settled and here.newest == latest):
            yield Step(done=True)
            return
        found = ticks(latest.timestamp)
        look = _Look(latest, int(now_s * TICKS) if found is None else found, now_s, self._overlap_s)
        done = False
        while not done:
            page = self._page(here, look)
            if _is_other(here, page):
                yield _RESET
                return
            entries = tuple(e for e in page.entries if e.sequence not in here.seen)
            rejected = tuple(r for r in page.rejected if r.evidence.get("sequence") not in here.seen)
            here, done = _after(here, page, look)
            if done and here.misses_newest:
                yield _RESET
                return
            here = _next_pass(here, look) if done else here
            yield Step(entries, rejected, here.text, done)

    def _page(self, here: TimePosition, look: _Look) -> LogPage:
        start, end = time_text(here.start), time_text(max(look.newest, here.start) + 1)
        parameters: dict[str, str | int] = {"startTime": start, "endTime": end, "offset": here.skip, "limit": ROWS}
        return self._log.page(f"from {start}", parameters)


_RESET = Step(position=TimePosition().text, reset=True)


def _is_shorter(here: TimePosition, latest: Mark | None) -> bool:
    """Whether the feed ends before the position: it is not the one that the position was taken in."""
    if here.newest is None:
        return False
    if latest is None:
        return True
    then, now = ticks(here.newest.timestamp), ticks(latest.timestamp)
    return then is not None and now is not None and (now, latest.sequence) < (then, here.newest.sequence)


def _is_other(here: TimePosition, page: LogPage) -> bool:
    """Whether the page shows another entry under the number of the one that was the newest."""
    if here.newest is None:
        return False
    return any(e.sequence == here.newest.sequence and e.mark != here.newest for e in page.entries)


def _after(here: TimePosition, page: LogPage, look: _Look) -> tuple[TimePosition, bool]:
    """The position behind a page, and whether nothing follows it."""
    rows = len(page.timestamps)
    met = here.met or (here.newest is not None and here.newest.sequence in page.sequences)
    here = replace(here, met=met, seen=here.seen.with_all(page.sequences))
    if not rows or (rows < ROWS and look.latest.sequence in page.sequences):
        return here, True
    times = [ticks(text) for text in page.timestamps]
    last = next((t for t in reversed(times) if t is not None), None)
    if last is None or last <= here.start:
        return replace(here, skip=here.skip + rows), False
    again = look.calm if here.again is None and last > look.calm else here.again
    return replace(here, start=last, skip=times.count(last), again=again), False


def _next_pass(here: TimePosition, look: _Look) -> TimePosition:
    """Where the next pass begins: with whatever was still too young to be complete when this one read it."""
    settles_s = here.settles_s
    if here.newest != look.latest:
        settles_s = max(look.now_s, look.newest / TICKS) + look.overlap_s
    start = look.calm if here.again is None else here.again
    return TimePosition(start, 0, None, look.latest, False, settles_s, look.now_s >= settles_s, here.seen)
