"""Reads the headers of a study by WADO-RS metadata (PS3.18 10.4.1.1.2), in smaller parts where the whole is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from urllib.parse import quote

from bridge.model import Rejection
from bridge.ports import StudyHeaders
from bridge.sources.dicom_json import DicomJson
from bridge.sources.metadata import Metadata
from bridge.sources.qido_items import Part
from bridge.sources.web_client import TOO_LARGE, Refusal, WebClient

SMALLER = frozenset({206, 400, 406, TOO_LARGE, 500, 501, 502, 504})
"""Refusals of a whole that its parts may not meet; 206 is a part that says so (PS3.18 10.4.3)."""

BROKEN = frozenset({206, 400, 406, TOO_LARGE, 500, 501})
"""Refusals of one instance that are about the instance; others are about the server or what stands before it."""

MOST_SINGLE = 5000
"""Instances read one by one in one reading of a study."""

_NO_METADATA = (
    "no metadata of a study that the archive lists: "
    "check that url, with wado_prefix, is the root of a DICOMweb service with WADO-RS"
)
_OTHER_STUDY = "the metadata is of another study than the one asked for: check what caches answers before the archive"


class WadoMetadata:
    """The metadata of one archive. Raises SourceUnavailable when an answer cannot be had, or not whole."""

    def __init__(self, name: str, client: WebClient, prefix: str) -> None:
        self._name, self._unavailable, self._json = name, client.unavailable, DicomJson(client, prefix)

    def study(self, uid: str) -> StudyHeaders | None:
        """Every instance of the study in one answer; None when nothing is there. Raises Refusal."""
        return self._read(uid, f"/studies/{quote(uid, safe='')}/metadata")

    def in_parts(self, uid: str, series: Sequence[Part], instances: Callable[[str], Sequence[Part]]) -> StudyHeaders:
        """Every instance of these series, series by series, and a series that is refused instance by instance.

        An instance that is refused as well is rejected and not counted as held, so that comparing counts has it read
        again. Raises SourceUnavailable when there is no metadata of any.
        """
        found = [part for one in series for part in self._series(uid, one.uid, instances)]
        if not any(part.instances for part in found):
            raise self._unavailable(_NO_METADATA)
        headers = tuple(h for part in found for h in part.instances)
        return StudyHeaders(headers, sum(p.held for p in found), tuple(r for p in found for r in p.rejected))

    def _series(self, uid: str, series: str, instances: Callable[[str], Sequence[Part]]) -> list[StudyHeaders]:
        if not series:
            return [self._rejected(uid, "series", f"SeriesInstanceUID {_UNUSABLE}", {})]
        path = f"/studies/{quote(uid, safe='')}/series/{quote(series, safe='')}"
        try:
            whole = self._read(uid, f"{path}/metadata")
        except Refusal as refusal:
            if refusal.code not in SMALLER:
                raise
            whole = None
        if whole is not None:
            return [whole]
        single = instances(series)
        if len(single) > MOST_SINGLE:
            raise self._unavailable("a series of more instances than are read one by one gives no metadata")
        return [self._instance(uid, f"{path}/instances/{quote(one.uid, safe='')}/metadata", one.uid) for one in single]

    def _instance(self, uid: str, path: str, instance: str) -> StudyHeaders:
        if not instance:
            return self._rejected(uid, "instances", f"SOPInstanceUID {_UNUSABLE}", {})
        try:
            found, problem = self._read(uid, path), "there is none"
        except Refusal as refusal:
            if refusal.code not in BROKEN:
                raise
            found, problem = None, f"HTTP {refusal.code}"
        if found is not None:
            return found
        error = f"the archive gives no metadata of this instance: {problem}"
        return self._rejected(uid, instance, error, {"sop_instance_uid": instance})

    def _rejected(self, uid: str, place: str, error: str, evidence: Mapping[str, str | int]) -> StudyHeaders:
        return StudyHeaders((), 0, (Rejection(f"{self._name}/{uid}/{place}", error, evidence),))

    def _read(self, uid: str, path: str) -> StudyHeaders | None:
        found = Metadata(f"{self._name}/{uid}", uid)
        held = self._json.each(path, found.visit)
        if not held:
            return None
        if found.of_other_studies_alone:
            raise self._unavailable(_OTHER_STUDY)
        return found.headers(held)


_UNUSABLE = "is missing or not a UID in the archive's list"
