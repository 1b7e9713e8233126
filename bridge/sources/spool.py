"""Objects on disk, under names that are digests: nothing that was received becomes part of a path."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from uuid import uuid4

from bridge.sources.preamble import TRIMMED

REMEMBERED_STUDIES = 256
"""Studies whose file names are kept in memory, so that an object's place is known without listing its folder."""


class Outcome(StrEnum):
    """What keeping an object came to."""

    NEW = "new"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    """The same SOP Instance UID with other content: kept beside the first."""


@dataclass(frozen=True)
class Kept:
    """Where an object lies now."""

    path: Path
    outcome: Outcome


class Spool:
    """`root/incoming` for what is being received, `root/studies` for whole objects. Safe to use from several threads.

    A file is `studies/xx/STUDY/INSTANCE-CONTENT.dcm`, each part a SHA-256: of the Study Instance UID, the SOP Instance
    UID and the data set as it was received.
    """

    def __init__(self, root: Path) -> None:
        self.studies, self.incoming = root / "studies", root / "incoming"
        for folder in (self.studies, self.incoming):
            _make_folder(folder)
        self._lock = threading.Lock()
        self._known: OrderedDict[str, _Study] = OrderedDict()

    def part(self) -> Path:
        """A name for an object that is not whole yet."""
        return self.incoming / f"{uuid4().hex}.part"

    def sweep_parts(self) -> None:
        """Removes what an earlier process left unfinished: it was never acknowledged, its sender still has it."""
        for part in self.incoming.iterdir():
            part.unlink(missing_ok=True)

    def keep(self, part: Path, study_instance_uid: str, sop_instance_uid: str, digest: str) -> Kept:
        """Moves a whole, fsynced part to its place, durably. `digest` is the SHA-256 of its data set, in hex.

        The disk alone says what is there: a file that was taken away is neither a duplicate nor in conflict.
        """
        study, instance, content = _digest(study_instance_uid), _digest(sop_instance_uid), digest[:32]
        folder = self.studies / study[:2] / study
        path = folder / f"{instance}-{content}.dcm"
        with self._lock:
            known = self._study(folder)
            contents = known.contents.setdefault(instance, set())
            others = [c for c in contents if c != content and (folder / f"{instance}-{c}.dcm").is_file()]
            if path.is_file():
                outcome = Outcome.DUPLICATE
                part.unlink()
            else:
                outcome = Outcome.CONFLICT if others else Outcome.NEW
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                part.rename(path)
            contents.add(content)
        sync_folder(folder)
        if not known.durable:
            for changed in (folder.parent, self.studies):
                sync_folder(changed)
            known.durable = True
        return Kept(path, outcome)

    def study_files(self, study_instance_uid: str) -> Iterator[Path]:
        """The files of one study, in order of name."""
        study = _digest(study_instance_uid)
        folder = self.studies / study[:2] / study
        yield from sorted(folder.glob("*.dcm")) if folder.is_dir() else ()

    def instance_files(self, study_instance_uid: str, sop_instance_uid: str) -> list[Path]:
        """The files of one instance, the newest first."""
        study = _digest(study_instance_uid)
        found = (self.studies / study[:2] / study).glob(f"{_digest(sop_instance_uid)}-*.dcm")
        return sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)

    def remove(self, path: Path) -> None:
        """Deletes a file of a study."""
        with self._lock:
            path.unlink(missing_ok=True)
            self._known.pop(path.parent.name, None)

    def _study(self, folder: Path) -> _Study:
        """What is known of a study's folder, read from disk once for as long as it is there."""
        there = folder.is_dir()
        known = self._known.get(folder.name) if there else None
        if known is None:
            known = _Study()
            for path in folder.iterdir() if there else ():
                instance, _, content = path.stem.partition("-")
                known.contents.setdefault(instance, set()).add(content)
            self._known[folder.name] = known
        self._known.move_to_end(folder.name)
        while len(self._known) > REMEMBERED_STUDIES:
            self._known.popitem(last=False)
        return known


@dataclass
class _Study:
    """Instance digest → content digests in a study's folder. `durable`: its entry in the folders above is fsynced."""

    contents: dict[str, set[str]] = field(default_factory=dict)
    durable: bool = False


def is_trimmed(path: Path) -> bool:
    """Whether the pixel data of a kept file was dropped. Raises OSError."""
    with path.open("rb") as file:
        return file.read(len(TRIMMED)) == TRIMMED


def data_set_digest(path: Path) -> str:
    """The SHA-256 of the data set in a file of ours, read to its end; "" when there is none. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        start = file.read(_GROUP_LENGTH_END)
        if len(start) < _GROUP_LENGTH_END:
            return ""
        file.seek(int.from_bytes(start[-4:], "little"), os.SEEK_CUR)
        while piece := file.read(1_048_576):
            digest.update(piece)
    return digest.hexdigest()


def intact(path: Path) -> bool:
    """Whether the data set of a kept file is still what was received. Raises OSError."""
    return path.stem.partition("-")[2] == data_set_digest(path)[:32]


_GROUP_LENGTH_END = 144
"""Where the length of the file meta information ends; the data set begins so many bytes later (PS3.10 7.1)."""


def _make_folder(path: Path) -> None:
    """Makes a folder and what is missing above it, durably."""
    if not path.is_dir():
        _make_folder(path.parent)
        path.mkdir(exist_ok=True, mode=0o700)
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()[:32]
