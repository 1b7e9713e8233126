"""Searches a DICOMweb archive (QIDO-RS, PS3.18 10.6): lists that are whole, or an error, whatever the archive ignores.

An archive that does not page is asked for narrower ranges of StudyDate instead.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from bridge.sources.dicom_json import DicomJson
from bridge.sources.qido_items import EVERYTHING, Part, Study, Window
from bridge.sources.qido_pages import BAD_REQUEST, TOO_BROAD, Item, Page, Pages
from bridge.sources.web_client import Refusal, WebClient

log = logging.getLogger("bridge.sources")

FIELDS = (("includefield", "00081030"), ("includefield", "00100021"))
"""StudyDescription and IssuerOfPatientID are not returned unless asked for (PS3.18 Table 10.6.3-3)."""

SMALLEST_CAP = 50
"""An archive that ignores `offset` is believed not to cut its answers below so many items without saying so."""

MOST_AT_ONCE = 10_000
"""What an archive that ignores `offset` is asked for at once, when it holds more studies of one day than a page."""

_MORE = re.compile(r"\b299\b.*additional results", re.IGNORECASE)
_NO_MORE = re.compile(r"there are 0 additional", re.IGNORECASE)
_NO_SEARCH = "HTTP 404 for /studies: check that url, with qido_prefix, is the root of a DICOMweb service with QIDO-RS"
_NO_DATES = "the archive does not page (offset), nor search by StudyDate: its studies cannot be listed whole"
_ONE_DAY = (
    "the archive does not page (offset), and holds more studies of one day than it lists at once: "
    "raise its limit of results"
)
_UNDATED = "the archive does not list everything at once: some studies without StudyDate may be missed"
_NOT_WHOLE = "the archive does not page (offset): the parts of a study cannot be listed whole"

Query = Sequence[tuple[str, str | int]]


class Qido:
    """The searches of one archive. What it does not understand is learned for the life of the process.

    Every method raises SourceUnavailable rather than giving a part of what the archive holds.
    """

    def __init__(self, client: WebClient, prefix: str, page_size: int) -> None:
        self._unavailable, self._json = client.unavailable, DicomJson(client, prefix)
        self._limit = page_size
        self._fields: Query = FIELDS
        self._largest = 0
        """The most studies ever given in one answer: a shorter answer was not cut."""
        self._ignores_limit: bool | None = None
        self._warned = False

    def studies(self, window: Window) -> Iterator[Study]:
        """Every study of these dates, some perhaps twice; of EVERYTHING, those without StudyDate as well.

        What the archive answers beyond the window is left out.
        """
        query = _dates(window)
        pages = Pages(lambda offset: self._study_page(query, offset), self._unavailable, self._believed)
        strays = False
        for study in pages:
            if window.holds(study.study_date):
                yield study
            strays = strays or not window.nearly_holds(study.study_date)
        if not pages.whole:
            if strays:
                raise self._unavailable(_NO_DATES)
            yield from self._narrower(window, pages.refusal)

    def named(self, study_instance_uids: Sequence[str]) -> list[Study]:
        """What the archive lists of these studies. One that is missing here may be there nevertheless: not every
        archive takes several UIDs, and some do not filter by them."""
        wanted = frozenset(study_instance_uids)
        page = self._study_page((("StudyInstanceUID", ",".join(study_instance_uids)),), 0)
        return [s for s in page.items.values() if s.uid in wanted]

    def series(self, study: str) -> list[Part]:
        """Every series of a study, one with uid "" for those without a usable one; none when there is no such study."""
        return self._parts(f"/studies/{quote(study, safe='')}/series", Part.read_series)

    def instances(self, study: str, series: str) -> list[Part]:
        """Every instance of a series, one with uid "" for those without a usable one."""
        path = f"/studies/{quote(study, safe='')}/series/{quote(series, safe='')}/instances"
        return self._parts(path, Part.read_instance)

    def _narrower(self, window: Window, refusal: Refusal | None) -> Iterator[Study]:
        """The window in halves; a single day once more if more can be asked for at once."""
        halves: Sequence[Window] = window.halves() or ()
        if not halves:
            if refusal is not None or not self._more_at_once(window):
                raise refusal or self._unavailable(_ONE_DAY)
            halves = (window,)
        elif window == EVERYTHING and not self._warned:
            self._warned = True
            log.warning("%s", self._unavailable(_UNDATED))
        for half in halves:
            yield from self.studies(half)

    def _believed(self, count: int) -> bool:
        """Whether so many items are all there is, in an archive that ignores `offset`: few, or fewer than it has given
        at once before, or a number that is not round where it ignores `limit` as well."""
        if count < max(self._largest, min(SMALLEST_CAP, self._limit)):
            return True
        if self._ignores_limit is None:
            page = self._glance(1)
            self._ignores_limit = page is not None and page.count > 1
        round_number = count % SMALLEST_CAP == 0 or count & (count - 1) == 0
        return self._ignores_limit and (count < SMALLEST_CAP or not round_number)

    def _more_at_once(self, day: Window) -> bool:
        """Learns how much this archive gives at once, where it takes a higher `limit`; whether that is news."""
        before = self._limit, self._largest
        higher = max(self._limit, MOST_AT_ONCE)
        try:
            self._page("/studies", _dates(day), Study.read, 0, (), higher)
        except Refusal:
            return False
        self._limit = higher
        page = self._glance(higher)
        self._largest = max(self._largest, page.count if page else 0)
        return (self._limit, self._largest) != before

    def _glance(self, limit: int) -> Page[Study] | None:
        """A search for everything: nothing where that is too broad, None where there is no search."""
        try:
            return self._page("/studies", (), Study.read, 0, (), limit)
        except Refusal as refusal:
            if refusal.code not in TOO_BROAD:
                raise
            return Page()

    def _study_page(self, query: Query, offset: int) -> Page[Study]:
        page = self._page("/studies", query, Study.read, offset, self._fields)
        if page is None and query and not offset:
            # Some archives say 404 for "no such study": believed where the search as such answers.
            page = Page() if self._glance(1) is not None else None
        if page is None and not offset:
            raise self._unavailable(_NO_SEARCH)
        self._largest = max(self._largest, page.count if page else 0)
        return page or Page()

    def _parts(self, path: str, read: Callable[[Any], Part]) -> list[Part]:
        pages: Pages[Part] = Pages(
            lambda offset: self._page(path, (), read, offset, ()) or Page(), self._unavailable, self._believed
        )
        found = {part.uid: part for part in pages}
        if not pages.whole:
            raise pages.refusal or self._unavailable(_NOT_WHOLE)
        return list(found.values())

    def _page(
        self, path: str, query: Query, read: Callable[[Any], Item], offset: int, fields: Query, limit: int = 0
    ) -> Page[Item] | None:
        """One answer; None for 404. Without the fields once they are what the archive refuses."""
        page: Page[Item] = Page()
        where: Query = (("limit", limit or self._limit), ("offset", offset))[: 2 if offset else 1]

        def answered(headers: Mapping[str, str]) -> None:
            warning = headers.get("warning", "")
            page.more = bool(_MORE.search(warning)) and not _NO_MORE.search(warning)

        try:
            found = self._json.each(path, lambda i: page.add(read(i)), [*query, *fields, *where], answered)
        except Refusal as refusal:
            if refusal.code != BAD_REQUEST or not fields:
                raise
            plain = self._page(path, query, read, offset, ())
            self._fields = ()
            return plain
        return None if found is None else page


def _dates(window: Window) -> Query:
    return (("StudyDate", window.text),) if window.text else ()
