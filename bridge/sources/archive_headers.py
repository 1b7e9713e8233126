"""Headers of the members of archives, each archive gone through at most once for a study.

A gzipped tar can only be read from its beginning. So that many studies in one do not cost a pass each, the headers
that went by last are kept for as long as the archive does not change.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from bridge.errors import InvalidFile
from bridge.sources.archive_file import CHUNK, Member, drain, headers_source, members
from bridge.sources.part10 import headers_of
from bridge.translate.headers import Headers

KEPT_HEADERS = 5000
"""Of members of gzipped tars: some 10 KB each."""

_Kept = tuple[tuple[int, int], Headers]


class ArchiveHeaders:
    """Reads members of archives under `root`. Safe to use from several threads."""

    def __init__(self, root: Path, maximum_unpacked_bytes: int) -> None:
        self._root, self._maximum_unpacked_bytes = root, maximum_unpacked_bytes
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
        self._lock = threading.Lock()

    def all_of(self, archive: str) -> Iterator[tuple[Member, Headers | InvalidFile]]:
        """Every member, read to its end so that any damage is seen. Raises as `members` does."""
        stamp = self._stamp(archive)
        for member in members(self._root / archive, None, self._maximum_unpacked_bytes):
            found = _headers(member, to_its_end=True)
            self._keep(archive, member.name, stamp, found)
            yield member, found

    def of(self, archive: str, names: frozenset[str]) -> Iterator[tuple[str, Headers | InvalidFile]]:
        """The members with these names, those that are there. Raises as `members` does."""
        stamp = self._stamp(archive)
        missing = set(names)
        for name in names:
            kept = self._kept_of(archive, name)
            if kept is not None and kept[0] == stamp:
                missing.remove(name)
                yield name, kept[1]
        if not missing:
            return
        passed_by = None if _is_sequential(archive) else frozenset(missing)
        for member in members(self._root / archive, passed_by, self._maximum_unpacked_bytes):
            found = _headers(member, to_its_end=False)
            self._keep(archive, member.name, stamp, found)
            if member.name in missing:
                missing.remove(member.name)
                yield member.name, found
            if not missing:
                return

    def content(self, archive: str, name: str, most_bytes: int) -> bytes | None:
        """The first so many bytes of a member; None when it is not there. Raises as `members` does."""
        for member in members(self._root / archive, frozenset({name}), self._maximum_unpacked_bytes):
            if member.problem:
                raise InvalidFile(member.problem)
            found = bytearray()
            while len(found) < most_bytes and (piece := member.read(min(CHUNK, most_bytes - len(found)))):
                found += piece
            return bytes(found)
        return None

    def _keep(self, archive: str, name: str, stamp: tuple[int, int], found: Headers | InvalidFile) -> None:
        if not _is_sequential(archive) or isinstance(found, InvalidFile):
            return
        with self._lock:
            self._kept[archive, name] = stamp, found
            self._kept.move_to_end((archive, name))
            if len(self._kept) > KEPT_HEADERS:
                self._kept.popitem(last=False)

    def _kept_of(self, archive: str, name: str) -> _Kept | None:
        with self._lock:
            return self._kept.get((archive, name))

    def _stamp(self, archive: str) -> tuple[int, int]:
        status = (self._root / archive).lstat()
        return status.st_size, status.st_mtime_ns


def _is_sequential(archive: str) -> bool:
    return archive.lower().endswith((".gz", ".tgz"))


def _headers(member: Member, to_its_end: bool) -> Headers | InvalidFile:
    try:
        if member.problem:
            raise InvalidFile(member.problem)
        found = headers_of(headers_source(member), member.size)
        if to_its_end:
            drain(member)
    except InvalidFile as error:
        return error
    return found
