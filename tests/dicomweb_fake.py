"""A DICOMweb archive in memory, behind an httpx transport, with a switch for each thing that real ones do otherwise."""

from __future__ import annotations

import base64
import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import httpx
from pydicom import dcmread

from bridge.sources.dicomweb import DicomWeb
from bridge.web.auth import sign_in
from tests.wado_fake import multipart

URL = "https://dicomweb.example/rs"
USERNAME, PASSWORD = "reader", "correct horse"
TODAY = datetime(2024, 3, 2, 12, tzinfo=UTC)
"""The day after the studies of `study_bytes`."""

Json = dict[str, Any]
Answer = Callable[[httpx.Request], httpx.Response]
STUDY_TAGS = (
    "00080020", "00080030", "00080050", "00080061", "00080090", "00100010", "00100020", "00100030", "00100040",
    "0020000D", "00200010",
)  # fmt: skip


@dataclass(repr=False)
class Quirks:
    """What an archive does otherwise than the standard says, or in a way that the standard allows."""

    ignores_limit: bool = False
    ignores_offset: bool = False
    ignores_dates: bool = False
    ignores_study_uid: bool = False
    takes_no_lists: bool = False
    cap: int | None = None
    """The most items of one answer, whatever `limit` says."""
    largest_limit: int | None = None
    """A higher `limit` is refused with 400."""
    warns: bool = False
    too_broad: int | None = None
    """A search that finds more is refused with 413."""
    none_is: int = 204
    """The status when a search finds nothing."""
    omits_counts: bool = False
    omits_series_counts: bool = False
    omits_dates: bool = False
    accepts: str = "application/dicom+json"
    refuses_fields: bool = False
    metadata_levels: tuple[str, ...] = ("study", "series", "instance")
    """Where metadata is given; elsewhere `metadata_refusal` is the status."""
    metadata_refusal: int = 413
    shuffles: bool = False
    newest_first: bool = False
    duplicates: bool = False
    """The last item of a page stands in it twice."""

    def __repr__(self) -> str:
        different = [f"{f.name}={value}" for f in fields(self) if (value := getattr(self, f.name)) != f.default]
        return f"Quirks({', '.join(different)})"


@dataclass
class FakeDicomWeb(httpx.BaseTransport):
    """`requests` are the paths with their queries; `faults` maps the start of a path, after the root, to what answers
    instead; `between` is called after each search (what others do meanwhile)."""

    quirks: Quirks = field(default_factory=Quirks)
    requests: list[str] = field(default_factory=list)
    faults: dict[str, Answer] = field(default_factory=dict)
    between: Callable[[], None] = lambda: None
    held: dict[str, dict[str, dict[str, Json]]] = field(default_factory=dict)
    """Study → series → instance → DICOM JSON."""
    files: dict[str, bytes] = field(default_factory=dict)

    def store(self, content: bytes) -> None:
        """As STOW-RS does; an instance already there is replaced."""
        plain: Json = dcmread(BytesIO(content)).to_json_dict()
        plain["7FE00010"] = {"vr": "OW", "BulkDataURI": "http://169.254.169.254/bulk"}
        self.put(plain)
        self.files[plain["00080018"]["Value"][0]] = content

    def put(self, plain: Json) -> None:
        study, series, instance = (plain[tag]["Value"][0] for tag in ("0020000D", "0020000E", "00080018"))
        self.held.setdefault(study, {}).setdefault(series, {})[instance] = plain

    def add(self, study: str, study_date: str | None = "20240301", instances: int = 1, first: int = 1) -> None:
        """Instances of a study with little in them; `study_date` None leaves StudyDate out."""
        for number in range(first, first + instances):
            plain = {
                "0020000D": {"vr": "UI", "Value": [study]},
                "0020000E": {"vr": "UI", "Value": [f"{study}.1"]},
                "00080018": {"vr": "UI", "Value": [f"{study}.1.{number}"]},
                "00080016": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.2"]},
                "00080060": {"vr": "CS", "Value": ["CT"]},
                "00100020": {"vr": "LO", "Value": ["P1"]},
                "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Test^Patient"}]},
            }
            if study_date is not None:
                plain["00080020"] = {"vr": "DA", "Value": [study_date]}
            self.put(plain)

    def delete(self, study: str, series: str = "", instance: str = "") -> None:
        """Removes a study, a series or an instance, and what is left empty above it."""
        if instance:
            del self.held[study][series][instance]
        elif series:
            del self.held[study][series]
        if not instance and not series:
            del self.held[study]
        elif not self.held[study].get(series):
            self.held[study].pop(series, None)
            if not self.held[study]:
                del self.held[study]

    def count(self, study: str) -> int:
        return sum(len(instances) for instances in self.held.get(study, {}).values())

    def truth(self) -> dict[str, int]:
        return {study: self.count(study) for study in self.held}

    def go_away(self) -> None:
        """Nobody listens until `faults` is emptied."""

        def refused(_request: httpx.Request) -> httpx.Response:
            raise httpx.ConnectError("refused") from ConnectionRefusedError(111, "Connection refused")

        self.faults[""] = refused

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix(httpx.URL(URL).path)
        self.requests.append(path + ("?" + request.url.query.decode() if request.url.query else ""))
        fault = next((answer for start, answer in self.faults.items() if path.startswith(start)), None)
        if fault is not None:
            return fault(request)
        token = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
        if request.headers.get("authorization") != f"Basic {token}":
            return httpx.Response(401)
        match path.strip("/").split("/"):
            case ["studies", study, "series", series, "instances", instance]:
                return self._object(request, instance in self.held.get(study, {}).get(series, {}), instance)
        if request.headers["accept"] != self.quirks.accepts:
            return httpx.Response(406)
        return self._answer(path.strip("/").split("/"), request.url.params)

    def _object(self, request: httpx.Request, held: bool, instance: str) -> httpx.Response:
        """Retrieve Instance; services with quirks know no `transfer-syntax=*`."""
        if not held:
            return httpx.Response(404)
        if "transfer-syntax" in request.headers["accept"] and self.quirks != Quirks():
            return httpx.Response(406)
        return multipart([self.files[instance]])

    def _answer(self, parts: list[str], query: httpx.QueryParams) -> httpx.Response:
        match parts:
            case ["studies"]:
                return self._search(list(self._matching(query)), self._study, query)
            case ["studies", study, "series"]:
                return self._search(list(self.held.get(study, {})), lambda uid: self._series(study, uid), query)
            case ["studies", study, "series", series, "instances"]:
                found = self.held.get(study, {}).get(series, {})
                return self._search(list(found), lambda uid: {"00080018": found[uid]["00080018"]}, query)
            case ["studies", study, "metadata"]:
                return self._metadata("study", [i for s in self.held.get(study, {}).values() for i in s.values()])
            case ["studies", study, "series", series, "metadata"]:
                return self._metadata("series", list(self.held.get(study, {}).get(series, {}).values()))
            case ["studies", study, "series", series, "instances", instance, "metadata"]:
                found = self.held.get(study, {}).get(series, {})
                return self._metadata("instance", [found[instance]] if instance in found else [])
            case _:
                return httpx.Response(404)

    def _matching(self, query: httpx.QueryParams) -> Iterator[str]:
        wanted = query.get("StudyInstanceUID", "")
        uids = {wanted} if self.quirks.takes_no_lists else set(wanted.split(","))
        dates = re.fullmatch(r"(\d{8})?-(\d{8})?", query["StudyDate"]) if "StudyDate" in query else None
        for study in reversed(self.held) if self.quirks.newest_first else self.held:
            study_date = self._first(study).get("00080020", {}).get("Value", [""])[0]
            fine = dates is None or ((dates[1] or "0") <= study_date <= (dates[2] or "9") and study_date)
            if (fine or self.quirks.ignores_dates) and (not wanted or study in uids or self.quirks.ignores_study_uid):
                yield study

    def _first(self, study: str) -> Json:
        return next(i for series in self.held[study].values() for i in series.values())

    def _study(self, study: str) -> Json:
        """The search result: a study held under several patients is one item of the first."""
        plain = {
            tag: value for tag, value in self._first(study).items() if tag in (*STUDY_TAGS, "00081030", "00100021")
        }
        instances = [i for series in self.held[study].values() for i in series.values()]
        modalities = sorted({m for i in instances for m in i.get("00080060", {}).get("Value", [])})
        plain["00080061"] = {"vr": "CS", "Value": modalities}
        plain["00081190"] = {"vr": "UR", "Value": [f"http://169.254.169.254/{random.random()}"]}
        if self.quirks.omits_dates:
            plain.pop("00080020", None)
        if not self.quirks.omits_counts:
            plain["00201206"] = {"vr": "IS", "Value": [len(self.held[study])]}
            plain["00201208"] = {"vr": "IS", "Value": [str(len(instances))]}
        return plain

    def _series(self, study: str, series: str) -> Json:
        plain: Json = {"0020000E": {"vr": "UI", "Value": [series]}}
        if not self.quirks.omits_series_counts:
            plain["00201209"] = {"vr": "IS", "Value": [len(self.held[study][series])]}
        return plain

    def _search(self, uids: list[str], item: Callable[[str], Json], query: httpx.QueryParams) -> httpx.Response:
        quirks = self.quirks
        too_high = quirks.largest_limit is not None and int(query.get("limit", 0)) > quirks.largest_limit
        if too_high or (quirks.refuses_fields and "includefield" in query):
            return httpx.Response(400)
        if quirks.too_broad is not None and len(uids) > quirks.too_broad:
            return httpx.Response(413)
        if quirks.shuffles:
            uids = random.sample(uids, len(uids))
        offset = 0 if quirks.ignores_offset else int(query.get("offset", 0))
        limits = [quirks.cap, None if quirks.ignores_limit else int(query.get("limit", 0)) or None]
        limit = min((n for n in limits if n is not None), default=len(uids))
        page = [item(uid) for uid in uids[offset : offset + limit]]
        rest = len(uids) - offset - len(page)
        if quirks.duplicates:
            page += page[-1:]
        self.between()
        if not page and quirks.none_is != 200:
            return httpx.Response(quirks.none_is)
        warning = f"299 {URL}: There are {rest} additional results that can be requested"
        return _json(page, {"Warning": warning} if quirks.warns and rest > 0 else {})

    def _metadata(self, level: str, instances: list[Json]) -> httpx.Response:
        if not instances:
            return httpx.Response(404)
        if level not in self.quirks.metadata_levels:
            return httpx.Response(self.quirks.metadata_refusal)
        return _json(instances)


def _json(content: Any, headers: dict[str, str] | None = None) -> httpx.Response:
    content_type = {"Content-Type": "application/dicom+json"}
    return httpx.Response(200, content=json.dumps(content).encode(), headers=content_type | (headers or {}))


def connect(fake: httpx.BaseTransport, password: str = PASSWORD, **options: Any) -> DicomWeb:
    """The source under test, named pacs, on this fake."""
    options = {"clock": TODAY.timestamp} | options
    return DicomWeb("pacs", URL, auth=sign_in(URL, username=USERNAME, password=password), transport=fake, **options)
