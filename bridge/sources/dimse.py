"""An archive that speaks DIMSE: followed by C-FIND, read by C-FIND and, where a site wants it, C-MOVE or C-GET."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta, tzinfo
from pathlib import Path

from bridge.errors import ConfigError
from bridge.model import Rejection, WadoEndpoint
from bridge.ports import ChangePage, StudyHeaders
from bridge.sources.dimse_find import ROUND_NUMBERS, Queries, Window, every
from bridge.sources.dimse_keys import COUNTED, LOOKED_AT, OF_THE_SERIES, READ_IMAGE, READ_SERIES, READ_STUDY
from bridge.sources.dimse_lines import Lines
from bridge.sources.dimse_position import Position, digest, digests
from bridge.sources.dimse_retrieve import Listed, Objects, Retrieve, RetrievePolicy
from bridge.sources.hours import Hours
from bridge.sources.identifier import Match
from bridge.sources.peer import Peer
from bridge.sources.spool import Spool
from bridge.translate.headers import EMPTY, Headers, Value
from bridge.translate.uids import checked_uid

COUNTED_AT_ONCE = 50
"""Studies named in one query when studies are counted."""


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
        found = self._queries.studies(window, LOOKED_AT)
        looks = {self._look(match): match.text("StudyInstanceUID") for match in found.matches}
        there = Position(today, polling=True, seen=digests(looks))
        return ChangePage(
            frozenset(uid for look, uid in looks.items() if look not in here.seen),
            there.text if there != here else "",
            caught_up=True,
            rejected=found.rejected,
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
        asked = {"StudyInstanceUID": (uid,)}
        of_study = {**study.headers(), **asked}
        instances: dict[str, Headers] = {}
        rejected: list[Rejection] = []
        for series in self._queries.series(uid, READ_SERIES):
            found, problem = self._series(uid, series, of_study)
            instances |= found
            rejected += problem
        held, missing = self._retrieved(uid, instances)
        merged = tuple(_merged(instances, held, of_study))
        return StudyHeaders(merged, len(instances), tuple(rejected) + missing)

    def inventory(self) -> Iterator[tuple[str, int]]:
        """Every study with its number of instances, in order of UID; one without a StudyDate where the archive
        answers a query for all studies whole."""
        found = self._queries.studies(Window(), COUNTED)
        for match in sorted(found.matches, key=lambda m: m.text("StudyInstanceUID")):
            yield match.text("StudyInstanceUID"), self._instances(match)

    def count(self, study_instance_uids: Sequence[str]) -> Mapping[str, int]:
        """How many instances the archive lists now of each study; 0 = gone."""
        counts = dict.fromkeys(study_instance_uids, 0)
        for uids in every(list(counts), COUNTED_AT_ONCE):
            for uid, match in self._queries.by_uid(uids, COUNTED).items():
                counts[uid] = self._instances(match)
        return counts

    def _next_window(self, here: Position, today: date) -> ChangePage:
        last = min(here.reached + self._window, today - self._overlap) - timedelta(days=1)
        found = self._queries.studies(Window(here.reached, last), LOOKED_AT)
        reached = today - self._overlap if found.everything else last + timedelta(days=1)
        studies = frozenset(match.text("StudyInstanceUID") for match in found.matches)
        return ChangePage(studies, Position(reached).text, caught_up=False, rejected=found.rejected)

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
        for series in self._queries.series(uid, ["NumberOfSeriesRelatedInstances"]):
            told = series.count("NumberOfSeriesRelatedInstances")
            total += len(self._queries.instances(uid, series.text("SeriesInstanceUID"), [])) if told is None else told
        return total

    def _series(
        self, uid: str, series: Match, of_study: Mapping[str, tuple[Value, ...]]
    ) -> tuple[dict[str, Headers], list[Rejection]]:
        """The instances of one series. Fewer than it is said to have are told, or not believed."""
        series_uid = series.text("SeriesInstanceUID")
        asked: dict[str, tuple[Value, ...]] = {"StudyInstanceUID": (uid,), "SeriesInstanceUID": (series_uid,)}
        above = {**of_study, **series.headers()}
        matches = self._queries.instances(uid, series_uid, READ_IMAGE)
        told = series.count("NumberOfSeriesRelatedInstances")
        rejected = []
        if told is not None and len(matches) < told:
            if len(matches) in ROUND_NUMBERS:
                raise self._lines.peer.unavailable(
                    f"it lists {len(matches)} of {told} instances of a series: raise its limit of responses"
                )
            evidence: dict[str, str | int] = {"listed": len(matches), "said": told}
            problem = "NumberOfSeriesRelatedInstances: the archive lists fewer instances than it says it has"
            rejected.append(Rejection(f"{self.name}/{series_uid}", problem, evidence))
        found = {
            m.text("SOPInstanceUID"): Headers(dict(sorted({**above, **m.headers(), **asked}.items()))) for m in matches
        }
        return found, rejected

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
