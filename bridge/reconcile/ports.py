"""What reconciliation asks of the parties it compares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from bridge.model import Receipt, Resource, StoredResource, StudyState
from bridge.ports import StudyHeaders
from bridge.translate.headers import Headers

Held = tuple[str, int]
"""Study Instance UID, instances."""

HeldResource = tuple[str, int, str]
"""type/id, 1 when it is deleted, SHA-256 of the content."""

HeldStudy = tuple[str, int, int, str]
"""Study Instance UID, series, instances, digest of the SOP Instance UIDs (`instances_digest`)."""


class ReconciledState(Protocol):
    """What of the state is compared, and marked."""

    def held(self, source: str) -> Iterator[Held]: ...

    def held_of(self, source: str, studies: Sequence[str]) -> dict[str, int]: ...

    def unread(self, source: str, studies: Sequence[str]) -> set[str]:
        """Those of the studies that a source is to be read for again."""
        ...

    def in_work(self, queue: str, keys: Sequence[str]) -> dict[str, bool]:
        """key → whether it is parked, for those of the keys that the queue has."""
        ...

    def snapshots(self, study_instance_uid: str) -> dict[str, tuple[Headers, ...]]: ...

    def is_snapshot(self, source: str, study_instance_uid: str, headers: StudyHeaders) -> bool:
        """Whether these headers are what is kept of the study."""
        ...

    def untranslated(self, after: str, limit: int) -> tuple[list[str], str]:
        """Of the next so many studies after a UID: those whose resources were not made from what is kept of them. And
        the last UID looked at, "" after the last of all."""
        ...

    def known_studies(self, after: str, limit: int) -> list[str]: ...

    def studies_resources(self, studies: Sequence[str]) -> dict[str, tuple[StoredResource, ...]]: ...

    def imaging_studies(self, studies: Sequence[str]) -> Iterator[tuple[str, Resource]]:
        """(study, its ImagingStudy; {} for none) of those of the studies that are known, in no order."""
        ...

    def receipts(self, sink: str, studies: Sequence[str]) -> dict[str, Receipt]: ...

    def held_resources(self) -> Iterator[HeldResource]: ...

    def resource_digests(self, keys: Sequence[str]) -> dict[str, HeldResource]: ...

    def studies_of(self, key: str) -> list[str]:
        """Some studies that a resource (type/id) belongs to."""
        ...

    def mark(self, queue: str, keys: Iterable[str], now: float) -> None: ...

    def mark_studies(self, source: str, studies: Iterable[str], now: float) -> None: ...


class ServerParty(Protocol):
    """A FHIR server. Raises SinkUnavailable when it cannot be read."""

    def differing(self, states: Sequence[StudyState], *, whole: bool) -> Mapping[str, tuple[str, str]]:
        """study → (level, problem) where the server has something else than the state. Without `whole`, contents are
        compared only where the server has another version than the bridge delivered."""
        ...


class LakeParty(Protocol):
    """The lake, in its newest generation. Raises SinkUnavailable when it cannot be read."""

    def refresh(self) -> None:
        """Makes what was delivered visible, and looks at the newest generation from now on."""
        ...

    def resources(self) -> Iterator[HeldResource]:
        """Every resource of the bridge, in order of type/id."""
        ...

    def resource_digests(self, keys: Sequence[str]) -> dict[str, HeldResource]: ...

    def studies(self) -> Iterator[HeldStudy]:
        """Every study with DICOM rows, in order of UID."""
        ...

    def studies_of(self, studies: Sequence[str]) -> dict[str, HeldStudy]: ...
