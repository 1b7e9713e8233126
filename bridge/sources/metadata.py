"""Collects the instances of one answer of metadata (PS3.18 10.4.1.1.2), item by item as they come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge.model import Rejection
from bridge.ports import StudyHeaders
from bridge.translate.dicom_json import InstanceReader
from bridge.translate.headers import Headers


class Metadata:
    """`prefix` begins the keys of rejections. With `study_instance_uid`, instances of other studies are rejected."""

    def __init__(self, prefix: str, study_instance_uid: str = "") -> None:
        self._prefix, self._study = prefix, study_instance_uid
        self._instances: list[Headers] = []
        self._rejected: list[Rejection] = []
        self._reader, self._others = InstanceReader(), 0

    def visit(self, item: Any) -> None:
        """The next item of the list."""
        if not isinstance(item, Mapping):
            self._reject("an instance's metadata is not an object")
            return
        headers = self._reader.headers(item)
        if self._study and headers.text("StudyInstanceUID") not in {"", self._study}:
            self._others += 1
            self._reject("StudyInstanceUID is not that of the study asked for")
        else:
            self._instances.append(headers)

    @property
    def of_other_studies_alone(self) -> bool:
        """Whether instances came, and none of them belongs to the study."""
        return self._others > 0 and not self._instances

    def headers(self, held: int | None) -> StudyHeaders:
        """What was collected; `held` is the number of items that came."""
        return StudyHeaders(tuple(self._instances), held or 0, tuple(self._rejected))

    def _reject(self, problem: str) -> None:
        place = len(self._instances) + len(self._rejected) + 1
        self._rejected.append(Rejection(f"{self._prefix}/metadata/{place}", problem, {"position": place}))
