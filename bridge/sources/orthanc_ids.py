"""From Orthanc's identifiers to Study Instance UIDs, with few requests, and back."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from bridge.errors import InvalidDicomValue
from bridge.model import Rejection
from bridge.sources.orthanc_log import Entry, is_orthanc_id
from bridge.sources.web_client import WebClient
from bridge.translate.uids import checked_uid

REMEMBERED = 50_000
"""Studies and series whose parents are kept: an identifier is a hash of its UIDs and never gets another parent."""

_FEW = 4
"""So many instances of a known series are asked for one by one, instead of asking for all the series' instances."""


class StudyIds:
    """Finds the studies that entries of the log are about. What is gone meanwhile names nothing."""

    def __init__(self, client: WebClient) -> None:
        self._client = client
        self._uid_of_study = _Recent()
        self._study_of_series = _Recent()

    def named(self, entries: Iterable[Entry]) -> tuple[frozenset[str], tuple[Rejection, ...]]:
        """Study Instance UIDs of the studies that may have changed, and what could not be followed to one."""
        search = _Search(self._client, self._uid_of_study, self._study_of_series)
        search.follow(list(entries))
        return frozenset(search.uids), tuple(search.rejected)

    def study_uid(self, study: str) -> str | None:
        """The Study Instance UID of one Orthanc study; None when it is gone or its UID not usable."""
        search = _Search(self._client, self._uid_of_study, self._study_of_series)
        search.add_study(study)
        return next(iter(search.uids), None)


def studies_with(client: WebClient, uid: str) -> list[str]:
    """Orthanc's identifiers of a study: several when it is held under several patient ids, none when it is not."""
    return _looked_up(client, uid, "Study")


def instances_with(client: WebClient, uid: str) -> list[str]:
    """The same of an instance, by its SOP Instance UID."""
    return _looked_up(client, uid, "Instance")


def _looked_up(client: WebClient, uid: str, level: str) -> list[str]:
    found = client.post("/tools/lookup", uid)
    if not isinstance(found, list) or not all(isinstance(f, Mapping) and is_orthanc_id(f.get("ID")) for f in found):
        raise client.unavailable("/tools/lookup did not answer as Orthanc does: check url")
    return sorted(f["ID"] for f in found if f.get("Type") == level)


def instances_of(client: WebClient, study: str) -> dict[str, list[str]]:
    """The identifiers of a study's instances by those of its series, in order; {} when the study is gone."""
    found = client.get(f"/studies/{study}/series")
    if found is None:
        return {}
    if not isinstance(found, list) or not all(isinstance(s, Mapping) and is_orthanc_id(s.get("ID")) for s in found):
        raise client.unavailable("/studies did not answer as Orthanc does: check url")
    return {s["ID"]: instances_in(client, s) for s in sorted(found, key=lambda s: str(s["ID"]))}


def instances_in(client: WebClient, series: Mapping[str, Any]) -> list[str]:
    """The identifiers of a series' instances, from Orthanc's description of the series."""
    held = series.get("Instances")
    if not isinstance(held, list) or not all(map(is_orthanc_id, held)):
        raise client.unavailable("a series is not described as Orthanc does it: check url")
    return held


class _Recent(OrderedDict[str, str]):
    """The most recently used pairs."""

    def known(self, key: str) -> str | None:
        if key not in self:
            return None
        self.move_to_end(key)
        return self[key]

    def remember(self, key: str, value: str) -> None:
        self[key] = value
        self.move_to_end(key)
        while len(self) > REMEMBERED:
            self.popitem(last=False)


class _Search:
    """The entries of one page, followed upwards. One request for a series answers for all its instances."""

    def __init__(self, client: WebClient, uid_of_study: _Recent, study_of_series: _Recent) -> None:
        self._client, self._uid_of_study, self._study_of_series = client, uid_of_study, study_of_series
        self._studies_done: set[str] = set()
        self._series_done: set[str] = set()
        self._instances: dict[str, None] = {}
        self.uids: set[str] = set()
        self.rejected: list[Rejection] = []

    def follow(self, entries: list[Entry]) -> None:
        by_level: dict[str, dict[str, None]] = {}
        for entry in entries:
            by_level.setdefault(entry.level, {})[entry.orthanc_id] = None
        self._instances = by_level.get("Instance", {})
        for study in by_level.get("Study", {}):
            self.add_study(study)
        for series in by_level.get("Series", {}):
            self._add_series(series, siblings_wanted=False)
        while self._instances:
            self._add_instance(self._instances.popitem()[0])
        for patient in by_level.get("Patient", {}):
            for study in self._of("patients", patient, "Studies", list) or ():
                self.add_study(study)

    def add_study(self, study: str) -> None:
        if study in self._studies_done:
            return
        self._studies_done.add(study)
        uid = self._uid_of_study.known(study) or self._asked_uid(study)
        if uid:
            self.uids.add(uid)
            self._uid_of_study.remember(study, uid)

    def _asked_uid(self, study: str) -> str | None:
        tags = self._of("studies", study, "MainDicomTags", Mapping)
        if tags is None:
            return None
        uid = tags.get("StudyInstanceUID")
        try:
            return checked_uid(uid if isinstance(uid, str) else "", "StudyInstanceUID")
        except InvalidDicomValue as error:
            self._reject("studies", study, str(error))
            return None

    def _add_series(self, series: str, siblings_wanted: bool) -> None:
        if series in self._series_done:
            return
        study = self._study_of_series.known(series)
        if study is None or siblings_wanted:
            self._series_done.add(series)
            found = self._resource("series", series)
            siblings = found.get("Instances") if found else None
            for instance in siblings if isinstance(siblings, list) else ():
                self._instances.pop(instance, None)
            study = self._parent("series", series, found, "ParentStudy") or study
        if study is not None:
            self._study_of_series.remember(series, study)
            self.add_study(study)

    def _add_instance(self, instance: str) -> None:
        found = self._resource("instances", instance)
        series = self._parent("instances", instance, found, "ParentSeries")
        if series is not None:
            self._add_series(series, siblings_wanted=len(self._instances) >= _FEW)

    def _parent(self, level: str, orthanc_id: str, found: Mapping[str, Any] | None, key: str) -> str | None:
        if found is None:
            return None
        if is_orthanc_id(found.get(key)):
            return str(found[key])
        self._reject(level, orthanc_id, f"Orthanc's answer has no usable {key}")
        return None

    def _of(self, level: str, orthanc_id: str, key: str, kind: type[Any]) -> Any:
        """One member of a resource; None when the resource is gone, or has no such member: then it is rejected."""
        found = self._resource(level, orthanc_id)
        if found is None:
            return None
        if isinstance(found.get(key), kind):
            return found[key]
        self._reject(level, orthanc_id, f"Orthanc's answer has no usable {key}")
        return None

    def _resource(self, level: str, orthanc_id: str) -> Mapping[str, Any] | None:
        if not is_orthanc_id(orthanc_id):
            return None
        found = self._client.get(f"/{level}/{orthanc_id}")
        if found is not None and not isinstance(found, Mapping):
            raise self._client.unavailable(f"/{level} did not answer as Orthanc does: check url")
        return found

    def _reject(self, level: str, orthanc_id: str, problem: str) -> None:
        self.rejected.append(Rejection(f"{level}/{orthanc_id}", problem, {"orthanc_id": orthanc_id}))
