"""Parties that hold the same studies, any number of them: an archive, a state, a FHIR server, a lake; and what differs.

Studies are told apart by their number, which is in their UIDs and ids: the archive and the FHIR server make what they
are asked for from it and keep nothing. State (SQLite) and lake are files as the bridge writes them.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import httpx
import orjson
from sqlalchemy import insert

from bridge.model import Resource
from bridge.ports import StudyHeaders
from bridge.sinks.fhir_server import FhirServerSink
from bridge.state import State
from bridge.state.holdings import plain_headers
from bridge.state.schema import delivered, holding, resource, resource_version, study
from bridge.translate.headers import Headers
from cohort.lake import Lake
from tests.builders import a_translator, headers
from tests.fhir_fake import URL, FhirFake

ARCHIVE, SERVER = "pacs", "ehr"
INSTANCES, OF_ONE_PATIENT = 2, 4
BASE, TEMPLATE = 1_000_000_000, 1_999_999_999
AT_ONCE, PRIME, CACHE_KIB = 20_000, 7_368_787, 2_000_000

Expected = set[tuple[str, str, str, str]]
"""(left, right, key, level)."""


def uid_of(number: int) -> str:
    return f"2.25.{BASE + number}"


def number_of(text: str) -> int:
    """Of a UID, or of a resource's id."""
    found = re.search(r"2\.25\.(\d{10})|^([0-9a-f]{8})-0000", text)
    assert found is not None
    return int(found[1]) - BASE if found[1] else int(found[2], 16) - BASE


def id_of(number: int) -> str:
    return f"{BASE + number:08x}-0000-5000-8000-000000000000"


class Template:
    """One study, translated; others are made of its bytes with other numbers."""

    def __init__(self, series: Sequence[int] = (1, 1)) -> None:
        """`series` of each instance."""
        self._uid, self._id = uid_of(TEMPLATE - BASE), ""
        self.headers = [headers(study=self._uid, series=s, instance=i) for i, s in enumerate(series, 1)]
        translator = a_translator((ARCHIVE,), {ARCHIVE: "http://pacs.example/dicom-web"})
        made = translator.translate(self._uid, {ARCHIVE: self.headers})
        self.endpoint, found = made.resources
        self._study, self._id, self._patient_id = _bytes(found), found["id"], made.patient_key
        rows = translator.rows(self._uid, {ARCHIVE: self.headers})
        self._patient, self._rows = _bytes(made.patient), _bytes({table: list(some) for table, some in rows.items()})
        self._plain = plain_headers(StudyHeaders(tuple(self.headers), len(series)))

    def study(self, number: int) -> bytes:
        return self._numbered(self._study, number)

    def patient(self, number: int) -> bytes:
        return self._numbered(self._patient, number)

    def rows(self, number: int) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = orjson.loads(self._numbered(self._rows, number))
        return found

    def plain_headers(self, number: int) -> bytes:
        return self._numbered(self._plain, number)

    def read(self, number: int) -> StudyHeaders:
        found = [Headers.from_json(one) for one in orjson.loads(self.plain_headers(number))]
        return StudyHeaders(tuple(found), len(found))

    def _numbered(self, content: bytes, number: int) -> bytes:
        content = content.replace(self._uid.encode(), uid_of(number).encode())
        content = content.replace(self._id.encode(), id_of(number).encode())
        return content.replace(self._patient_id.encode(), patient_of(number).encode())


def patient_of(number: int) -> str:
    return f"patient-{number // OF_ONE_PATIENT}"


@dataclass(frozen=True)
class Planted:
    """What differs, by the study: one of each kind that reconciliation tells apart, none of them twice."""

    studies: int

    @property
    def unknown(self) -> int:
        """A study that the archive has alone."""
        return self.studies

    @property
    def expected(self) -> Expected:
        archive = {(self.unknown, "study"), (1, "study"), (2, "instance"), (3, "series")}
        server = {(10, "study"), (11, "series"), (12, "instance"), (13, "content"), (14, "content"), (15, "instance")}
        lake = {(20, "content"), (21, "content"), (23, "study"), (24, "series"), (25, "instance"), (26, "instance")}
        found = {(ARCHIVE, "state", uid_of(n), level) for n, level in archive}
        found |= {("headers", "resources", uid_of(5), "content")}
        found |= {("state", SERVER, uid_of(n), level) for n, level in server}
        found |= {("state", "lake", uid_of(n), level) for n, level in lake}
        return found | {("state", "lake", "ImagingStudy/nobody-knows", "content")}


class Archive:
    """Lists its studies in an order of its own, as archives do."""

    name = ARCHIVE

    def __init__(self, planted: Planted) -> None:
        self._planted, self._template = planted, Template()
        self._other = {2: Template((1, 1, 1)), 3: Template((1, 1, 2))}

    def inventory(self) -> Iterator[tuple[str, int]]:
        total = self._planted.studies + 1
        for n in range(total):
            number = n * PRIME % total
            if number != 1:
                yield uid_of(number), self._instances(number)

    def count(self, studies: Sequence[str]) -> dict[str, int]:
        return {uid: self._instances(number_of(uid)) for uid in studies if number_of(uid) != 1}

    def read(self, study_instance_uid: str) -> StudyHeaders:
        number = number_of(study_instance_uid)
        return self._other.get(number, self._template).read(number)

    @staticmethod
    def _instances(number: int) -> int:
        return INSTANCES + 1 if number in (2, 3) else INSTANCES


class Server(httpx.BaseTransport):
    """A FHIR server behind its HTTP client: searches by identifier and reads, of version 1 of each study."""

    def __init__(self) -> None:
        self._template, self._statement = Template(), FhirFake()._statement()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        path = unquote(urlsplit(str(request.url)).path).removeprefix(urlsplit(URL).path).lstrip("/")
        if path == "metadata":
            return httpx.Response(200, json=self._statement)
        if path.startswith("ImagingStudy/") and not path.endswith("_search"):
            return httpx.Response(200, json=self._study(number_of(path.partition("/")[2])))
        asked = dict(parse_qsl(request.read().decode())) | dict(request.url.params)
        elements = {"resourceType", "id", "meta", *asked["_elements"].split(",")}
        numbers = [number_of(token) for token in asked["identifier"].split(",")]
        found = [self._study(number) for number in numbers if number != 10]
        entries = [{"resource": {k: v for k, v in one.items() if k in elements}} for one in found]
        return httpx.Response(
            200, content=orjson.dumps({"resourceType": "Bundle", "type": "searchset", "entry": entries})
        )

    def _study(self, number: int) -> Resource:
        found: Resource = orjson.loads(self._template.study(number)) | {"meta": {"versionId": "1"}}
        planted: dict[int, Resource] = {
            11: {"numberOfSeries": 9}, 12: {"numberOfInstances": 9}, 13: {"status": "cancelled"},
            14: {"meta": {"versionId": "2"}, "description": "another"}, 15: {"meta": {"versionId": "2"}},
        }  # fmt: skip
        if number == 15:
            found["series"][0]["instance"][0]["uid"] += ".9"
        return found | planted.get(number, {})

    def sink(self) -> FhirServerSink:
        return FhirServerSink(SERVER, URL, transport=self)


def fill_state(state: State, studies: int) -> None:
    """As if every study had been read, translated, and delivered to the server."""
    template = Template()
    endpoint = template.endpoint["id"]
    with state._db.write() as connection:
        for table, row in _of_resource("Endpoint", endpoint, _bytes(template.endpoint), 0, None):
            connection.execute(insert(table), row)
    for numbers in _groups(studies):
        rows: dict[Any, list[dict[str, Any]]] = {}
        for n in numbers:
            uid, plain = uid_of(n), template.plain_headers(n)
            digest = hashlib.sha256(plain).hexdigest()
            made_from = hashlib.sha256(orjson.dumps([(ARCHIVE, digest)])).hexdigest()
            patient, refers = template.patient(n), [["Patient", patient_of(n)], ["Endpoint", endpoint]]
            rows.setdefault(holding, []).append(
                {"source": ARCHIVE, "study_instance_uid": uid, "hint": 1, "read_hint": 1, "instances": INSTANCES,
                 "headers": zlib.compress(plain, 1), "digest": digest, "read_at": 0.0}
            )  # fmt: skip
            rows.setdefault(study, []).append(
                {"study_instance_uid": uid, "patient_key": patient_of(n), "patient_rank": uid, "patient": patient,
                 "resources": orjson.dumps([*refers, ["ImagingStudy", id_of(n)]]), "remarks": b"[]",
                 "digest": "other" if n == 5 else made_from}
            )  # fmt: skip
            rows.setdefault(delivered, []).append(
                {"sink": SERVER, "study_instance_uid": uid, "reference": f"{URL}/ImagingStudy/{id_of(n)}",
                 "version_id": "1", "digest": "", "delivered_at": 0.0}
            )  # fmt: skip
            made = _of_resource("ImagingStudy", id_of(n), template.study(n), 2 * n + 1, uid)
            if n % OF_ONE_PATIENT == 0:
                made += _of_resource("Patient", patient_of(n), patient, 2 * n + 2, None)
            for table, row in made:
                rows.setdefault(table, []).append(row)
        with state._db.write() as connection:
            connection.exec_driver_sql(f"PRAGMA cache_size = -{CACHE_KIB}")
            for table, some in rows.items():
                connection.execute(insert(table), some)


def fill_lake(lake: Lake, studies: int) -> None:
    """As if every study had been delivered to it and published."""
    template = Template()
    with lake.loading() as loading:
        loading([_line("Endpoint", template.endpoint, 0)])
        for numbers in _groups(studies):
            loading(line for n in numbers for line in _lines(template, n))
        loading([_line("ImagingStudy", orjson.loads(template.study(22)) | {"id": "nobody-knows"}, 1)])
    lake.publish(datetime.now(UTC))


def _lines(template: Template, n: int) -> Iterator[dict[str, Any]]:
    content, rows = orjson.loads(template.study(n)), template.rows(n)
    if n == 20:
        content["description"] = "another"
    if n == 23:
        rows = {table: [] for table in rows}
    if n == 24:
        rows["dicom_series"] = [
            *rows["dicom_series"],
            rows["dicom_series"][0] | {"series_instance_uid": f"{uid_of(n)}.9"},
        ]
    if n == 25:
        rows["dicom_instance"] = rows["dicom_instance"][:-1]
    if n == 26:
        rows["dicom_instance"][0]["sop_instance_uid"] += ".9"
    if n != 21:
        yield _line("ImagingStudy", content, 2 * n + 1)
    if n % OF_ONE_PATIENT == 0:
        yield _line("Patient", orjson.loads(template.patient(n)), 2 * n + 2)
    for table, some in rows.items():
        yield {"kind": "rows", "table": table, "key": uid_of(n), "revision": 2 * n + 1, "rows": some}


def _line(kind: str, content: Resource, revision: int) -> dict[str, Any]:
    line = {"kind": "resource", "origin": "bridge", "type": kind, "id": content["id"], "revision": revision}
    return line | {"deleted": False, "resource": content}


def _of_resource(kind: str, id_: str, body: bytes, revision: int, uid: str | None) -> list[tuple[Any, dict[str, Any]]]:
    both = {"resource_type": kind, "id": id_, "version": 1, "last_updated": 0.0, "revision": revision}
    digest = hashlib.sha256(body).hexdigest()
    mine = both | {"deleted": False, "digest": digest, "study_instance_uid": uid}
    return [(resource, mine), (resource_version, both | {"content": body})]


def _groups(studies: int) -> Iterator[list[int]]:
    numbers = iter(range(studies))
    while some := list(islice(numbers, AT_ONCE)):
        yield some


def _bytes(content: Any) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
