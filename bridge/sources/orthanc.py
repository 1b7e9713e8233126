"""An Orthanc server as an archive: its change log gives hints, its DICOMweb plugin the headers."""

from __future__ import annotations

import ssl
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from bridge.model import Rejection, WadoEndpoint
from bridge.ports import ChangePage, StudyHeaders
from bridge.sources.orthanc_ids import StudyIds
from bridge.sources.orthanc_log import LogPage, Position, is_orthanc_id
from bridge.sources.orthanc_tags import headers_from_tags
from bridge.sources.web_auth import sign_in
from bridge.sources.web_client import Transport, WebClient
from bridge.translate.headers import Headers
from bridge.translate.uids import checked_uid

PAGE = 1000
"""Entries of the log asked for at once."""

LISTED = {"studies": 1000, "series": 200}
"""Resources asked for at once when everything is listed; a series comes with all its instances."""

OVERLAP = 20
"""Resources of the page before that are listed again: if none of them is, the list moved and is read again."""

STEPS_BACK = 1000
DICOM_JSON = "application/dicom+json"


class Orthanc:
    """Follows /changes, reads studies by WADO-RS metadata, counts them by the REST API. Needs the DICOMweb plugin.

    A deletion leaves no entry in Orthanc's log: the inventory shows it. A study that Orthanc holds under two patient
    ids is one study here. Every method raises SourceUnavailable when Orthanc cannot answer.
    """

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
        self._dicom_web = dicom_web.rstrip("/")
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

    def close(self) -> None:
        """Ends the connections."""
        self._client.close()

    def changes(self, position: str | None) -> ChangePage:
        """The studies that the next entries of the log are about.

        Result  a page with `resweep`, and its position at the start of the log, when the log is not the one that
                the position was taken in: the database was emptied, replaced or restored
        """
        here = Position.parse(position)
        answer = self._client.get("/changes", {"since": here.since, "limit": PAGE})
        if answer is None:
            raise self._client.unavailable("HTTP 404 for /changes: check that url is Orthanc's REST API")
        page = LogPage.parse(answer, here.sequence)
        if page is None:
            raise self._client.unavailable("/changes did not answer as Orthanc does: check url")
        if here.contradicts(page):
            return ChangePage(frozenset(), Position().text, caught_up=False, resweep=True)
        studies, rejected = self._ids.named(e for e in page.entries if e.sequence > here.sequence)
        there = here.after(page)
        return ChangePage(
            studies,
            there.text if there != here else "",
            caught_up=page.done or there == here,
            rejected=page.rejected + rejected,
        )

    def read(self, study_instance_uid: str) -> StudyHeaders:
        """The headers of every instance Orthanc holds of the study now; none when it does not have it.

        That it has none is believed from the REST API only: a DICOMweb plugin that is missing, or that refuses a study
        held under two patient ids, says 404 as well. Raises InvalidDicomValue for what is not a UID.
        """
        uid = checked_uid(study_instance_uid, "StudyInstanceUID")
        held = self._orthanc_ids(uid)
        if not held:
            return StudyHeaders(())
        if len(held) > 1:
            return self._read_each(held)
        found = self._read_metadata(uid)
        if found is not None:
            return found
        if self._orthanc_ids(uid):
            raise self._client.unavailable(_NO_METADATA)
        return StudyHeaders(())

    def inventory(self) -> Iterator[tuple[str, int]]:
        """Every study Orthanc holds with its number of instances, in order of UID."""
        uids = {study["ID"]: _study_uid(study) for study in self._listed("studies")}
        instances: Counter[str] = Counter()
        for series in self._listed("series"):
            study, held = series.get("ParentStudy"), series.get("Instances")
            if not is_orthanc_id(study) or not isinstance(held, list):
                raise self._client.unavailable("/series did not answer as Orthanc does: check url")
            instances[str(study)] += len(held)
        by_uid: Counter[str] = Counter()
        for study, count in instances.items():
            uid = uids[study] if study in uids else StudyIds(self._client).study_uid(study)
            if uid:
                by_uid[uid] += count
        yield from sorted(by_uid.items())

    def count(self, study_instance_uids: Sequence[str]) -> Mapping[str, int]:
        """How many instances Orthanc holds now of each study."""
        return {uid: sum(map(self._count, self._orthanc_ids(uid))) for uid in study_instance_uids}

    def _count(self, study: str) -> int:
        found = self._client.get(f"/studies/{study}/statistics")
        if found is None:
            return 0
        count = found.get("CountInstances") if isinstance(found, Mapping) else None
        if not str(count).isascii() or not str(count).isdigit():
            raise self._client.unavailable("/studies did not answer as Orthanc does: check url")
        return int(str(count))

    def _orthanc_ids(self, uid: str) -> list[str]:
        """Orthanc's identifiers of the study: several when it is held under several patient ids."""
        found = self._client.post("/tools/lookup", uid)
        if not isinstance(found, list) or not all(isinstance(f, Mapping) and is_orthanc_id(f.get("ID")) for f in found):
            raise self._client.unavailable("/tools/lookup did not answer as Orthanc does: check url")
        return sorted(f["ID"] for f in found if f.get("Type") == "Study")

    def _read_metadata(self, uid: str) -> StudyHeaders | None:
        instances: list[Headers] = []
        rejected: list[Rejection] = []

        def visit(item: Any) -> None:
            if isinstance(item, Mapping):
                instances.append(Headers.from_dicom_json(item))
            else:
                place = len(instances) + len(rejected) + 1
                key = f"{self.name}/metadata/{place}"
                rejected.append(Rejection(key, "an instance's metadata is not an object", {"position": place}))

        held = self._client.each(f"{self._dicom_web}/studies/{quote(uid, safe='')}/metadata", DICOM_JSON, visit)
        return StudyHeaders(tuple(instances), held, tuple(rejected)) if held else None

    def _read_each(self, studies: list[str]) -> StudyHeaders:
        """A study held under several patient ids; of equal instances the first is kept, others rejected."""
        instances: dict[str, Headers] = {}
        rejected: list[Rejection] = []
        held = 0
        for study in studies:
            found = self._client.get(f"/studies/{study}/instances-tags")
            if found is not None and not isinstance(found, Mapping):
                raise self._client.unavailable("/studies did not answer as Orthanc does: check url")
            for orthanc_id, tags in sorted((found or {}).items()):
                held += 1
                headers = headers_from_tags(tags if isinstance(tags, Mapping) else {})
                first = instances.setdefault(headers.text("SOPInstanceUID") or orthanc_id, headers)
                if first is not headers and first != headers:
                    evidence = {"orthanc_id": orthanc_id}
                    rejected.append(Rejection(f"{self.name}/{orthanc_id}", _CONFLICT, evidence))
        return StudyHeaders(tuple(instances.values()), held, tuple(rejected))

    def _listed(self, level: str) -> Iterator[Mapping[str, Any]]:
        """Every resource of a level once, in overlapping pages: what others store or delete meanwhile hides none."""
        size, offset, back, seen = LISTED[level], 0, 0, set[str]()
        while True:
            page = self._listed_page(level, offset, size)
            if offset and back < STEPS_BACK and not any(r["ID"] in seen for r in page):
                offset, back = max(0, offset - size), back + 1
                continue
            new = [r for r in page if r["ID"] not in seen]
            seen.update(r["ID"] for r in new)
            yield from new
            if not new and len(page) < size:
                return
            offset += max(len(page) - OVERLAP, 1)

    def _listed_page(self, level: str, offset: int, size: int) -> list[Mapping[str, Any]]:
        page = self._client.get(f"/{level}", {"expand": "", "since": offset, "limit": size})
        if not isinstance(page, list) or not all(isinstance(r, Mapping) and is_orthanc_id(r.get("ID")) for r in page):
            raise self._client.unavailable(f"/{level} did not answer as Orthanc does: check url")
        return page


_NO_METADATA = (
    "nothing under dicom_web for a study that Orthanc holds: is the DICOMweb plugin enabled, and dicom_web its path?"
)
_CONFLICT = "SOPInstanceUID: the archive holds other content of the same instance; the first is kept"


def _study_uid(study: Mapping[str, Any]) -> str | None:
    tags = study.get("MainDicomTags")
    uid = tags.get("StudyInstanceUID") if isinstance(tags, Mapping) else None
    return uid if isinstance(uid, str) else None
