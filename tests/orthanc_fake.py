"""An Orthanc in memory, behind an httpx transport: the part of its contract that the source relies on.

It answers as Orthanc 1.10 with DICOMweb plugin 1.7 does; the contract suite runs on it and on the real one. With
`extended` its log can be filtered as that of Orthanc 1.12.5 and later.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import httpx
import orjson
from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from bridge.sources.orthanc import Orthanc
from tests.builders import as_file
from tests.dicom_files import study_bytes

URL = "http://orthanc.example:8042"
USERNAME, PASSWORD = "reader", "correct horse"
DATE = "20240301T091500"
LEVELS = {"Patient": "patients", "Study": "studies", "Series": "series", "Instance": "instances"}
CHILDREN = {"Patient": "Studies", "Study": "Series", "Series": "Instances"}
PARENT = {"Study": "ParentPatient", "Series": "ParentStudy", "Instance": "ParentSeries"}


@dataclass(eq=False)
class Resource:
    """One patient, study, series or instance."""

    id: str
    level: str
    tags: dict[str, str]
    parent: Resource | None
    children: dict[str, Resource] = field(default_factory=dict)
    dataset: Dataset = field(default_factory=Dataset)

    def as_json(self) -> dict[str, Any]:
        plain: dict[str, Any] = {"ID": self.id, "Type": self.level, "MainDicomTags": self.tags | self._dated()}
        if self.level in CHILDREN:
            plain[CHILDREN[self.level]] = list(self.children)
        if self.parent is not None:
            plain[PARENT[self.level]] = self.parent.id
        return plain

    def _dated(self) -> dict[str, str]:
        one = next(self.instances(), None) if self.level == "Study" else None
        return {} if one is None else {"StudyDate": str(one.dataset.get("StudyDate", ""))}

    def instances(self) -> Iterator[Resource]:
        if self.level == "Instance":
            yield self
        for child in self.children.values():
            yield from child.instances()


UNREADABLE = object()
"""What stands for an answer that Orthanc cannot put together, because of a file it cannot read."""

Answer = Callable[[httpx.Request], httpx.Response]


class FakeOrthanc(httpx.BaseTransport):
    """`requests` are the paths asked for, `queries` their parameters; `faults` maps the start of a path to what answers
    instead; `edits` maps the first part of a path to what changes the answer; `log` is the change log with its numbers,
    `last` the last given. `find_limit` is LimitFindResults, `damaged` the identifiers of instances whose file cannot be
    read, `reduced` the keywords that the DICOMweb plugin leaves out.
    """

    def __init__(self, extended: bool = False) -> None:
        self.extended = extended
        self.find_limit: int | None = None
        self.damaged: set[str] = set()
        self.reduced: set[str] = set()
        self.requests: list[str] = []
        self.queries: list[httpx.QueryParams] = []
        self.faults: dict[str, Answer] = {}
        self.edits: dict[str, Callable[[Any], Any]] = {}
        self.resources: dict[str, Resource] = {}
        self.log: list[tuple[int, Any]] = []
        self.last = 0

    def store(self, content: bytes) -> bool:
        """As POST /instances with OverwriteInstances off: whether the instance is new."""
        dataset = dcmread(BytesIO(content))
        uids = [str(dataset.get(k, "")) for k in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID")]
        uids.append(str(dataset.SOPInstanceUID))
        keywords = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
        parent: Resource | None = None
        made: list[Resource] = []
        for depth, (level, keyword) in enumerate(zip(LEVELS, keywords, strict=True), start=1):
            id_ = orthanc_id("|".join(uids[:depth]))
            if id_ not in self.resources:
                self.resources[id_] = Resource(id_, level, {keyword: uids[depth - 1]}, parent)
                made.append(self.resources[id_])
                if parent is not None:
                    parent.children[id_] = self.resources[id_]
            parent = self.resources[id_]
        if parent is None or parent not in made:
            return False
        parent.dataset = dataset
        for resource in reversed(made):
            self.add_change(f"New{resource.level}", resource)
        return True

    def put(self, study: str, **options: Any) -> None:
        """Stores the files of `study_bytes`."""
        for content in study_bytes(study, **options):
            self.store(content)

    def add_change(self, change_type: str, resource: Resource) -> None:
        self.last += 1
        path = f"/{LEVELS[resource.level]}/{resource.id}"
        entry = {"ChangeType": change_type, "Date": DATE, "ID": resource.id, "Path": path}
        self.log.append((self.last, entry | {"ResourceType": resource.level, "Seq": self.last}))

    def found(self, level: str, value: str) -> list[Resource]:
        """Resources of a level by their own UID or patient id."""
        return [r for r in self.resources.values() if r.level == level and value in r.tags.values()]

    def delete(self, level: str, value: str) -> None:
        """Removes resources with all below them, ancestors left empty, and every entry of the log about them."""
        for resource in self.found(level, value):
            self._remove(resource)

    def _remove(self, resource: Resource) -> None:
        for child in list(resource.children.values()):
            self._remove(child)
        self.resources.pop(resource.id, None)
        self.log = [(n, e) for n, e in self.log if e.get("ID") != resource.id]
        parent = resource.parent
        if parent is not None and resource.id in parent.children:
            del parent.children[resource.id]
            if not parent.children:
                self._remove(parent)

    def reset(self) -> None:
        """The database is emptied: numbers start again."""
        self.resources, self.log, self.last = {}, [], 0

    def go_away(self) -> None:
        """Nobody listens until `faults` is emptied."""

        def refused(_request: httpx.Request) -> httpx.Response:
            raise httpx.ConnectError("refused") from ConnectionRefusedError(111, "Connection refused")

        self.faults["/"] = refused

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.requests.append(path)
        self.queries.append(request.url.params)
        fault = next((answer for start, answer in self.faults.items() if path.startswith(start)), None)
        if fault is not None:
            return fault(request)
        if request.headers.get("authorization") != _basic(USERNAME, PASSWORD):
            return httpx.Response(401, headers={"WWW-Authenticate": 'Basic realm="Orthanc Secure Area"'})
        found = self._answer(path.strip("/").split("/"), request)
        edit = self.edits.get(path.strip("/").partition("/")[0])
        if found is None:
            return httpx.Response(404, json={"HttpStatus": 404, "Message": "Unknown resource"})
        if found is UNREADABLE:
            return httpx.Response(500, json={"HttpStatus": 500, "Message": "Internal error"})
        if isinstance(found, bytes):
            return httpx.Response(200, content=found, headers={"Content-Type": "application/dicom"})
        return httpx.Response(200, json=edit(found) if edit else found)

    def _answer(self, parts: list[str], request: httpx.Request) -> Any:
        match parts:
            case ["system"]:
                return {"Version": "1.10.1"} | ({"Capabilities": {"HasExtendedChanges": True}} if self.extended else {})
            case ["statistics"]:
                return {"CountInstances": sum(r.level == "Instance" for r in self.resources.values())}
            case ["changes"]:
                return self._changes(request.url.params)
            case ["tools", "lookup"]:
                found = [r for r in self.resources.values() if request.content.decode() in r.tags.values()]
                return [{"ID": r.id, "Path": f"/{LEVELS[r.level]}/{r.id}", "Type": r.level} for r in found]
            case ["tools", "find"]:
                return self._found(orjson.loads(request.content))
            case ["dicom-web", "studies", uid, "metadata"]:
                studies = self.found("Study", uid)
                return self._metadata(list(studies[0].instances())) if len(studies) == 1 else None
            case ["studies", id_, "series"] if id_ in self.resources:
                return [series.as_json() for series in self.resources[id_].children.values()]
            case ["series", id_, "instances-tags"] if id_ in self.resources:
                instances = list(self.resources[id_].instances())
                return UNREADABLE if self._any_damaged(instances) else {i.id: _tags_json(i.dataset) for i in instances}
            case ["instances", id_, "tags"] if id_ in self.resources:
                return UNREADABLE if id_ in self.damaged else _tags_json(self.resources[id_].dataset)
            case ["instances", id_, "file"] if id_ in self.resources:
                return UNREADABLE if id_ in self.damaged else as_file(self.resources[id_].dataset)
            case [folder] if folder in LEVELS.values():
                since, limit = int(request.url.params["since"]), int(request.url.params["limit"])
                listed = [r.as_json() for r in self.resources.values() if LEVELS[r.level] == folder]
                return listed[since : since + limit]
            case [folder, id_] if id_ in self.resources and LEVELS[self.resources[id_].level] == folder:
                return self.resources[id_].as_json()
            case _:
                return None

    def _changes(self, asked: httpx.QueryParams) -> dict[str, Any]:
        """A filter that is not known is ignored, as Orthanc does. Without entries, Last is that of the whole log."""
        types = set(asked.get("type", "").split(";")) if self.extended and "type" in asked else None
        rest = [(n, e) for n, e in self.log if n > int(asked["since"]) and (types is None or e["ChangeType"] in types)]
        page = rest[: int(asked["limit"])]
        answer: dict[str, Any] = {"Changes": [entry for _, entry in page], "Done": len(page) == len(rest)}
        answer["Last"] = page[-1][0] if page else self.last
        return answer | ({"First": page[0][0]} if self.extended and page else {})

    def _found(self, query: dict[str, Any]) -> list[dict[str, Any]]:
        uids = query["Query"]["StudyInstanceUID"].split("\\")
        studies = [r for uid in uids for r in self.found("Study", uid)]
        series = [child for study in studies for child in study.children.values()]
        return [r.as_json() for r in (studies if query["Level"] == "Study" else series)][: self.find_limit]

    def _metadata(self, instances: list[Resource]) -> Any:
        if self._any_damaged(instances):
            return UNREADABLE
        left_out = {f"{tag_for_keyword(keyword):08X}" for keyword in self.reduced}
        return [{k: v for k, v in _dicom_json(i.dataset).items() if k not in left_out} for i in instances]

    def _any_damaged(self, instances: list[Resource]) -> bool:
        return not self.damaged.isdisjoint(i.id for i in instances)


def connect(fake: FakeOrthanc, password: str = PASSWORD) -> Orthanc:
    """The source under test, named pacs, on this fake."""
    return Orthanc("pacs", URL, username=USERNAME, password=password, transport=fake)


def orthanc_id(text: str) -> str:
    """Orthanc's identifier: SHA-1 in five groups."""
    digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    return "-".join(digest[i : i + 8] for i in range(0, 40, 8))


def _basic(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def _dicom_json(dataset: Dataset) -> dict[str, Any]:
    plain: dict[str, Any] = dataset.to_json_dict()
    if "7FE00010" in plain:
        plain["7FE00010"] = {"vr": "OW", "BulkDataURI": f"{URL}/bulk"}
    return plain


def _tags_json(dataset: Dataset) -> dict[str, Any]:
    tags: dict[str, Any] = {}
    for element in dataset:
        plain: dict[str, Any] = {"Name": element.keyword, "Type": "String"}
        if element.VR == "SQ":
            plain |= {"Type": "Sequence", "Value": [_tags_json(item) for item in element.value]}
        elif element.VR in {"OB", "OW"}:
            plain |= {"Type": "TooLong", "Value": None}
        elif element.is_empty:
            plain |= {"Type": "Null", "Value": None}
        else:
            values = element.value if element.VM > 1 else [element.value]
            plain["Value"] = "\\".join(str(v) for v in values)
        tags[f"{element.tag.group:04x},{element.tag.elem:04x}"] = plain
    return tags
