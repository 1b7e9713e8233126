"""A lake in a folder of this machine."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from cohort.store import Entry

PART = ".part"
"""What ends so is not finished, and is not an object."""


class LocalStore:
    """Files under a folder. A file is written beside its name, fsynced, then renamed."""

    settle_s = 0.0

    def __init__(self, root: Path) -> None:
        self._root = root

    def check(self) -> None:
        """A file system keeps the promises."""

    def read(self, key: str) -> tuple[bytes, str]:
        content = (self._root / key).read_bytes()
        return content, content.hex()

    def list(self, folder: str) -> list[Entry]:
        found = []
        for place, folders, names in os.walk(self._root / folder):
            folders[:] = [name for name in folders if not name.endswith(PART)]
            for path in (Path(place) / name for name in names if not name.endswith(PART)):
                with suppress(FileNotFoundError):  # gone since
                    stat = path.stat()
                    found.append(Entry(path.relative_to(self._root).as_posix(), stat.st_size, stat.st_mtime))
        return sorted(found, key=lambda entry: entry.key)

    def put(self, key: str, content: bytes) -> None:
        with self._written(key, content) as (part, path):
            part.replace(path)

    def create(self, key: str, content: bytes) -> bool:
        return self.replace(key, content, "")

    def replace(self, key: str, content: bytes, tag: str) -> bool:
        with self._written(key, content) as (part, path), _locked(path.parent):
            if (path.read_bytes().hex() if path.exists() else "") != tag:
                return False
            part.replace(path)
        return True

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            path = self._root / key
            path.unlink(missing_ok=True)
            if key.count("/") > 1:
                with suppress(OSError):  # not empty yet
                    path.parent.rmdir()

    def send(self, path: Path, key: str) -> None:
        target = self._root / key
        target.parent.mkdir(parents=True, exist_ok=True)
        sync(path)
        path.replace(target)
        sync(target.parent)

    def fetch(self, keys: Iterable[str], folder: Path) -> Sequence[Path]:
        return [self._root / key for key in keys]

    def sweep(self, before: float) -> None:
        for path in self._root.rglob(f"*{PART}"):
            with suppress(OSError):  # gone since, or a folder
                if path.is_file() and path.stat().st_mtime < before:
                    path.unlink()

    @contextmanager
    def _written(self, key: str, content: bytes) -> Iterator[tuple[Path, Path]]:
        path = self._root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        part = _beside(path)
        try:
            part.write_bytes(content)
            sync(part)
            yield part, path
            sync(path.parent)
        finally:
            part.unlink(missing_ok=True)


def write(path: Path, content: bytes) -> None:
    """A whole file or none, on disk when this returns."""
    LocalStore(path.parent).put(path.name, content)


def sync(path: Path) -> None:
    """A file's content, or a folder's entries, on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}-{uuid4().hex}{PART}")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time; ends with the process."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
