"""Studies as a DICOM server holds them now, in one data partition or in several."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from bridge.errors import InvalidDicomValue
from bridge.model import InstanceName, Rejection
from bridge.ports import StudyHeaders
from bridge.sources.metadata import Metadata
from bridge.sources.paging import ListMoves, listed
from bridge.sources.wado_object import WadoObject
from bridge.sources.web_client import NOTHING, UnreadableAnswer, WebClient
from bridge.translate.headers import Headers
from bridge.translate.uids import checked_uid

DICOM_JSON = "application/dicom+json"
PAGE = 200
"""Search results asked for at once: the most that the server gives."""

DEFAULT_PARTITION = "Microsoft.Default"
"""Where everything lies while data partitions are not enabled."""

PARTITIONS_KNOWN_S = 60.0
"""So long the list of partitions is believed: another process may follow the feed that names new ones."""

COUNT = "NumberOfStudyRelatedInstances"
_COUNT_TAG = "00201208"
_NAME = re.compile(r"(?!\.+$)[A-Za-z0-9._-]{1,64}")


class Partitions:
    """The wanted data partitions that exist, and where their studies lie. `wanted` () = all; their order decides
    whose instance is kept when several hold the same."""

    def __init__(self, client: WebClient, base: str, wanted: tuple[str, ...]) -> None:
        self._client, self._base, self._wanted = client, base, wanted
        self._known: dict[str, str] = {}
        self._until = 0.0

    def wants(self, name: str) -> bool:
        """Whether studies of this partition are followed; "": the server does not say, and has but one."""
        return not self._wanted or not name or name in self._wanted

    def named(self, name: str) -> None:
        """The feed names a partition: one that is not known makes the list be read again."""
        if name and name not in self._known:
            self.forget()

    def forget(self) -> None:
        self._until = 0.0

    def places(self) -> Mapping[str, str]:
        """Name → path, of every wanted partition that exists."""
        if time.monotonic() >= self._until:
            self._known = self._asked()
            self._until = time.monotonic() + PARTITIONS_KNOWN_S
        return {name: path for name, path in self._ordered() if self.wants(name)}

    def _ordered(self) -> list[tuple[str, str]]:
        def rank(place: tuple[str, str]) -> tuple[int, str]:
            return (self._wanted.index(place[0]) if place[0] in self._wanted else 0), place[0]

        return sorted(self._known.items(), key=rank)

    def _asked(self) -> dict[str, str]:
        """All partitions. The server answers 400 (or knows no such path) while they are not enabled."""
        found = self._client.get(f"{self._base}/partitions", nothing=NOTHING | {400})
        if found is None:
            return {DEFAULT_PARTITION: self._base}
        if not isinstance(found, list):
            raise self._client.unavailable("/partitions did not answer as a DICOM server does: check url")
        names = [_member(p, "partitionname") for p in found]
        if not all(isinstance(name, str) and _NAME.fullmatch(name) for name in names):
            raise self._client.unavailable("/partitions holds a name that is none: letters, digits, '.', '-' and '_'")
        return {str(name): f"{self._base}/partitions/{name}" for name in names}


class Studies:
    """Reads, counts and lists studies over the wanted partitions. Raises SourceUnavailable."""

    def __init__(self, name: str, client: WebClient, partitions: Partitions) -> None:
        self._name, self._client, self._partitions = name, client, partitions
        self._object = WadoObject(client, "")

    def read(self, uid: str) -> StudyHeaders:
        """Every instance of the study; of the same instance in several partitions the first one's is kept."""
        instances: list[Headers] = []
        rejected: list[Rejection] = []
        kept: dict[str, Headers] = {}
        held = 0
        for partition, path in self._partitions.places().items():
            part = self._read_part(partition, path, uid)
            held += part.held
            rejected += part.rejected
            here: dict[str, Headers] = {}
            for headers in part.instances:
                sop_uid = _checked(headers, "SOPInstanceUID")
                if not sop_uid or sop_uid not in kept:
                    instances.append(headers)
                    here[sop_uid] = headers
                elif kept[sop_uid] != headers:
                    evidence = {"partition": partition}
                    rejected.append(Rejection(f"{self._name}/{partition}/{sop_uid}", _CONFLICT, evidence))
            kept |= here
        return StudyHeaders(tuple(instances), held, tuple(rejected))

    def instance(self, name: InstanceName, most_bytes: int) -> bytes | None:
        """One object, from the first partition that has it."""
        for path in self._partitions.places().values():
            if (found := self._object.instance(name, most_bytes, path)) is not None:
                return found
        return None

    def count(self, uid: str) -> int:
        """How many instances are held of the study."""
        return sum(self._count_part(path, uid) for path in self._partitions.places().values())

    def listed(self) -> Counter[str]:
        """Study → number of instances, of every study whose UID is one."""
        self._partitions.forget()
        found: Counter[str] = Counter()
        for path in self._partitions.places().values():
            for study in self._all(f"{path}/studies", "StudyInstanceUID", includefield=COUNT):
                uid = _uid(study, "StudyInstanceUID")
                if uid:
                    found[uid] += self._told_count(study) or self._counted(path, uid)
        return found

    def _count_part(self, path: str, uid: str) -> int:
        found = self._search(f"{path}/studies", {"StudyInstanceUID": uid, "includefield": COUNT, "limit": PAGE})
        study = next((s for s in found if _uid(s, "StudyInstanceUID") == uid), None)
        return (self._told_count(study) or self._counted(path, uid)) if study is not None else 0

    def _told_count(self, study: Mapping[str, Any]) -> int:
        """What the server counts itself, 0 when it does not: older ones cannot."""
        attribute = study.get(_COUNT_TAG)
        values = attribute.get("Value") if isinstance(attribute, Mapping) else None
        text = str(values[0]) if isinstance(values, list) and values else str(values)
        return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0

    def _counted(self, path: str, uid: str) -> int:
        return sum(1 for _ in self._all(f"{path}/studies/{quote(uid, safe='')}/instances", "SOPInstanceUID"))

    def _read_part(self, partition: str, path: str, uid: str) -> StudyHeaders:
        study = f"{path}/studies/{quote(uid, safe='')}"
        try:
            return self._metadata(f"{study}/metadata", partition)
        except UnreadableAnswer:
            return self._read_each(study, partition)

    def _metadata(self, path: str, partition: str) -> StudyHeaders:
        found = Metadata(f"{self._name}/{partition}")
        return found.headers(self._client.each(path, DICOM_JSON, found.visit))

    def _read_each(self, study: str, partition: str) -> StudyHeaders:
        """Instance by instance: what is unreadable in one of them makes the whole study's metadata unreadable."""
        instances: list[Headers] = []
        rejected: list[Rejection] = []
        held = 0
        for item in self._all(f"{study}/instances", "SOPInstanceUID"):
            series_uid, sop_uid = _uid(item, "SeriesInstanceUID"), _uid(item, "SOPInstanceUID")
            path = f"{study}/series/{quote(series_uid, safe='')}/instances/{quote(sop_uid, safe='')}/metadata"
            try:
                found = self._metadata(path, partition)
            except UnreadableAnswer:
                key, evidence = f"{self._name}/{partition}/{sop_uid}", {"partition": partition}
                found = StudyHeaders((), 1, (Rejection(key, _NOT_JSON, evidence),))
            instances += found.instances
            rejected += found.rejected
            held += found.held
        return StudyHeaders(tuple(instances), held, tuple(rejected))

    def _all(self, path: str, keyword: str, **parameters: str) -> Iterator[Mapping[str, Any]]:
        """Every result of a search once."""

        def page(offset: int, limit: int) -> list[Mapping[str, Any]]:
            return self._search(path, {**parameters, "limit": limit, "offset": offset})

        try:
            yield from listed(page, lambda item: Headers.from_dicom_json(item).text(keyword), PAGE)
        except ListMoves:
            raise self._client.unavailable("studies vanish faster than they can be listed: the next try may") from None

    def _search(self, path: str, parameters: Mapping[str, str | int]) -> list[Mapping[str, Any]]:
        found = self._client.get(path, parameters, DICOM_JSON, nothing=frozenset())
        if found is None:
            return []
        if not isinstance(found, list) or not all(isinstance(item, Mapping) for item in found):
            raise self._client.unavailable("a search did not answer as a DICOM server does: check url")
        return found


_CONFLICT = "SOPInstanceUID: another data partition holds other content of the same instance; the first is kept"
_NOT_JSON = "the archive's metadata of this instance is not JSON"


def _uid(item: Mapping[str, Any], keyword: str) -> str:
    """The UID in a search result; "" when it is none."""
    return _checked(Headers.from_dicom_json(item), keyword)


def _checked(headers: Headers, keyword: str) -> str:
    """The UID; "" when it is none."""
    try:
        return checked_uid(headers.text(keyword), keyword)
    except InvalidDicomValue:
        return ""


def _member(item: Any, name: str) -> Any:
    """A member whatever the case of its name."""
    members = item.items() if isinstance(item, Mapping) else ()
    return next((value for key, value in members if key.lower() == name), None)
