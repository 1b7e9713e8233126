"""How many instances Orthanc holds: of every study, of some studies, of all together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import orjson

from bridge.errors import InvalidDicomValue
from bridge.sources.days import study_date
from bridge.sources.orthanc_ids import StudyIds, instances_in, instances_of, studies_with
from bridge.sources.orthanc_log import is_orthanc_id
from bridge.sources.web_client import WebClient
from bridge.translate.uids import checked_uid

LISTED = {"studies": 1000, "series": 200}
"""Resources asked for at once when everything is listed; a series comes with all its instances."""

OVERLAP = 20
"""Resources of the page before that are listed again: if none of them is, the list moved and is read again."""

STEPS_BACK = 1000

COUNTED = 100
"""Studies counted at once: Orthanc goes through all its studies once for each request, and answers with the
identifiers of all their instances, 57 bytes each."""


class Inventory:
    """Counts instances by the REST API alone. Every method raises SourceUnavailable when Orthanc cannot answer."""

    def __init__(self, client: WebClient, ids: StudyIds) -> None:
        self._client, self._ids = client, ids

    def every(self) -> Iterator[tuple[str, int]]:
        """Every study held, with its number of instances, in order of UID."""
        uids = {study["ID"]: _study_uid(study) for study in self._listed("studies")}
        instances: Counter[str] = Counter()
        for series in self._listed("series"):
            study = series.get("ParentStudy")
            if not is_orthanc_id(study):
                raise self._client.unavailable("/series did not answer as Orthanc does: check url")
            instances[str(study)] += len(instances_in(self._client, series))
        by_uid: Counter[str] = Counter()
        for study, count in instances.items():
            uid = uids[study] if study in uids else self._ids.study_uid(study)
            if uid:
                by_uid[uid] += count
        yield from sorted(by_uid.items())

    def dated(self) -> Iterator[tuple[str, date | None]]:
        """Every study held, with its StudyDate; in Orthanc's order."""
        for study in self._listed("studies"):
            uid, tags = _study_uid(study), study.get("MainDicomTags")
            if uid is not None and isinstance(tags, Mapping):
                yield uid, study_date(str(tags.get("StudyDate", "")))

    def of(self, study_instance_uids: Sequence[str]) -> dict[str, int]:
        """The number of instances of each of these studies, 0 for those not held; two requests for 100 studies."""
        counts: dict[str, int] = {}
        for start in range(0, len(study_instance_uids), COUNTED):
            counts |= self._of_few(study_instance_uids[start : start + COUNTED])
        return counts

    def total(self) -> int | None:
        """The number of all instances held; None where Orthanc does not tell."""
        found = self._client.get("/statistics")
        count = str(found.get("CountInstances")) if isinstance(found, Mapping) else ""
        return int(count) if count.isascii() and count.isdigit() else None

    def _of_few(self, uids: Sequence[str]) -> dict[str, int]:
        """What the answer leaves out (Orthanc can be told to limit it: LimitFindResults) is counted one by one."""
        searched = [uid for uid in uids if _is_uid(uid)]
        series = {s["ID"]: len(instances_in(self._client, s)) for s in self._found("Series", searched)}
        counts: Counter[str] = Counter()
        cut: set[str] = set()
        for study in self._found("Study", searched):
            uid, parts = _study_uid(study), study.get("Series")
            if uid is None or not isinstance(parts, list):
                raise self._client.unavailable("/tools/find did not answer as Orthanc does: check url")
            counts[uid] += sum(series.get(part, 0) for part in parts)
            if not series.keys() >= set(parts):
                cut.add(uid)
        return {uid: counts[uid] if uid in counts and uid not in cut else self._of_one(uid) for uid in uids}

    def _of_one(self, uid: str) -> int:
        held = (instances_of(self._client, study) for study in studies_with(self._client, uid))
        return sum(len(instances) for series in held for instances in series.values())

    def _found(self, level: str, uids: Sequence[str]) -> list[Mapping[str, Any]]:
        if not uids:
            return []
        query = {"Level": level, "Query": {"StudyInstanceUID": "\\".join(uids)}, "Expand": True}
        return self._resources("/tools/find", self._client.post("/tools/find", orjson.dumps(query).decode()))

    def _listed(self, level: str) -> Iterator[Mapping[str, Any]]:
        """Every resource of a level once, in overlapping pages: what others store or delete meanwhile hides none."""
        size, offset, back, seen = LISTED[level], 0, 0, set[str]()
        while True:
            answer = self._client.get(f"/{level}", {"expand": "", "since": offset, "limit": size})
            page = self._resources(f"/{level}", answer)
            if offset and back < STEPS_BACK and not any(r["ID"] in seen for r in page):
                offset, back = max(0, offset - size), back + 1
                continue
            new = [r for r in page if r["ID"] not in seen]
            seen.update(r["ID"] for r in new)
            yield from new
            if not new and len(page) < size:
                return
            offset += max(len(page) - OVERLAP, 1)

    def _resources(self, path: str, answer: Any) -> list[Mapping[str, Any]]:
        if not isinstance(answer, list) or not all(
            isinstance(r, Mapping) and is_orthanc_id(r.get("ID")) for r in answer
        ):
            raise self._client.unavailable(f"{path} did not answer as Orthanc does: check url")
        return answer


def _study_uid(study: Mapping[str, Any]) -> str | None:
    tags = study.get("MainDicomTags")
    uid = tags.get("StudyInstanceUID") if isinstance(tags, Mapping) else None
    return uid if isinstance(uid, str) and _is_uid(uid) else None


def _is_uid(text: str) -> bool:
    try:
        return bool(checked_uid(text, "StudyInstanceUID"))
    except InvalidDicomValue:
        return False
