"""A DICOMweb archive without a change feed: searches name what may have changed, WADO-RS metadata gives the headers."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta

import httpx

from bridge.errors import ConfigError, SourceUnavailable
from bridge.model import InstanceName, Rejection, WadoEndpoint
from bridge.ports import ChangePage, StudyHeaders
from bridge.sources.dicomweb_position import MOST_WIDTH_DAYS, Position, Seen
from bridge.sources.qido import Qido
from bridge.sources.qido_items import DAY, EVERYTHING, FIRST, LAST, Study, Window, merged
from bridge.sources.wado_metadata import BROKEN, SMALLER, WadoMetadata
from bridge.sources.wado_object import WadoObject
from bridge.sources.web_client import Refusal, Transport, WebClient
from bridge.translate.uids import checked_uid

REMEMBERED = 50_000
"""Studies of the newest days whose looks are remembered: a position of about 1.5 MB."""

COUNTED_NEW, COUNTED_AGAIN = 100, 20
"""Studies counted in one page where the archive's search does not count instances: new ones, and known ones."""

MOST_DAYS = 36_500

UIDS_AT_ONCE = 40
"""UIDs in one search: addresses stay below 4 KB."""


class DicomWeb:
    """Follows an archive by QIDO-RS and reads it by WADO-RS (PS3.18).

    `changes` goes through StudyDate from `lookback_days` ago to today, then looks at the last `overlap_days` again and
    again. Late instances and deletions of older studies are found by `count` and `inventory`. With `since`, studies of
    earlier dates are left alone. `clock` gives seconds since the epoch.

    Raises ConfigError for settings that cannot work; every method raises SourceUnavailable when it cannot answer.
    """

    gives_objects = True

    def __init__(
        self,
        name: str,
        url: str,
        *,
        clock: Callable[[], float],
        qido_prefix: str = "",
        wado_prefix: str = "",
        auth: httpx.Auth | None = None,
        tls: ssl.SSLContext | None = None,
        page_size: int = 200,
        lookback_days: int = 365,
        overlap_days: int = 1,
        since: date | None = None,
        timeout_s: float = 60.0,
        poll_s: float = 30.0,
        sweep_s: float = 21_600.0,
        verify_s: float = 60.0,
        rereads_per_pass: int = 10,
        endpoint: WadoEndpoint | None = None,
        transport: Transport | None = None,
    ) -> None:
        if not (page_size >= 1 and 1 <= overlap_days <= MOST_DAYS and 0 <= lookback_days <= MOST_DAYS):
            allowed = f"page_size 1 or more, overlap_days 1 to {MOST_DAYS}, lookback_days 0 to {MOST_DAYS}"
            raise ConfigError(f"source {name}: allowed are {allowed}")
        self.name, self.endpoint = name, endpoint
        self.poll_s, self.sweep_s, self.verify_s = poll_s, sweep_s, verify_s
        self.rereads_per_pass = rereads_per_pass
        self._clock, self._since, self._page_size = clock, since, page_size
        self._lookback, self._overlap = timedelta(days=lookback_days), timedelta(days=overlap_days)
        self._client = WebClient(
            name, url, product="the DICOMweb service", auth=auth, tls=tls, timeout_s=timeout_s, transport=transport
        )
        self._qido = Qido(self._client, qido_prefix, page_size)
        self._wado = WadoMetadata(name, self._client, wado_prefix)
        self._object = WadoObject(self._client, wado_prefix)
        self._takes_lists = True

    def close(self) -> None:
        """Ends the connections."""
        self._client.close()

    def changes(self, position: str | None) -> ChangePage:
        """The studies of the next days back in time, or those of the newest days that are new, differ or are gone.

        A day here is UTC's; an overlap of a day or more covers archives in any time zone. Studies dated in the future
        are always among the newest.
        """
        here = Position.parse(position)
        today = datetime.fromtimestamp(self._clock(), UTC).date()
        edge = max(today - self._overlap, self._since or date.min)
        day = here.day or max(today - self._lookback, self._since or date.min)
        if here.seen is None and day < edge:
            return self._older(day, here.width_days, edge)
        return self._newest(here, min(day, edge) if here.seen is not None else edge, edge)

    def read(self, study_instance_uid: str) -> StudyHeaders:
        """The headers of every instance the archive holds of the study now; none when it does not have it.

        That it has none is believed only if the search says so too: proxies, missing rights and missing services
        answer 404 as well. Raises InvalidDicomValue for what is not a UID.
        """
        uid = checked_uid(study_instance_uid, "StudyInstanceUID")
        refused: Refusal | None = None
        try:
            whole = self._wado.study(uid)
        except Refusal as refusal:
            if refusal.code not in SMALLER:
                raise
            whole, refused = None, refusal
        if whole is not None:
            return whole
        series = self._qido.series(uid)
        if not series and refused is not None:
            raise refused
        if not series and not self._qido.named([uid]):
            return StudyHeaders(())
        return self._wado.in_parts(uid, series, lambda one: self._qido.instances(uid, one))

    def instance(self, name: InstanceName, most_bytes: int) -> bytes | None:
        """See `bridge.ports.GivesObjects`."""
        return self._object.instance(name, most_bytes)

    def inventory(self) -> Iterator[tuple[str, int]]:
        """Every study the archive holds with its number of instances, in order of UID."""
        window = Window(self._since, LAST) if self._since else EVERYTHING
        for uid, study in merged(self._qido.studies(window)).items():
            yield uid, self._instances(uid, study)

    def listed(self, first: date | None, last: date | None) -> Iterator[tuple[str, date | None]]:
        """Every study of these days, both included, with its StudyDate; without ends those of no date as well."""
        for uid, study in merged(self._qido.studies(Window(first or FIRST, last or LAST))).items():
            yield uid, study.study_date

    def count(self, study_instance_uids: Sequence[str]) -> Mapping[str, int]:
        """How many instances the archive holds now of each study.

        0 only if a search for the study alone finds nothing, or the archive refuses to count it: reading tells which.
        """
        uids = [checked_uid(uid, "StudyInstanceUID") for uid in study_instance_uids]
        counts: dict[str, int] = {}
        for start in range(0, len(uids), UIDS_AT_ONCE):
            counts |= self._counts(uids[start : start + UIDS_AT_ONCE])
        return counts

    def _counts(self, uids: list[str]) -> dict[str, int]:
        together = merged(self._qido.named(uids)) if self._takes_lists else {}
        counts: dict[str, int] = {}
        for uid in uids:
            found = together.get(uid) or merged(self._qido.named([uid])).get(uid)
            if found is not None and uid not in together and len(together) <= 1:
                self._takes_lists = False
            counts[uid] = self._instances(uid, found)
        return counts

    def _older(self, day: date, width_days: int, edge: date) -> ChangePage:
        """The next days on the way to today; wider steps where there is little, narrower ones where there is much."""
        window = Window(day, min(day + timedelta(days=width_days - 1), edge - DAY))
        found, rejected = self._listed(window)
        dated = sum(study.study_date is not None for study in found.values())
        if dated > self._page_size:
            width_days = max(1, width_days // 2)
        elif dated < self._page_size // 4:
            width_days = min(width_days * 2, MOST_WIDTH_DAYS)
        there = Position(window.last + DAY, width_days)
        return ChangePage(frozenset(found), there.text, caught_up=False, rejected=rejected)

    def _newest(self, here: Position, day: date, edge: date) -> ChangePage:
        """What differs among the newest days from how it looked. What cannot be counted in this page waits for the
        next one, and the days do not move on until then."""
        before = here.seen or {}
        found, rejected = self._listed(Window(day, LAST))
        counts, waiting, counted = self._counted_now(found, before, here.counted)
        now = {
            uid: Seen(study.fingerprint, study.instances or counts[uid])
            for uid, study in found.items()
            if uid not in waiting
        }
        changed = {uid for uid, seen in now.items() if before.get(uid) != seen} | (before.keys() - found.keys())
        kept = now if waiting else {uid: seen for uid, seen in now.items() if _on_or_after(found[uid], edge)}
        if len(kept) > REMEMBERED:
            raise self._client.unavailable(f"more than {REMEMBERED} studies within overlap_days: lower overlap_days")
        there = Position(day if waiting else edge, here.width_days, kept, counted)
        text = there.text if there != here else ""
        return ChangePage(frozenset(changed), text, caught_up=not waiting, rejected=rejected)

    def _counted_now(
        self, found: Mapping[str, Study], before: Mapping[str, Seen], after: str
    ) -> tuple[dict[str, int | None], frozenset[str], str]:
        """Counts of studies that the search does not count: new ones, and known ones in turn, of the others as before.

        Result  the counts; new studies that have to wait; the known study counted last
        """
        uncounted = [uid for uid, study in found.items() if study.instances is None]
        new = [uid for uid in uncounted if uid not in before]
        known = [uid for uid in uncounted if uid in before]
        turn = ([uid for uid in known if uid > after] or known)[:COUNTED_AGAIN]
        counts: dict[str, int | None] = {uid: before[uid].instances for uid in known}
        counts |= {uid: self._counted_parts(uid) for uid in (*new[:COUNTED_NEW], *turn)}
        return counts, frozenset(new[COUNTED_NEW:]), turn[-1] if turn else after

    def _listed(self, window: Window) -> tuple[dict[str, Study], tuple[Rejection, ...]]:
        """The studies of a window by UID, and what has no usable UID."""
        studies = list(self._qido.studies(window))
        nameless = sorted({s.fingerprint for s in studies if not s.uid})
        error = "StudyInstanceUID is missing or not a UID in the archive's list of studies"
        rejected = tuple(Rejection(f"search result {f}", error, {"fingerprint": f}) for f in nameless)
        return merged(studies), rejected

    def _instances(self, uid: str, study: Study | None) -> int:
        counted = study.instances if study is not None else None
        return counted if counted is not None else self._counted_parts(uid) or 0

    def _counted_parts(self, uid: str) -> int | None:
        """The number of instances by the series of a study, and by their instances where those are not counted; else
        by its metadata; None where the archive refuses all of this for this study."""
        try:
            series = self._qido.series(uid)
            return sum(s.instances or len(self._qido.instances(uid, s.uid)) for s in series if s.uid)
        except SourceUnavailable as problem:
            unlisted = problem
        try:
            whole = self._wado.study(uid)
        except Refusal as refusal:
            if refusal.code not in BROKEN:
                raise
            return None
        if whole is None:
            raise unlisted
        return whole.held


def _on_or_after(study: Study, edge: date) -> bool:
    return study.study_date is None or study.study_date >= edge
