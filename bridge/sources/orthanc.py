"""An Orthanc server as an archive: its change log gives hints, its DICOMweb plugin the headers."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping, Sequence
from datetime import date

from bridge.model import InstanceName, WadoEndpoint
from bridge.ports import ChangePage, StudyHeaders
from bridge.sources.orthanc_ids import StudyIds
from bridge.sources.orthanc_inventory import Inventory
from bridge.sources.orthanc_log import HINTS, NOTHING_NEW, SETTLED, LogPage, Position
from bridge.sources.orthanc_reading import StudyReader
from bridge.sources.web_client import Transport, WebClient
from bridge.web.auth import sign_in

PAGE = 1000
"""Entries of the log asked for at once."""


class Orthanc:
    """Follows /changes, reads studies by WADO-RS metadata, counts them by the REST API. Needs the DICOMweb plugin.

    A deletion leaves no entry in Orthanc's log: counting shows it. A study that Orthanc holds under two patient
    ids is one study here. Every method raises SourceUnavailable when Orthanc cannot answer.
    """

    gives_objects = True

    def __init__(
        self,
        name: str,
        url: str,
        *,
        dicom_web: str = "/dicom-web",
        username: str = "",
        password: str = "",
        tls: ssl.SSLContext | None = None,
        timeout_s: float = 60.0,
        endpoint: WadoEndpoint | None = None,
        poll_s: float = 2.0,
        sweep_s: float = 3600.0,
        verify_s: float = 60.0,
        transport: Transport | None = None,
    ) -> None:
        self.name, self.endpoint, self.poll_s, self.sweep_s = name, endpoint, poll_s, sweep_s
        self.verify_s = verify_s
        self._client = WebClient(
            name,
            url,
            product="Orthanc",
            auth=sign_in(url, username=username, password=password),
            tls=tls,
            timeout_s=timeout_s,
            transport=transport,
        )
        self._ids = StudyIds(self._client)
        self._inventory = Inventory(self._client, self._ids)
        self._reader = StudyReader(name, self._client, dicom_web)
        self._extended: bool | None = None

    def close(self) -> None:
        """Ends the connections."""
        self._client.close()

    def changes(self, position: str | None) -> ChangePage:
        """The studies that the next entries of the log are about.

        Result  a page with `resweep`, and its position at the start of the log, when the log is not the one that
                the position was taken in: the database was emptied, replaced or restored
        """
        here = Position.parse(position)
        answer = self._client.get("/changes", {"since": here.since, "limit": PAGE, **self._filter()})
        if answer is None:
            raise self._client.unavailable("HTTP 404 for /changes: check that url is Orthanc's REST API")
        page = LogPage.parse(answer, here.sequence)
        if page is None:
            raise self._client.unavailable("/changes did not answer as Orthanc does: check url")
        if here.contradicts(page):
            return ChangePage(frozenset(), Position().text, caught_up=False, resweep=True)
        entries = [e for e in page.entries if e.sequence > here.sequence and e.change_type not in NOTHING_NEW]
        studies, rejected = self._ids.named(e for e in entries if e.change_type not in SETTLED)
        settled, unusable = self._ids.named(e for e in entries if e.change_type in SETTLED)
        there = here.after(page)
        return ChangePage(
            studies,
            there.text if there != here else "",
            caught_up=page.done or there == here,
            rejected=page.rejected + rejected + unusable,
            recount=settled - studies,
        )

    def _filter(self) -> dict[str, str]:
        """What to ask of the log besides its place: only the entries that mean something, where Orthanc can do that."""
        if self._extended is None:
            found = self._client.get("/system")
            capabilities = found.get("Capabilities") if isinstance(found, Mapping) else None
            self._extended = isinstance(capabilities, Mapping) and capabilities.get("HasExtendedChanges") is True
        return {"type": ";".join(sorted(HINTS | SETTLED))} if self._extended else {}

    def read(self, study_instance_uid: str) -> StudyHeaders:
        """The headers of every instance Orthanc holds of the study now; none when it does not have it.

        An instance that Orthanc cannot read is rejected, the others are given. Raises InvalidDicomValue for what is
        not a UID.
        """
        return self._reader.read(study_instance_uid)

    def instance(self, name: InstanceName, most_bytes: int) -> bytes | None:
        """See `bridge.ports.GivesObjects`; held under several patient ids, it is the one of the first."""
        return self._reader.instance(name.sop_instance_uid, most_bytes)

    def inventory(self) -> Iterator[tuple[str, int]]:
        """Every study Orthanc holds with its number of instances, in order of UID."""
        return self._inventory.every()

    def listed(self, first: date | None, last: date | None) -> Iterator[tuple[str, date | None]]:
        """Every study of these days, both included, with its StudyDate; without ends those of no date as well."""
        for uid, day in self._inventory.dated():
            if (first is None and last is None) or (day and (first or day) <= day <= (last or day)):
                yield uid, day

    def count(self, study_instance_uids: Sequence[str]) -> Mapping[str, int]:
        """How many instances Orthanc holds now of each study, by two requests for 100 studies."""
        return self._inventory.of(study_instance_uids)

    def total(self) -> int | None:
        """How many instances Orthanc holds now."""
        return self._inventory.total()
