"""Microsoft's DICOM server as an archive: its change feed gives hints, DICOMweb the headers."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Literal

import httpx

from bridge.errors import SourceUnavailable
from bridge.model import InstanceName, Rejection, WadoEndpoint
from bridge.ports import ChangePage, StudyHeaders
from bridge.sources.dicom_server_log import ChangeLog
from bridge.sources.dicom_server_sequences import SequenceFeed, Step
from bridge.sources.dicom_server_studies import Partitions, Studies
from bridge.sources.dicom_server_times import TimeFeed
from bridge.sources.web_client import Transport, WebClient
from bridge.translate.uids import checked_uid

STEPS = 20
"""Answers of the feed that make one page: its entries are many for each study, and one transaction marks it once."""


class DicomServer:
    """Follows the change feed, reads studies by WADO-RS metadata, counts and lists them by QIDO-RS.

    The feed has an entry for every instance created, updated or deleted, in every data partition; here they name
    studies. `partitions` () = all. What the server holds under one Study Instance UID is one study, whatever the
    partition. `overlap_s` (v2 only) is how much later than its time an entry may appear in the feed.
    Every method raises SourceUnavailable when the server cannot answer.
    """

    gives_objects = True

    def __init__(
        self,
        name: str,
        url: str,
        *,
        api_version: Literal["v1", "v2"] = "v2",
        partitions: tuple[str, ...] = (),
        auth: httpx.Auth | None = None,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = 60.0,
        endpoint: WadoEndpoint | None = None,
        poll_s: float = 5.0,
        sweep_s: float = 86_400.0,
        verify_s: float = 0.0,
        overlap_s: float = 60.0,
        clock: Callable[[], float] = time.time,
        transport: Transport | None = None,
    ) -> None:
        self.name, self.endpoint, self.poll_s, self.sweep_s = name, endpoint, poll_s, sweep_s
        self.verify_s = verify_s
        self._client = WebClient(
            name, url, product="the DICOM server", auth=auth, tls=tls, timeout_s=timeout_s, transport=transport
        )
        self._log = ChangeLog(self._client, f"/{api_version}")
        self._feed: SequenceFeed | TimeFeed = (
            SequenceFeed(self._log) if api_version == "v1" else TimeFeed(self._log, overlap_s, clock)
        )
        self._partitions = Partitions(self._client, f"/{api_version}", partitions)
        self._studies = Studies(name, self._client, self._partitions)

    def close(self) -> None:
        """Ends the connections."""
        self._client.close()

    def changes(self, position: str | None) -> ChangePage:
        """The studies that the next entries of the feed are about.

        Result  a page with `resweep`, and its position at the start of the feed, when the feed is not the one that
                the position was taken in: the database was emptied, replaced or restored
        """
        studies: set[str] = set()
        rejected: dict[str, Rejection] = {}
        last = Step()
        for step in self._steps(position):
            for entry in step.entries:
                if self._partitions.wants(entry.partition):
                    self._partitions.named(entry.partition)
                    studies.add(entry.study)
            rejected |= {r.key: r for r in step.rejected}
            last = step
        caught_up = last.done and not last.reset
        found = tuple(rejected.values())
        return ChangePage(frozenset(studies), last.position, caught_up, rejected=found, resweep=last.reset)

    def read(self, study_instance_uid: str) -> StudyHeaders:
        """The headers of every instance the server holds of the study now; none when it does not have it.

        That it has none is believed only while the change feed answers too: a wrong address says 404 as well.
        Raises InvalidDicomValue for what is not a UID.
        """
        uid = checked_uid(study_instance_uid, "StudyInstanceUID")
        with self._partitions_doubted():
            found = self._studies.read(uid)
        if not found.held:
            self._log.latest()
        return found

    def instance(self, name: InstanceName, most_bytes: int) -> bytes | None:
        """See `bridge.ports.GivesObjects`; from the first partition that has it."""
        with self._partitions_doubted():
            return self._studies.instance(name, most_bytes)

    def inventory(self) -> Iterator[tuple[str, int]]:
        """Every study the server holds with its number of instances, in order of UID."""
        yield from sorted(self._studies.listed().items())

    def count(self, study_instance_uids: Sequence[str]) -> Mapping[str, int]:
        """How many instances the server holds now of each study."""
        with self._partitions_doubted():
            return {uid: self._studies.count(checked_uid(uid, "StudyInstanceUID")) for uid in study_instance_uids}

    def _steps(self, position: str | None) -> Iterator[Step]:
        """The feed's next answers. One that fails after others leaves those: the next call meets it first."""
        taken = 0
        try:
            for step in islice(self._feed.steps(position), STEPS):
                taken += 1
                yield step
        except SourceUnavailable:
            if not taken:
                raise

    @contextmanager
    def _partitions_doubted(self) -> Iterator[None]:
        """What fails may do so for a list of partitions that is no longer true."""
        try:
            yield
        except SourceUnavailable:
            self._partitions.forget()
            raise
