"""One study as Orthanc holds it: by its DICOMweb plugin, or by its own API where that does not give everything."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from bridge.errors import InvalidFile
from bridge.model import Rejection
from bridge.ports import StudyHeaders
from bridge.sources.metadata import Metadata
from bridge.sources.orthanc_ids import instances_of, instances_with, studies_with
from bridge.sources.orthanc_log import is_orthanc_id
from bridge.sources.orthanc_tags import headers_from_tags
from bridge.sources.web_client import Refusal, WebClient
from bridge.translate.headers import Headers
from bridge.translate.uids import checked_uid

log = logging.getLogger("bridge.sources.orthanc")

DICOM_JSON = "application/dicom+json"
TAGS_AT_ONCE = 500
"""A series of more instances is read one by one when it is read by tags: such an answer lies in memory as a whole."""

REFUSED_MOST = 100
"""So many instances refused and none read: the storage is away, and the rest need not be asked for."""

DAMAGED = frozenset({400, 500})
"""What Orthanc answers about an instance whose file is missing from its storage, or damaged."""

NOT_GIVEN = DAMAGED | {502, 504}
"""About a whole study also what a proxy answers when Orthanc takes too long over it."""


class StudyReader:
    """Reads one study by WADO-RS metadata; by /tags what that refuses, leaves out, or gives only in part."""

    def __init__(self, name: str, client: WebClient, dicom_web: str) -> None:
        self._name, self._client, self._dicom_web = name, client, dicom_web.rstrip("/")
        self._warned = False

    def read(self, study_instance_uid: str) -> StudyHeaders:
        """The headers of every instance held now; none when Orthanc does not have the study.

        That it has none is believed from the REST API only: a DICOMweb plugin that is missing, or that refuses a study
        held under two patient ids, says 404 as well. Raises InvalidDicomValue for what is not a UID.
        """
        uid = checked_uid(study_instance_uid, "StudyInstanceUID")
        studies = studies_with(self._client, uid)
        held = {series: ids for study in studies for series, ids in instances_of(self._client, study).items()}
        if not held:
            return StudyHeaders(())
        if len(studies) == 1:
            found = self._by_metadata(uid)
            if found is not None and self._is_whole(found, held):
                return found
        return self._by_tags(held)

    def instance(self, sop_instance_uid: str, most_bytes: int) -> bytes | None:
        """The first so many bytes of one instance's file. Raises InvalidFile when Orthanc cannot read it."""
        for found in instances_with(self._client, checked_uid(sop_instance_uid, "SOPInstanceUID")):
            try:
                content = self._client.content(f"/instances/{found}/file", "application/dicom", most_bytes)
            except Refusal as error:
                if error.code in DAMAGED:
                    raise InvalidFile(_UNREADABLE) from None
                raise
            if content is not None:
                return content
        return None

    def _by_metadata(self, uid: str) -> StudyHeaders | None:
        """None when Orthanc cannot put the answer together: one unreadable instance is enough for that."""
        found, path = Metadata(self._name), f"{self._dicom_web}/studies/{quote(uid, safe='')}/metadata"
        try:
            held = self._client.each(path, DICOM_JSON, found.visit)
        except Refusal as error:
            if error.code in NOT_GIVEN:
                return None
            raise
        if not held and studies_with(self._client, uid):
            raise self._client.unavailable(_NO_METADATA)
        return found.headers(held)

    def _is_whole(self, found: StudyHeaders, held: Mapping[str, list[str]]) -> bool:
        """Whether the metadata are of every instance listed before, and complete: the plugin can be set to give what
        Orthanc has indexed, without e.g. SOPClassUID (StudiesMetadata: MainDicomTags, Extrapolate)."""
        if not found.held:
            return True
        if found.held < sum(map(len, held.values())):
            return False
        tags = self._tags(f"/instances/{max(i for ids in held.values() for i in ids)}/tags")
        if not tags:
            return tags is not None
        sample = headers_from_tags(tags)
        same = [h for h in found.instances if h.text("SOPInstanceUID") == sample.text("SOPInstanceUID")]
        whole = any(h.keys() >= sample.keys() for h in same)
        if same and not whole and not self._warned:
            self._warned = True
            log.warning("source %s: %s", self._name, _REDUCED)
        return whole

    def _by_tags(self, held: Mapping[str, list[str]]) -> StudyHeaders:
        """Of equal instances under several patient ids the first is kept, others rejected; so is what is unreadable."""
        instances: dict[str, Headers] = {}
        rejected: list[Rejection] = []
        count = 0
        for instance, headers in self._each_by_tags(held):
            count += 1
            if headers is None:
                rejected.append(Rejection(f"{self._name}/{instance}", _UNREADABLE, {"orthanc_id": instance}))
                continue
            first = instances.setdefault(headers.text("SOPInstanceUID") or instance, headers)
            if first is not headers and first != headers:
                rejected.append(Rejection(f"{self._name}/{instance}", _CONFLICT, {"orthanc_id": instance}))
        if count and not instances:
            raise self._client.unavailable(_NONE_READABLE)
        return StudyHeaders(tuple(instances.values()), count, tuple(rejected))

    def _each_by_tags(self, held: Mapping[str, list[str]]) -> Iterator[tuple[str, Headers | None]]:
        """Every instance that is still there, with its headers; None when Orthanc refused to read it, twice."""
        refused: list[str] = []
        readable = False
        for series, listed in held.items():
            together = self._series_tags(series) if len(listed) <= TAGS_AT_ONCE else {}
            for instance in sorted(together.keys() | listed):
                tags = together.get(instance) or self._tags(f"/instances/{instance}/tags")
                if tags is None:
                    refused.append(instance)
                elif tags:
                    readable = True
                    yield instance, headers_from_tags(tags)
                if len(refused) >= REFUSED_MOST and not readable:
                    raise self._client.unavailable(_NONE_READABLE)
        for instance in refused:
            tags = self._tags(f"/instances/{instance}/tags")
            if tags != {}:
                yield instance, None if tags is None else headers_from_tags(tags)

    def _series_tags(self, series: str) -> dict[str, Mapping[str, Any]]:
        found = self._tags(f"/series/{series}/instances-tags") or {}
        return {i: tags for i, tags in found.items() if is_orthanc_id(i) and isinstance(tags, Mapping)}

    def _tags(self, path: str) -> Mapping[str, Any] | None:
        """What Orthanc tells there; {} when it is gone, None when Orthanc cannot read a file."""
        try:
            found = self._client.get(path)
        except Refusal as error:
            if error.code in DAMAGED:
                return None
            raise
        if found is not None and not isinstance(found, Mapping):
            raise self._client.unavailable("/instances did not answer as Orthanc does: check url")
        return found or {}


_NO_METADATA = (
    "nothing under dicom_web for a study that Orthanc holds: is the DICOMweb plugin enabled, and dicom_web its path?"
)
_REDUCED = "its DICOMweb plugin left attributes out: such studies are read by tags; is StudiesMetadata set to Full?"
_CONFLICT = "SOPInstanceUID: the archive holds other content of the same instance; the first is kept"
_UNREADABLE = "Orthanc cannot read this instance: its file is missing from Orthanc's storage, or damaged"
_NONE_READABLE = "Orthanc can read none of a study's instances: are the files of its storage there?"
