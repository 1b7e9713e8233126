"""Queries of one archive, made whole: what it cuts short is asked again in parts, what it adds is left out.

Only single values, UID lists and ranges of dates or times are asked for; whatever else an archive matches or does
not, the answers are compared here again (PS3.4 C.2.2.2).
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

from bridge.errors import RejectedInput, SourceUnavailable
from bridge.model import Rejection
from bridge.sources.dimse_keys import MODALITIES
from bridge.sources.dimse_lines import Lines
from bridge.sources.identifier import Match, encoded
from bridge.sources.object_files import SUCCESS
from bridge.sources.scu import LIMIT_REACHED
from bridge.translate.uids import checked_uid

log = logging.getLogger("bridge.dimse")

ROUND_NUMBERS = frozenset(
    {50, 100, 128, 150, 200, 250, 256, 300, 400, 500, 512, 600, 750, 800, 1000, 1024, 1500, 2000, 2048, 2500, 3000}
    | {4000, 4096, 5000, 8192, 10_000, 20_000, 25_000, 32_768, 50_000}
)
"""So many matches may be all there are, or all that the archive gives: archives that cut short rarely say so."""

MAXIMUM_QUERIES = 20_000
"""Parts of one question; more means that the archive does not match as it should."""

_OUT_OF_RESOURCES = 0xA700
_MEANINGS = {
    0xA700: "out of resources",
    0xA900: "it does not take our identifier",
    0xFE00: "cancelled there",
    0x0122: "the query model is not supported",
    0x0124: "we are not authorized",
}
_LAST_S = 86_399


@dataclass(frozen=True)
class Window:
    """Which studies are asked for: by days (None: open), then by seconds of one day, then by one modality."""

    first: date | None = None
    last: date | None = None
    first_s: int = 0
    last_s: int = _LAST_S
    modality: str = ""

    def keys(self) -> dict[str, str]:
        """The keys to ask with. Ends of times overlap by a second, and the day's last is open: fractions."""
        keys = {"StudyDate": "", "StudyTime": "", "ModalitiesInStudy": self.modality}
        if self.first or self.last:
            days = [f"{d:%Y%m%d}" if d else "" for d in (self.first, self.last)]
            keys["StudyDate"] = days[0] if days[0] == days[1] else "-".join(days)
        if (self.first_s, self.last_s) != (0, _LAST_S):
            keys["StudyTime"] = f"{_clock(self.first_s)}-{_clock(self.last_s + 1) if self.last_s < _LAST_S else ''}"
        return keys

    def holds(self, match: Match) -> bool:
        """Whether a match is what was asked for. What has no value to compare by is: it is a study all the same."""
        day, moment = match.text("StudyDate").replace(".", ""), match.text("StudyTime").replace(":", "")[:6]
        if len(day) == 8 and (
            (self.first and day < f"{self.first:%Y%m%d}") or (self.last and day > f"{self.last:%Y%m%d}")
        ):
            return False
        part_of_day = (self.first_s, self.last_s) != (0, _LAST_S)
        if part_of_day and len(moment) == 6 and not _clock(self.first_s) <= moment <= _clock(self.last_s + 1):
            return False
        return not self.modality or self.modality in (match.text("ModalitiesInStudy") or self.modality).split("\\")

    def parts(self, today: date, timeless: bool) -> list[Window]:
        """The same in smaller parts, which may overlap; [] when there are none smaller."""
        if self.first is None or self.last is None:
            return self._closed(today)
        if self.first < self.last:
            middle = self.first + (self.last - self.first) // 2
            return [replace(self, last=middle), replace(self, first=middle + timedelta(days=1))]
        parts = []
        if self.first_s < self.last_s:
            half = (self.first_s + self.last_s) // 2
            parts = [replace(self, last_s=half), replace(self, first_s=half + 1)]
        if self.modality:
            return [] if timeless else parts
        return parts + [replace(self, modality=m) for m in MODALITIES] if timeless or not parts else parts

    def _closed(self, today: date) -> list[Window]:
        """Open ends become a window of their own, which holds little, and days that can be divided."""
        first = self.first or min(date(1970, 1, 1), self.last or today)
        last = self.last or max(today, self.first or today)
        inner = replace(self, first=first, last=last)
        outer = [] if self.first else [replace(self, last=first - timedelta(days=1))]
        if not self.last:
            outer.append(replace(self, first=last + timedelta(days=1)))
        return [inner, *outer]


@dataclass(frozen=True)
class Listing:
    """The series of a study or the instances of a series, in order of UID; `rejected` those that cannot be read."""

    matches: tuple[Match, ...]
    rejected: tuple[Rejection, ...]

    @property
    def number(self) -> int:
        return len(self.matches) + len(self.rejected)


class Queries:
    """C-FIND in the Study Root. Raises SourceUnavailable rather than giving a part.

    `response_limit` is how many matches the archive gives at most, where that is known; 0: a round number of
    matches is taken for a limit.
    """

    def __init__(self, name: str, lines: Lines, today: Callable[[], date], response_limit: int = 0) -> None:
        self._name, self._lines, self._today = name, lines, today
        self._limit = response_limit
        self._told = False
        self._largest: Counter[str] = Counter()
        """The most matches ever given at each level: no smaller number of them is the archive's limit there."""

    def studies(self, window: Window, keys: Sequence[str], rejected: dict[str, Rejection]) -> Iterator[Match]:
        """Every study of a window once, as answers come; what cannot be read goes into `rejected`.

        An archive that does not match dates gives studies outside the window too: then they are all it has. Raises
        SourceUnavailable in the middle when it cannot be made whole.
        """
        seen: set[str] = set()
        waiting = [window]
        for _ in range(MAXIMUM_QUERIES):
            if not waiting:
                return
            asked = waiting.pop()
            page = self._asked("STUDY", dict.fromkeys(keys, "") | asked.keys())
            rejected |= {r.key: r for r in page.rejected}
            strangers = not all(map(asked.holds, page.matches))
            if page.limited:
                waiting += self._divided(asked, page, strangers)
            for match in sorted(page.matches, key=lambda m: m.content):
                uid = match.text("StudyInstanceUID")
                if uid not in seen and (window.holds(match) or not page.limited):
                    seen.add(uid)
                    yield match
        raise self._unavailable(f"more than {MAXIMUM_QUERIES} queries for one question: it cuts every answer short")

    def study(self, study_instance_uid: str, keys: Sequence[str]) -> Match | None:
        """One study, or None when the archive does not have it."""
        found = self.by_uid([study_instance_uid], keys)
        return found.get(study_instance_uid)

    def by_uid(self, uids: Sequence[str], keys: Sequence[str]) -> dict[str, Match]:
        """The studies of a list of UIDs that the archive has; an archive that knows no lists is asked for each."""
        asked = dict.fromkeys(keys, "") | {"StudyInstanceUID": "\\".join(uids)}
        listing = self._listed("STUDY", asked, "StudyInstanceUID", frozenset(uids))
        found = {m.text("StudyInstanceUID"): m for m in listing.matches}
        if listing.rejected and len(found) < len(uids):
            raise self._unavailable(f"a match cannot be read: {listing.rejected[0].error}")
        if len(uids) > 1:
            for uid in set(uids) - found.keys():
                found |= self.by_uid([uid], keys)
        return found

    def series(self, study_instance_uid: str, keys: Sequence[str]) -> Listing:
        """The series of a study."""
        asked = dict.fromkeys(keys, "") | {"StudyInstanceUID": study_instance_uid, "SeriesInstanceUID": ""}
        return self._listed("SERIES", asked, "StudyInstanceUID", frozenset([study_instance_uid]))

    def instances(self, study_instance_uid: str, series_instance_uid: str, keys: Sequence[str]) -> Listing:
        """The instances of a series. Both parents are given: many archives want them."""
        asked = dict.fromkeys(keys, "") | {
            "StudyInstanceUID": study_instance_uid,
            "SeriesInstanceUID": series_instance_uid,
            "SOPInstanceUID": "",
        }
        return self._listed("IMAGE", asked, "SeriesInstanceUID", frozenset([series_instance_uid]))

    def is_limit(self, number: int) -> bool:
        """Whether an answer of so many may have been cut short."""
        return number >= self._limit if self._limit else number in ROUND_NUMBERS

    def _listed(self, level: str, keys: Mapping[str, str], keyword: str, values: frozenset[str]) -> Listing:
        """A question that cannot be divided: matches whose `keyword`, where it is given, is among the values."""
        page = self._asked(level, keys)
        matches = {m.text(_UNIQUE[level]): m for m in page.matches if m.text(keyword) in values | {""}}
        if page.said_limit or (page.limited and len(matches) < len(page.matches)):
            raise self._unavailable(f"it cut an answer at {level} level short: raise its limit of responses")
        return Listing(tuple(match for _, match in sorted(matches.items())), tuple(page.rejected))

    def _divided(self, asked: Window, page: _Page, strangers: bool) -> list[Window]:
        timeless = any(not m.text("StudyTime") for m in page.matches)
        parts = asked.parts(self._today(), timeless and asked.first == asked.last)
        if strangers or not parts:
            raise self._unavailable(
                f"its answers end at {page.count} matches, and it does not divide them by StudyDate, StudyTime and "
                "ModalitiesInStudy: raise its limit of responses, or set response_limit if this is not its limit"
            )
        return parts

    def _asked(self, level: str, keys: Mapping[str, str]) -> _Page:
        found = self._lines.find(encoded({"QueryRetrieveLevel": level} | dict(keys)))
        if found.without_optional_keys and not self._told:
            self._told = True
            log.info("source %s: its archive does not support every key it is asked for (FF01)", self._name)
        count = len(found.matches)
        said = found.status in (LIMIT_REACHED, _OUT_OF_RESOURCES)
        if not said and found.status != SUCCESS:
            meaning = _MEANINGS.get(found.status, "it cannot process the query")
            raise self._unavailable(f"C-FIND at {level} level ended with status {found.status:04X}: {meaning}")
        limited = said or (self.is_limit(count) and count >= self._largest[level])
        self._largest[level] = max(self._largest[level], count)
        matches, rejected = [], []
        for content in found.matches:
            try:
                matches.append(_readable(content, level))
            except RejectedInput as error:
                rejected.append(self._rejection(level, str(error), content))
        return _Page(matches, rejected, count, limited, said)

    def _rejection(self, level: str, problem: str, content: bytes) -> Rejection:
        key = f"{self._name}/C-FIND/{level}/{hashlib.sha256(content).hexdigest()[:16]}"
        return Rejection(key, f"a match at {level} level: {problem}", {"level": level, "bytes": len(content)})

    def _unavailable(self, problem: str) -> SourceUnavailable:
        return self._lines.peer.unavailable(problem)


@dataclass(frozen=True)
class _Page:
    matches: list[Match]
    rejected: list[Rejection]
    count: int
    limited: bool
    said_limit: bool


_UNIQUE = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}


def _readable(content: bytes, level: str) -> Match:
    match = Match(content)
    checked_uid(match.text(_UNIQUE[level]), _UNIQUE[level])
    return match


def _clock(second: int) -> str:
    return f"{second // 3600:02}{second // 60 % 60:02}{second % 60:02}" if second <= _LAST_S else "235959"
