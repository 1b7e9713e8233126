"""The files of a lake's tables on this machine, for DuckDB to read. They never change; a digest is part of their names.

A lake in a folder has them there. Those of a lake in an S3-compatible store are copied into a cache when a question
needs them; what comes does so under its name only with the content that the name says.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from bridge.errors import SinkUnavailable
from cohort.store import Store
from cohort.store.local import sync

IN_USE_S = 900.0
"""A cached file asked for since then is not removed: somebody may be reading it."""

SENT_AT_ONCE = 8
_DIGEST = 32


class Files(Protocol):
    """Where the files are read and written on this machine, and how they come and go."""

    folder: Path
    local: bool
    """Whether all of the lake's files are in the folder."""

    def present(self, names: Iterable[str]) -> None:
        """Makes these files be in the folder. Raises FileNotFoundError when the lake no longer has one,
        SinkUnavailable when it cannot be had or is damaged."""

    def keep(self, names: Iterable[str]) -> None:
        """Puts files that were made in the folder into the lake: durable when this returns."""


class LocalFiles:
    """The folder is the lake's own."""

    local = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def present(self, names: Iterable[str]) -> None:
        """They are."""

    def keep(self, names: Iterable[str]) -> None:
        sync(self.folder)


class CachedFiles:
    """A folder of copies, of `most_bytes` and what was used in the last 15 minutes at most."""

    local = False

    def __init__(self, store: Store, folder: Path, most_bytes: int) -> None:
        self._store, self.folder, self._most_bytes = store, folder, most_bytes
        folder.mkdir(parents=True, exist_ok=True)

    def present(self, names: Iterable[str]) -> None:
        missing = [name for name in sorted(set(names)) if not self._used(name)]
        if not missing:
            return
        with tempfile.TemporaryDirectory(dir=self.folder.parent, prefix="incoming-") as incoming:
            for path in self._store.fetch([f"files/{name}" for name in missing], Path(incoming)):
                if digest(path) != path.stem.rpartition("-")[2]:
                    raise SinkUnavailable(f"lake: the file {path.name} does not have the content that its name says")
                path.replace(self.folder / path.name)
        self._make_room()

    def keep(self, names: Iterable[str]) -> None:
        with ThreadPoolExecutor(SENT_AT_ONCE) as pool:
            list(pool.map(lambda name: self._store.send(self.folder / name, f"files/{name}"), names))
        self._make_room()

    def _used(self, name: str) -> bool:
        try:
            os.utime(self.folder / name)
        except FileNotFoundError:
            return False
        return True

    def _make_room(self) -> None:
        """Removes what was not used for the longest time, past the size allowed."""
        found = []
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):  # removed by another process
                stat = path.stat()
                found.append((stat.st_mtime, stat.st_size, path))
        held, now = sum(size for _, size, _ in found), time.time()
        for used, size, path in sorted(found):
            if held <= self._most_bytes or now - used < IN_USE_S:
                return
            path.unlink(missing_ok=True)
            held -= size


def named(path: Path, stem: Path) -> Path:
    """Gives a finished file its place and its name: the stem and a digest of what it holds."""
    return path.replace(stem.with_name(f"{stem.name}-{digest(path)}{path.suffix}"))


def digest(path: Path) -> str:
    """Of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:_DIGEST]


def digest_of(content: bytes) -> str:
    """As `digest`, of bytes in memory."""
    return hashlib.sha256(content).hexdigest()[:_DIGEST]
