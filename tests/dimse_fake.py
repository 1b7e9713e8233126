"""A DICOM archive in memory, answering C-ECHO, C-FIND, C-MOVE and C-GET over real TCP by pynetdicom's acceptor.

Archives deviate from the standard in known ways; each is an attribute to be set.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

AE_TITLE = "FAKE"
UNIQUE = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
PARENTS = {"STUDY": (), "SERIES": ("StudyInstanceUID",), "IMAGE": ("StudyInstanceUID", "SeriesInstanceUID")}


class FakeDimse:
    """Holds instances by SOP Instance UID. `queries` are the identifiers it was asked with, by level."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.instances: dict[str, Dataset] = {}
        self.queries: list[tuple[str, Dataset]] = []
        self.associations = 0
        self.cancelled = 0
        self.retrieved: list[str] = []
        self.limit = 0
        """The most matches it gives of one query; 0: all."""
        self.limit_status = 0x0000
        """What it says when there are more: B001, A700, or that all is well."""
        self.ignores_keys = False
        self.omits_counts = False
        self.needs_parent_keys = True
        self.pending = 0xFF00
        self.find_status = 0x0000
        self.delay_s = 0.0
        self.destinations: dict[str, tuple[str, int]] = {}
        self.withheld: set[str] = set()
        """Instances that it lists and cannot send."""
        self.unlisted: set[str] = set()
        """Instances that it counts and does not list."""
        self.nameless: set[str] = set()
        """Studies, series or instances of which it does not tell the UID."""
        self.drops_after = -1
        """Aborts the association in the middle of a query after so many matches."""
        self._tls = tls
        self._server: Any = None
        self.port = 0

    def start(self) -> None:
        entity = AE(AE_TITLE)
        entity.require_called_aet = True
        entity.maximum_associations = 20
        entity.add_supported_context(Verification)
        syntaxes = [ImplicitVRLittleEndian, ExplicitVRLittleEndian]
        entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind, syntaxes)
        entity.add_supported_context(StudyRootQueryRetrieveInformationModelMove, syntaxes)
        entity.add_supported_context(StudyRootQueryRetrieveInformationModelGet, syntaxes)
        for storage in (CTImageStorage, "1.2.840.10008.5.1.4.1.1.88.11"):
            entity.add_supported_context(storage, syntaxes, scu_role=True, scp_role=True)
        for storage in (CTImageStorage, "1.2.840.10008.5.1.4.1.1.88.11"):
            entity.add_requested_context(storage, syntaxes)
        handlers: list[Any] = [
            (evt.EVT_C_FIND, self._find),
            (evt.EVT_C_MOVE, self._move),
            (evt.EVT_C_GET, self._get),
            (evt.EVT_CONN_OPEN, self._opened),
        ]
        self._server = entity.start_server(
            ("127.0.0.1", self.port), block=False, evt_handlers=handlers, ssl_context=self._tls
        )
        self.port = self._server.server_address[1]

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            for association in self._server.active_associations:
                association.abort()
            self._server = None

    def put(self, *files: bytes) -> None:
        for content in files:
            dataset = dcmread(BytesIO(content))
            self.instances[dataset.SOPInstanceUID] = dataset

    def delete_study(self, study_instance_uid: str) -> None:
        self.instances = {u: d for u, d in self.instances.items() if d.StudyInstanceUID != study_instance_uid}

    def asked(self, level: str) -> list[Dataset]:
        return [identifier for at, identifier in self.queries if at == level]

    def _opened(self, event: Any) -> None:
        self.associations += 1
        event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        identifier, level = event.identifier, event.identifier.QueryRetrieveLevel
        self.queries.append((level, identifier))
        time.sleep(self.delay_s)
        if self.needs_parent_keys and any(not identifier.get(k) for k in PARENTS[level]):
            yield 0xA900, None
            return
        matches = self._matches(identifier, level)
        given = matches[: self.limit] if self.limit else matches
        for number, match in enumerate(given):
            if event.is_cancelled:
                self.cancelled += 1
                yield 0xFE00, None
                return
            if number == self.drops_after:
                event.assoc.abort()
                return
            yield self.pending, match
        if len(given) < len(matches):
            yield self.limit_status, None
        elif self.find_status:
            yield self.find_status, None

    def _matches(self, identifier: Dataset, level: str) -> list[Dataset]:
        found: dict[str, Dataset] = {}
        held: dict[str, list[Dataset]] = {}
        for instance in self.instances.values():
            if self.ignores_keys or _fits(identifier, instance):
                held.setdefault(instance[UNIQUE[level]].value, []).append(instance)
        for uid, instances in sorted(held.items()):
            match = _match(identifier, level, instances, self.omits_counts)
            if uid in self.nameless:
                del match[UNIQUE[level]]
            if uid in self.unlisted:
                continue
            wanted = str(identifier.get("ModalitiesInStudy") or "")
            if self.ignores_keys or not wanted or wanted in {i.Modality for i in instances}:
                found[uid] = match
        return list(found.values())

    def _selected(self, identifier: Dataset) -> list[Dataset]:
        return [i for _, i in sorted(self.instances.items()) if _fits(identifier, i)]

    def _move(self, event: Any) -> Iterator[Any]:
        destination = event.move_destination.strip()
        if destination not in self.destinations:
            yield None, None
            return
        selected = self._selected(event.identifier)
        host, port = self.destinations[destination]
        yield host, port
        yield len(selected)
        yield from self._sub_operations(selected)

    def _get(self, event: Any) -> Iterator[Any]:
        selected = self._selected(event.identifier)
        yield len(selected)
        yield from self._sub_operations(selected)

    def _sub_operations(self, selected: list[Dataset]) -> Iterator[Any]:
        time.sleep(self.delay_s)
        for instance in selected:
            if instance.SOPInstanceUID not in self.withheld:
                self.retrieved.append(instance.SOPInstanceUID)
                yield 0xFF00, instance
        failed = [i.SOPInstanceUID for i in selected if i.SOPInstanceUID in self.withheld]
        if failed:
            answer = Dataset()
            answer.FailedSOPInstanceUIDList = failed
            yield 0xB000, answer


def _fits(identifier: Dataset, instance: Dataset) -> bool:
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        wanted = identifier.get(keyword)
        values = [wanted] if isinstance(wanted, str) else list(wanted or [])
        if any(values) and instance[keyword].value not in values:
            return False
    for keyword in ("StudyDate", "StudyTime"):
        wanted = str(identifier.get(keyword) or "")
        value = str(instance.get(keyword) or "")
        if wanted and not value:
            return False
        first, _, last = wanted.partition("-") if "-" in wanted else (wanted, "", wanted)
        if wanted and not ((not first or first <= value) and (not last or value[: len(last)] <= last)):
            return False
    return True


def _match(identifier: Dataset, level: str, instances: list[Dataset], omits_counts: bool) -> Dataset:
    first, match = instances[0], Dataset()
    computed: dict[str, Any] = {
        "QueryRetrieveLevel": level,
        "ModalitiesInStudy": sorted({i.Modality for i in instances}),
        "RetrieveAETitle": AE_TITLE,
    }
    if not omits_counts:
        computed["NumberOfStudyRelatedSeries"] = len({i.SeriesInstanceUID for i in instances})
        computed["NumberOfStudyRelatedInstances"] = len(instances)
        computed["NumberOfSeriesRelatedInstances"] = len(instances)
    if "SpecificCharacterSet" in first:
        match.SpecificCharacterSet = first.SpecificCharacterSet
    for element in identifier:
        if element.keyword in computed:
            setattr(match, element.keyword, computed[element.keyword])
        elif element.keyword in first and element.keyword != "SpecificCharacterSet":
            match[element.tag] = first[element.tag]
        elif element.VR != "SQ" and element.keyword not in ("SpecificCharacterSet",):
            setattr(match, element.keyword, "" if element.VR not in ("IS", "DS", "US", "UL") else None)
    return match


@contextmanager
def running_fake(tls: ssl.SSLContext | None = None) -> Iterator[FakeDimse]:
    """An empty archive until the block ends."""
    fake = FakeDimse(tls)
    fake.start()
    try:
        yield fake
    finally:
        fake.stop()
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join(5)


__all__ = ["AE_TITLE", "FakeDimse", "running_fake"]
