"""An archive that speaks DIMSE: followed by C-FIND, read by C-FIND and, where a site wants it, C-MOVE or C-GET."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta, tzinfo
from pathlib import Path

from bridge.errors import ConfigError, InvalidFile
from bridge.model import InstanceName, Rejection, WadoEndpoint
from bridge.ports import ChangePage, StudyHeaders
from bridge.sources.days import study_date
from bridge.sources.dimse_find import Listing, Queries, Window
from bridge.sources.dimse_keys import COUNTED, LOOKED_AT, OF_THE_SERIES, READ_IMAGE, READ_SERIES, READ_STUDY
from bridge.sources.dimse_lines import Lines
from bridge.sources.dimse_position import Position, digest, digests
from bridge.sources.dimse_retrieve import Listed, Objects, Retrieve, RetrievePolicy
from bridge.sources.hours import Hours
from bridge.sources.identifier import Match
from bridge.sources.object_files import read_head
from bridge.sources.peer import Peer
from bridge.sources.spool import Spool
from bridge.translate.headers import EMPTY, Headers, Value
from bridge.translate.uids import checked_uid

COUNTED_AT_ONCE = 50
"""Studies named in one query when studies are counted."""

_PARENTS = frozenset({"StudyInstanceUID", "SeriesInstanceUID"})


class Dimse:
    """Follows an archive by windows of StudyDate, then by looking at the last days again and again.

    The first look begins at `since`, or `lookback_days` ago. While it is caught up, the days since `overlap_days`
    before the last look are looked at; a study is named when what the archive says of it is new. What changes about
    older studies is found by counting (`verify_s`) and by the inventory (`sweep_s`).

    `retrieve` and `retrieve_policy` say which objects are fetched, into `spool`, so that what queries do not answer is
    known too; for `move`, `destination_ae_title` is how the archive knows our receiver. `zone` is the archive's; None:
    this machine's. `response_limit`: see Queries. Every method raises SourceUnavailable when the archive cannot answer.
    """

    def __init__(
        self,
        name: str,
        peer: Peer,
        clock: Callable[[], float],
        *,
        spool: Path | None = None,
        endpoint: WadoEndpoint | None = None,
        poll_s: float = 60.0,
        sweep_s: float = 86_400.0,
        verify_s: float = 300.0,
        rereads_per_pass: int = 10,
        since: date | None = None,
        lookback_days: int = 30,
        window_days: int = 7,
        overlap_days: int = 3,
        response_limit: int = 0,
        retrieve: Retrieve = Retrieve.FIND,
        retrieve_policy: RetrievePolicy = RetrievePolicy.NONE,
        destination_ae_title: str = "BRIDGE",
        move_timeout_s: float = 1800.0,
        associations: int = 2,
        maximum_queries_per_s: float = 0.0,
        allowed_hours: str = "",
        zone: tzinfo | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name, self.endpoint = name, endpoint
        self.poll_s, self.sweep_s, self.verify_s = poll_s, sweep_s, verify_s
        self.rereads_per_pass = rereads_per_pass
        self._clock, self._zone, self._since = clock, zone, since
        self._lookback, self._window = timedelta(days=lookback_days), timedelta(days=max(1, window_days))
        self._overlap = timedelta(days=max(1, overlap_days))
        hours = Hours.parse(allowed_hours, zone)
        self._lines = Lines(
            peer,
            clock,
            associations=associations,
            maximum_queries_per_s=maximum_queries_per_s,
            hours=hours,
            sleep=sleep,
        )
        self._queries = Queries(name, self._lines, self._today, response_limit)
        self._objects: Objects | None = None
        if retrieve is not Retrieve.FIND and retrieve_policy is not RetrievePolicy.NONE:
            if spool is None:
                raise ConfigError(f"source {name}: retrieve = {retrieve} needs a folder for what is retrieved")
            self._objects = Objects(
                name,
                self._lines,
                Spool(spool),
                retrieve=retrieve,
                policy=retrieve_policy,
                destination=destination_ae_title,
                move_timeout_s=move_timeout_s,
            )

    def close(self) -> None:
        """Releases the associations that are kept."""
        self._lines.close()

    def check(self) -> frozenset[str]:
        """The SOP classes of querying and moving that the archive accepts, after a C-ECHO."""
        return self._lines.check()

    def takes(self, calling_ae_title: str, move_originator: str, study_instance_uid: str) -> Spool | None:
        """The spool in which an object belongs that our receiver was sent because we asked for it; else None."""
        if self._objects is None:
            return None
        return self._objects.takes(calling_ae_title, move_originator, study_instance_uid)

    def changes(self, position: str | None) -> ChangePage:
        """The studies of the next window of days, or of the last days those that are new or different."""
        today = self._today()
        here = Position.parse(position) or Position(self._since or today - self._lookback)
        if not here.polling and here.reached < today - self._overlap:
            return self._next_window(here, today)
        window = Window(min(here.reached, today) - self._overlap if here.polling else here.reached)
        rejected: dict[str, Rejection] = {}
        found = self._queries.studies(window, LOOKED_AT, rejected)
        looks = {self._look(match): match.text("StudyInstanceUID") for match in found}
        there = Position(today, polling=True, seen=digests(looks))
        return ChangePage(
            frozenset(uid for look, uid in looks.items() if look not in here.seen),
            there.text if there != here else "",
            caught_up=True,
            rejected=tuple(rejected.values()),
        )

    def read(self, study_instance_uid: str) -> StudyHeaders:
        """Every instance the archive lists of the study now, with what it says of its study, series and itself, and
        with what retrieved objects say. Raises InvalidDicomValue for what is not a UID."""
        uid = checked_uid(study_instance_uid, "StudyInstanceUID")
        study = self._queries.study(uid, READ_STUDY)
        if study is None:
            if self._objects is not None:
                self._objects.forget(uid)
            return StudyHeaders(())
        of_study = {**study.headers(), "StudyInstanceUID": (uid,)}
        listing = self._queries.series(uid, READ_SERIES)
        rejected = self._short("NumberOfStudyRelatedSeries", study, listing, uid)
        instances: dict[str, Headers] = {}
        for series in listing.matches:
            found, problems = self._series(uid, series, of_study)
            instances |= found
            rejected += problems
        held, missing = self._retrieved(uid, instances)
        told = study.count("NumberOfStudyRelatedInstances")
        merged = tuple(_merged(instances, held, of_study))
        return StudyHeaders(merged, len(instances) if told is None else told, (*rejected, *missing))

    @property
    def gives_objects(self) -> bool:
        """Whether objects are retrieved at all; which, the policy says of images alone."""
        return self._objects is not None

    def instance(self, name: InstanceName, most_bytes: int) -> bytes | None:
        """See `bridge.ports.GivesObjects`."""
        if self._objects is None:
            return None
        listed = Listed(name.series_instance_uid, name.sop_instance_uid, name.sop_class_uid, "", 0)
        path = self._objects.file(listed, name.study_instance_uid)
        if path is None:
            raise InvalidFile("the archive lists this instance and does not send it")
        return read_head(path, most_bytes)

    def inventory(self) -> Iterator[tuple[str, int]]:
        """Every study with its number of instances; one without a StudyDate where the archive answers a query for
        all studies whole."""
        for match in self._queries.studies(Window(), COUNTED, {}):
            yield match.text("StudyInstanceUID"), self._instances(match)

    def listed(self, first: date | None, last: date | None) -> Iterator[tuple[str, date | None]]:
        """Every study of these days, both included, with its StudyDate; without ends those of no date as well."""
        for match in self._queries.studies(Window(first, last), COUNTED, {}):
            day = study_date(match.text("StudyDate"))
            if day is None or (first or day) <= day <= (last or day):
                yield match.text("StudyInstanceUID"), day

    def count(self, study_instance_uids: Sequence[str]) -> Mapping[str, int]:
        """How many instances the archive lists now of each study; 0 = gone."""
        counts = dict.fromkeys(study_instance_uids, 0)
        uids = list(counts)
        for start in range(0, len(uids), COUNTED_AT_ONCE):
            for uid, match in self._queries.by_uid(uids[start : start + COUNTED_AT_ONCE], COUNTED).items():
                counts[uid] = self._instances(match)
        return counts

    def _next_window(self, here: Position, today: date) -> ChangePage:
        last = min(here.reached + self._window, today - self._overlap) - timedelta(days=1)
        window = Window(here.reached, last)
        rejected: dict[str, Rejection] = {}
        found = list(self._queries.studies(window, LOOKED_AT, rejected))
        reached = last + timedelta(days=1) if all(map(window.holds, found)) else today - self._overlap
        studies = frozenset(match.text("StudyInstanceUID") for match in found)
        return ChangePage(studies, Position(reached).text, caught_up=False, rejected=tuple(rejected.values()))

    def _look(self, match: Match) -> bytes:
        """A digest of what the archive says of a study; where it does not count instances, they are counted."""
        counted = match.count("NumberOfStudyRelatedInstances") is not None
        return digest(match, LOOKED_AT, "" if counted else str(self._instances(match)))

    def _instances(self, match: Match) -> int:
        """The number of instances of a study, by what the archive can be asked for."""
        told = match.count("NumberOfStudyRelatedInstances")
        if told is not None:
            return told
        uid, total = match.text("StudyInstanceUID"), 0
        for series in self._queries.series(uid, ["NumberOfSeriesRelatedInstances"]).matches:
            told = series.count("NumberOfSeriesRelatedInstances")
            total += self._queries.instances(uid, series.text("SeriesInstanceUID"), []).number if told is None else told
        return total

    def _series(
        self, uid: str, series: Match, of_study: Mapping[str, tuple[Value, ...]]
    ) -> tuple[dict[str, Headers], list[Rejection]]:
        """The instances of one series by SOP Instance UID."""
        series_uid = series.text("SeriesInstanceUID")
        listing = self._queries.instances(uid, series_uid, READ_IMAGE)
        rejected = self._short("NumberOfSeriesRelatedInstances", series, listing, series_uid)
        above = {**of_study, **self._said(series, series_uid, rejected), "SeriesInstanceUID": (series_uid,)}
        above["StudyInstanceUID"] = of_study["StudyInstanceUID"]
        found = {}
        for match in listing.matches:
            sop = match.text("SOPInstanceUID")
            own = {k: v for k, v in self._said(match, sop, rejected).items() if k not in _PARENTS}
            found[sop] = Headers(dict(sorted({**above, **own, "SOPInstanceUID": (sop,)}.items())))
        return found, rejected

    def _said(self, match: Match, uid: str, rejected: list[Rejection]) -> Mapping[str, tuple[Value, ...]]:
        """What a match says; nothing, and a rejection, when it cannot be read."""
        try:
            return match.headers()
        except InvalidFile as error:
            rejected.append(Rejection(f"{self.name}/{uid}", str(error), {"bytes": len(match.content)}))
            return EMPTY

    def _short(self, keyword: str, match: Match, listing: Listing, uid: str) -> list[Rejection]:
        """What is told when the archive lists less than it says it has; what may be cut short is not believed."""
        told, rejected = match.count(keyword), list(listing.rejected)
        if told is not None and listing.number < told:
            if self._queries.is_limit(listing.number):
                raise self._lines.peer.unavailable(
                    f"it lists {listing.number} where {keyword} is {told}: raise its limit of responses"
                )
            evidence: dict[str, str | int] = {"listed": listing.number, "said": told}
            rejected.append(Rejection(f"{self.name}/{uid}", f"{keyword}: the archive lists fewer", evidence))
        return rejected

    def _retrieved(
        self, uid: str, instances: Mapping[str, Headers]
    ) -> tuple[dict[str, Headers], tuple[Rejection, ...]]:
        if self._objects is None:
            return {}, ()
        listed = [
            Listed(
                series_instance_uid=h.text("SeriesInstanceUID"),
                sop_instance_uid=sop,
                sop_class_uid=h.text("SOPClassUID"),
                modality=h.text("Modality"),
                instance_number=h.integer("InstanceNumber") or 0,
            )
            for sop, h in instances.items()
        ]
        return self._objects.headers(uid, listed)

    def _today(self) -> date:
        return datetime.fromtimestamp(self._clock(), self._zone).date()


def _merged(
    instances: Mapping[str, Headers], held: Mapping[str, Headers], of_study: Mapping[str, tuple[Value, ...]]
) -> Iterator[Headers]:
    """Objects speak for themselves, and for their series where it is one for all; of patient and study the archive's
    answer is newer than any object."""
    spoken: dict[str, dict[str, tuple[Value, ...]]] = {}
    for _, headers in sorted(held.items()):
        known = {k: v for k, v in headers.items() if k in OF_THE_SERIES}
        spoken.setdefault(headers.text("SeriesInstanceUID"), known)
    for sop, headers in instances.items():
        own: Mapping[str, tuple[Value, ...]] = held.get(sop, EMPTY)
        of_series = spoken.get(headers.text("SeriesInstanceUID"), {})
        yield Headers(dict(sorted({**of_series, **headers, **own, **of_study}.items())))
