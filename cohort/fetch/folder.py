"""Where fetched images lie: files named by digests of their UIDs, whole or not there at all."""

from __future__ import annotations

import csv
import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from bridge.errors import ConfigError, InvalidFile
from bridge.sources.part10 import read_headers
from cohort.fetch.plan import Series

INDEX = "files.csv"
INDEX_COLUMNS = ("path", "study_instance_uid", "series_instance_uid", "sop_instance_uid")


class WrongObject(Exception):
    """What came is not an instance that was asked for. The message says how; never what it holds."""


class ImageFolder:
    """`ROOT/STUDY/SERIES/INSTANCE.dcm`, each part a SHA-256 of the UID, and ROOT/.incoming for what is not whole yet.

    A file stands under its name only after its UIDs were checked and it is on disk: what is there is never fetched
    again. Safe to use from several threads; `exclusive` keeps other processes out.
    """

    def __init__(self, root: Path) -> None:
        self.root, self._incoming = root, root / ".incoming"
        try:
            self._incoming.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ConfigError(f"--to {root}: cannot be made ({error.strerror})") from None

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Nobody else fetches into the folder meanwhile; what an earlier process left unfinished is removed."""
        with (self._incoming / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ConfigError(f"--to {self.root}: another `cohort fetch` is writing there") from None
            for part in self._incoming.glob("*.part"):
                part.unlink(missing_ok=True)
            yield

    def part(self) -> Path:
        """A name for an object that is not whole yet."""
        return self._incoming / f"{uuid4().hex}.part"

    def missing(self, series: Series) -> frozenset[str]:
        """The SOP Instance UIDs of a series that are not here."""
        try:
            held = {entry.name for entry in os.scandir(self._folder(series))}
        except FileNotFoundError:
            return frozenset(series.instances)
        return frozenset(uid for uid in series.instances if _file(uid) not in held)

    def keep(self, part: Path, series: Series) -> bool:
        """Moves a whole, fsynced part to its place. Result: whether it was new.

        Raises  WrongObject when it is no instance of the series, or not DICOM
        """
        try:
            headers = read_headers(part)
        except InvalidFile:
            raise WrongObject("an object is not a readable DICOM file") from None
        study, name = headers.text("StudyInstanceUID"), headers.text("SeriesInstanceUID")
        if (study, name) != (series.study_instance_uid, series.series_instance_uid):
            raise WrongObject("an object is of another study or series than it was asked for")
        uid = headers.text("SOPInstanceUID")
        if uid not in series.instances:
            raise WrongObject("the archive holds an instance that the lake does not list: it was left out")
        folder = self._folder(series)
        path = folder / _file(uid)
        if path.exists():
            part.unlink()
            return False
        folder.mkdir(parents=True, exist_ok=True)
        part.rename(path)
        return True

    def settle(self, series: Series) -> None:
        """Makes the names of a series durable."""
        folder = self._folder(series)
        for place in (folder, folder.parent, self.root):
            if place.is_dir():
                descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)

    def write_index(self, wanted: Sequence[Series]) -> None:
        """files.csv: which file is which instance, of all that is wanted and here."""
        part = self.root / f"{INDEX}.part"
        with part.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(INDEX_COLUMNS)
            for series in wanted:
                missing, folder = self.missing(series), self._folder(series).relative_to(self.root)
                uids = series.study_instance_uid, series.series_instance_uid
                writer.writerows((folder / _file(u), *uids, u) for u in series.instances if u not in missing)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.root / INDEX)

    def _folder(self, series: Series) -> Path:
        return self.root / _digest(series.study_instance_uid) / _digest(series.series_instance_uid)


def _file(uid: str) -> str:
    return f"{_digest(uid)}.dcm"


def _digest(uid: str) -> str:
    return hashlib.sha256(uid.encode()).hexdigest()[:32]
