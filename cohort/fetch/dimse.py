"""Images by C-GET (PS3.4 C.4.3) from one application entity, over the association they were asked for on."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from bridge.errors import SourceUnavailable
from bridge.sources.dimse_retrieve import storage_contexts
from bridge.sources.identifier import encoded
from bridge.sources.object_files import CANNOT_UNDERSTAND, SUCCESS, Arrived
from bridge.sources.peer import Peer
from bridge.sources.scu import STUDY_ROOT_GET, Association
from cohort.fetch.folder import ImageFolder, WrongObject
from cohort.fetch.plan import Series
from cohort.fetch.port import Progress, Stopped

BATCH = 100
"""Instances named in one request, when not the whole series is asked for."""

SILENCE_S = 1800.0
"""Many archives say nothing until an object is read from tape."""

CANCELLED = 0xFE00
_WARNING = range(0xB000, 0xC000)


@dataclass(frozen=True)
class DimseImages:
    """C-GET from a peer; a new association for each request. Safe to use from several threads."""

    peer: Peer
    stop: threading.Event

    def close(self) -> None:
        """Nothing stays open."""

    def retrieve(self, series: Series, folder: ImageFolder, progress: Progress) -> None:
        """Brings what is missing of a series. See `cohort.fetch.port.Images`."""
        for uids in _requests(series, folder.missing(series)):
            self._get(series, uids, folder, progress)

    def _get(self, series: Series, uids: Collection[str], folder: ImageFolder, progress: Progress) -> None:
        if self.stop.is_set():
            raise Stopped
        keys = {"StudyInstanceUID": series.study_instance_uid, "SeriesInstanceUID": series.series_instance_uid}
        image = {"QueryRetrieveLevel": "IMAGE", "SOPInstanceUID": "\\".join(sorted(uids))}
        identifier = encoded({"QueryRetrieveLevel": "SERIES"} | keys | (image if uids else {}))
        classes = {series.instances[uid] for uid in uids or series.instances} - {""}
        with Association(self.peer, [STUDY_ROOT_GET, *storage_contexts(classes)]) as association:
            done = association.get(identifier, _Keeping(series, folder, progress, self.stop), SILENCE_S)
        if self.stop.is_set():
            raise Stopped
        if done.status != SUCCESS and done.status not in _WARNING and not done.completed:
            raise SourceUnavailable(
                f"{self.peer.ae_title} at {self.peer.host}:{self.peer.port}: C-GET ended with status {done.status:04X}"
            )


class _Keeping:
    """Objects of a C-GET into the folder: those of the series that were asked for."""

    def __init__(self, series: Series, folder: ImageFolder, progress: Progress, stop: threading.Event) -> None:
        self._series, self._folder, self._progress, self._stop = series, folder, progress, stop

    def part(self) -> Path:
        return self._folder.part()

    def keep(self, arrived: Arrived) -> int:
        if self._stop.is_set():
            return CANCELLED
        self._progress.received(arrived.part.stat().st_size)
        try:
            if self._folder.keep(arrived.part, self._series):
                self._progress.kept()
        except WrongObject as error:
            self._progress.refused(str(error))
            return CANNOT_UNDERSTAND
        return SUCCESS


def _requests(series: Series, missing: Collection[str]) -> Iterator[Collection[str]]:
    """The whole series (no UIDs) when most of it is missing, else its missing instances in batches."""
    if 2 * len(missing) > len(series.instances):
        yield ()
        return
    listed = sorted(missing)
    for start in range(0, len(listed), BATCH):
        yield listed[start : start + BATCH]
