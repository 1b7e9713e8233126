"""An Orthanc server: follows /changes from a durable cursor, reads headers through its DICOMweb plugin."""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

from bridge.errors import SourceUnavailable
from bridge.model import Rejection, WadoEndpoint
from bridge.ports import ChangePage, StudyHeaders
from bridge.translate.headers import Headers

logging.getLogger("httpx").setLevel(logging.WARNING)  # its INFO lines quote whole URLs
logging.getLogger("httpcore").setLevel(logging.WARNING)

PAGE = 1000
INVENTORY_PAGE = 500
MAXIMUM_ANSWER_BYTES = 1_073_741_824
_SERIES_REMEMBERED = 50_000
_ORTHANC_ID = re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{8}){4}$")
_UID = re.compile(r"^[0-9.]{1,64}$")
_INSTANCES = "00201208"


@dataclass(frozen=True)
class _Cursor:
    """Where we are in the log: the last sequence number, and what stood there, to notice a replaced database."""

    last: int = 0
    seen: str = ""

    @classmethod
    def parse(cls, position: str | None) -> _Cursor:
        try:
            plain = orjson.loads(position or "{}")
            return cls(int(plain.get("last", 0)), str(plain.get("seen", "")))
        except (orjson.JSONDecodeError, TypeError, ValueError, AttributeError):
            return cls()

    def text(self) -> str:
        return orjson.dumps({"last": self.last, "seen": self.seen}).decode()


class _Gone(Exception):
    """The resource does not exist (any more)."""


class Orthanc:
    """An ImagingSource over one Orthanc (1.10 and later; its DICOMweb plugin is needed)."""

    def __init__(
        self,
        name: str,
        url: str,
        *,
        dicom_web: str = "/dicom-web",
        username: str = "",
        password: str = "",
        timeout_s: float = 60.0,
        endpoint: WadoEndpoint | None = None,
        poll_s: float = 2.0,
        sweep_s: float = 3600.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.name, self.endpoint, self.poll_s, self.sweep_s = name, endpoint, poll_s, sweep_s
        self._url, self._dicom_web = url.rstrip("/"), dicom_web.rstrip("/")
        self._client = httpx.Client(
            auth=(username, password) if username else None,
            timeout=timeout_s,
            follow_redirects=False,
            transport=transport,
            trust_env=False,
        )
        self._study_of_series: OrderedDict[str, str] = OrderedDict()

    def close(self) -> None:
        self._client.close()

    def changes(self, position: str | None) -> ChangePage:
        """Studies named by the next entries of the log.

        The last entry read is asked for again: another entry in its place, or a log that ends before it, means
        that the database was replaced; then everything is to be compared and the log read from its start.
        """
        cursor = _Cursor.parse(position)
        answer = self._json("/changes", {"since": str(max(cursor.last - 1, 0)), "limit": str(PAGE + 1)})
        if not isinstance(answer, dict) or not isinstance(answer.get("Changes"), list):
            raise SourceUnavailable(f"source {self.name}: /changes did not answer as Orthanc does: check url")
        entries, last = answer["Changes"], _whole(answer.get("Last"))
        if self._was_replaced(cursor, entries, last):
            return ChangePage(frozenset(), _Cursor().text(), caught_up=False, resweep=True)
        new = [e for e in entries if not isinstance(e, dict) or _whole(e.get("Seq")) > cursor.last]
        studies, rejected = self._studies(new)
        reached = max([_whole(e.get("Seq")) for e in new if isinstance(e, dict)], default=cursor.last)
        done = bool(answer.get("Done", True))
        reached = max(reached, last) if done else reached
        seen = next(
            (_print(e) for e in reversed(entries) if isinstance(e, dict) and _whole(e.get("Seq")) == reached), ""
        )
        moved = reached > cursor.last
        following = _Cursor(reached, seen).text() if moved or position is None else ""
        return ChangePage(frozenset(studies), following, caught_up=done or not moved, rejected=tuple(rejected))

    def read(self, study_instance_uid: str) -> StudyHeaders:
        """Every instance's headers, by one metadata request. None when Orthanc does not hold the study."""
        if not _UID.match(study_instance_uid):
            return StudyHeaders(())
        try:
            found = self._json(f"{self._dicom_web}/studies/{study_instance_uid}/metadata", {}, "application/dicom+json")
        except _Gone:
            self._check_dicom_web()
            return StudyHeaders(())
        if not isinstance(found, list):
            raise SourceUnavailable(f"source {self.name}: the study metadata is not a list: check dicom_web")
        good = [Headers.from_dicom_json(entry) for entry in found if isinstance(entry, dict)]
        bad = len(found) - len(good)
        rejected = (
            (Rejection(f"{self.name}/metadata", f"{bad} entries of the metadata are not DICOM JSON"),) if bad else ()
        )
        return StudyHeaders(tuple(good), len(found), rejected)

    def inventory(self) -> Iterator[tuple[str, int]]:
        """Every study with its number of instances, by QIDO-RS. A study under two patient ids is one, summed."""
        counted: dict[str, int] = {}
        offset = 0
        while True:
            parameters = {"limit": str(INVENTORY_PAGE), "offset": str(offset), "includefield": _INSTANCES}
            try:
                page = self._json(f"{self._dicom_web}/studies", parameters, "application/dicom+json")
            except _Gone:
                raise SourceUnavailable(f"source {self.name}: {_NO_DICOM_WEB}") from None
            if not isinstance(page, list):
                raise SourceUnavailable(f"source {self.name}: the list of studies is not a list: check dicom_web")
            fresh = 0
            for study in page:
                headers = study if isinstance(study, dict) else {}
                uid, instances = _value(headers, "0020000D"), _value(headers, _INSTANCES)
                if isinstance(uid, str) and uid:
                    fresh += uid not in counted
                    counted[uid] = counted.get(uid, 0) + _whole(instances)
            if len(page) < INVENTORY_PAGE or not fresh:
                break
            offset += len(page)
        yield from counted.items()

    def _was_replaced(self, cursor: _Cursor, entries: list[Any], last: int) -> bool:
        if not cursor.last:
            return False
        if last < cursor.last:
            return True
        there = next((e for e in entries if isinstance(e, dict) and _whole(e.get("Seq")) == cursor.last), None)
        return there is not None and bool(cursor.seen) and _print(there) != cursor.seen

    def _studies(self, entries: list[Any]) -> tuple[set[str], list[Rejection]]:
        """Study Instance UIDs behind the entries. Entries about things deleted meanwhile name nothing."""
        by_kind: dict[str, dict[str, None]] = {"Study": {}, "Series": {}, "Instance": {}, "Patient": {}}
        rejected = []
        for entry in entries:
            kind, id_ = (entry.get("ResourceType"), entry.get("ID")) if isinstance(entry, dict) else (None, None)
            if kind in by_kind and isinstance(id_, str) and _ORTHANC_ID.match(id_):
                by_kind[kind][id_] = None
            elif not isinstance(entry, dict) or kind in by_kind:
                number = _whole(entry.get("Seq")) if isinstance(entry, dict) else 0
                rejected.append(Rejection(f"change {number}", "an entry of /changes has no usable ID", {"seq": number}))
        studies: set[str] = set()
        for id_ in by_kind["Patient"]:
            for study in self._get(f"/patients/{id_}").get("Studies", []):
                by_kind["Study"][str(study)] = None
        for id_ in by_kind["Study"]:
            studies |= self._study_uid(id_)
        instances = by_kind["Instance"]
        for id_ in by_kind["Series"]:
            studies |= self._series_study(id_, instances)
        while instances:
            id_, _ = instances.popitem()
            parent = self._get(f"/instances/{id_}").get("ParentSeries")
            if isinstance(parent, str):
                studies |= self._series_study(parent, instances)
        return studies, rejected

    def _series_study(self, series: str, instances: dict[str, None]) -> set[str]:
        """The series' study; its other instances need not be asked for."""
        found = self._get(f"/series/{series}") if _ORTHANC_ID.match(series) else {}
        for sibling in found.get("Instances", []):
            instances.pop(sibling, None)
        known = self._study_of_series.get(series)
        if known is not None and found:
            return {known}
        uids = self._study_uid(str(found.get("ParentStudy", "")))
        for uid in uids:
            self._study_of_series[series] = uid
            if len(self._study_of_series) > _SERIES_REMEMBERED:
                self._study_of_series.popitem(last=False)
        return uids

    def _study_uid(self, study: str) -> set[str]:
        found = self._get(f"/studies/{study}") if _ORTHANC_ID.match(study) else {}
        uid = found.get("MainDicomTags", {}).get("StudyInstanceUID", "")
        return {uid} if isinstance(uid, str) and _UID.match(uid) else set()

    def _get(self, path: str) -> dict[str, Any]:
        """A REST resource; {} when it is gone."""
        try:
            found = self._json(path, {})
        except _Gone:
            return {}
        return found if isinstance(found, dict) else {}

    def _check_dicom_web(self) -> None:
        """Tells a study that is gone from a plugin that is not there: a gone plugin must not delete studies."""
        try:
            self._json(f"{self._dicom_web}/studies", {"limit": "1"}, "application/dicom+json")
        except _Gone:
            raise SourceUnavailable(f"source {self.name}: {_NO_DICOM_WEB}") from None

    def _json(self, path: str, parameters: Mapping[str, str], accept: str = "application/json") -> Any:
        try:
            with self._client.stream(
                "GET", self._url + path, params=parameters, headers={"Accept": accept}
            ) as response:
                self._check(response)
                content = bytearray()
                for chunk in response.iter_bytes():
                    content += chunk
                    if len(content) > MAXIMUM_ANSWER_BYTES:
                        raise SourceUnavailable(f"source {self.name}: an answer is larger than 1 GiB: refused")
        except httpx.TimeoutException:
            raise SourceUnavailable(f"source {self.name}: no answer within the time allowed (timeout_s)") from None
        except httpx.HTTPError as error:
            raise SourceUnavailable(
                f"source {self.name}: cannot be reached ({type(error).__name__}): check url"
            ) from None
        if not content:
            return []
        try:
            return orjson.loads(content)
        except orjson.JSONDecodeError:
            raise SourceUnavailable(f"source {self.name}: the answer is not JSON: check url") from None

    def _check(self, response: httpx.Response) -> None:
        code = response.status_code
        if code in (404, 410):
            raise _Gone
        if 200 <= code < 300:
            return
        hint = {401: ": username or password not accepted", 403: ": the account may not do this"}.get(code, "")
        wait = response.headers.get("retry-after", "")
        raise SourceUnavailable(
            f"source {self.name}: HTTP {code}{hint}", min(float(wait), 3600.0) if wait.isdigit() else None
        )


_NO_DICOM_WEB = "nothing answers under dicom_web: is the DICOMweb plugin enabled?"


def _whole(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return 0


def _print(entry: Mapping[str, Any]) -> str:
    """What tells one log entry from another under the same number."""
    return "|".join(str(entry.get(k, "")) for k in ("ChangeType", "Date", "ID"))


def _value(attributes: Mapping[str, Any], tag: str) -> Any:
    found = attributes.get(tag)
    values = found.get("Value") if isinstance(found, dict) else None
    return values[0] if isinstance(values, list) and values else None
