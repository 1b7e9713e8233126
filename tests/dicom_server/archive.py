"""What the simulated DICOM server holds, and the log it keeps of it: truth for tests to change and compare with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from io import BytesIO
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset

from tests.dicom_files import dicom_dataset

DEFAULT = "Microsoft.Default"
"""The partition of everything stored without one."""

TICKS = 10_000_000
"""Timestamps have seven digits after the second: ticks of 100 ns."""

START = int(datetime(2024, 3, 1, 9, tzinfo=UTC).timestamp()) * TICKS

Key = tuple[str, str, str, str]
"""Partition, Study, Series and SOP Instance UID: what an instance is unique by."""

Edit = Callable[[Any], Any]


@dataclass
class Version:
    """An instance as stored last, made when it is asked for. The watermark tells versions of it apart."""

    dataset: Callable[[], Dataset]
    watermark: int


@dataclass(frozen=True)
class Change:
    """One entry of the log. Its state is not kept: it follows from what is held when the log is read."""

    sequence: int
    ticks: int
    key: Key
    action: str
    watermark: int


@dataclass
class Fault:
    """What is answered instead to paths containing `where`, `times` times (-1: always)."""

    where: str
    status: int = 503
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    times: int = -1
    cut: bool = False
    """The right answer, but the connection ends in its middle."""

    after_s: float = 0.0
    """The right answer, but so many seconds late. Over TCP only."""


class SimulatedArchive:
    """The state of the server. `now` moves on by `step_s` with every change; a change given `late_s` carries an
    earlier timestamp than others that are visible already, as commits of another process do."""

    def __init__(self, *, partitions: bool = False) -> None:
        self.partitions_enabled = partitions
        self.partitions: dict[str, None] = {DEFAULT: None}
        self.held: dict[Key, Version] = {}
        self.log: list[Change] = []
        self.sequence, self.watermark = 0, 0
        self.now, self.step_s = START, 1.0
        self.pascal_case = False
        self.counts_studies = True
        self.entry_edits: dict[int, Edit] = {}
        self.metadata_edits: dict[str, Edit] = {}
        self.garbage: dict[str, bytes] = {}
        """SOP Instance UID → the bytes its metadata is sent as, JSON or not."""

        self.objects: dict[str, bytes] = {}
        """SOP Instance UID → the file it is given as, whatever its metadata says."""

        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.authorizations: list[str] = []

    @property
    def clock_s(self) -> float:
        """The server's own time, in seconds since the epoch."""
        return self.now / TICKS

    def store(self, content: bytes, partition: str = DEFAULT, late_s: float = 0.0) -> bool:
        """Stores a file; False when the same instance is there: the server keeps what it has and logs nothing."""
        dataset = dcmread(BytesIO(content))
        key = (partition, *(str(dataset[k].value) for k in _KEYS))
        return self._create(key, lambda: dataset, late_s)

    def put(
        self,
        study: str,
        partition: str = DEFAULT,
        late_s: float = 0.0,
        series: int = 1,
        instances: int = 2,
        first: int = 1,
        **attributes: Any,
    ) -> None:
        """Stores a study of so many series, each with so many instances, numbered from `first`."""
        for n in range(1, series + 1):
            for i in range(first, first + instances):
                key = (partition, study, f"{study}.{n}", f"{study}.{n}.{i}")
                self._create(key, partial(dicom_dataset, *key[1:], SeriesNumber=n, **attributes), late_s)

    def _create(self, key: Key, dataset: Callable[[], Dataset], late_s: float) -> bool:
        self.partitions.setdefault(key[0])
        if key in self.held:
            return False
        self.held[key] = Version(dataset, self._watermark())
        self._log("Create", [key], late_s)
        return True

    def update(self, study: str, partition: str = DEFAULT, late_s: float = 0.0, **attributes: Any) -> None:
        """$bulkUpdate: new attributes in every instance of a study, one entry for each, all with one timestamp."""
        keys = self.keys(study, partition)
        for key in keys:
            self.held[key] = Version(partial(_updated, self.held[key].dataset, attributes), self._watermark())
        self._log("Update", keys, late_s)

    def delete(self, study: str, partition: str = DEFAULT, instance: str = "", late_s: float = 0.0) -> None:
        """Removes a study, or one instance of it; all entries of one deletion carry one timestamp."""
        keys = [k for k in self.keys(study, partition) if not instance or k[3] == instance]
        watermarks = {key: self.held.pop(key).watermark for key in keys}
        self._log("Delete", keys, late_s, watermarks)

    def skip(self, numbers: int) -> None:
        """SQL Server restarts: the next sequence number is so much higher."""
        self.sequence += numbers

    def reset(self) -> None:
        """The database is replaced by an empty one: numbers start again, time goes on."""
        self.held, self.log, self.partitions = {}, [], {DEFAULT: None}
        self.sequence, self.watermark = 0, 0

    def keys(self, study: str, partition: str = "") -> list[Key]:
        """The instances held of a study, in one partition or in all."""
        return [k for k in self.held if k[1] == study and (not partition or k[0] == partition)]

    def truth(self) -> dict[str, int]:
        """Study → instances held now, over all partitions."""
        found: dict[str, int] = {}
        for key in self.held:
            found[key[1]] = found.get(key[1], 0) + 1
        return found

    def state(self, change: Change) -> str:
        current = self.held.get(change.key)
        if current is None:
            return "Deleted"
        return "Current" if current.watermark == change.watermark else "Replaced"

    def _watermark(self) -> int:
        self.watermark += 1
        return self.watermark

    def _log(self, action: str, keys: Iterable[Key], late_s: float, watermarks: dict[Key, int] | None = None) -> None:
        ticks = self.now - int(late_s * TICKS)
        for key in keys:
            self.sequence += 1
            watermark = watermarks[key] if watermarks else self.held[key].watermark
            self.log.append(Change(self.sequence, ticks, key, action, watermark))
        self.now += int(self.step_s * TICKS)


_KEYS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


def _updated(dataset: Callable[[], Dataset], attributes: Mapping[str, Any]) -> Dataset:
    changed = deepcopy(dataset())
    for keyword, value in attributes.items():
        setattr(changed, keyword, value)
    return changed
