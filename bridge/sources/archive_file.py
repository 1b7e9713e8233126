"""Zip and tar archives as streams of members. Nothing is unpacked to disk, and no member's name becomes a path.

A member's key is `PATH!NAME`. Members that cannot be meant well (`..`, absolute names, links, devices), archives in
archives and what grows past a bound are told, never opened.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, BinaryIO

from bridge.errors import InvalidFile, SourceUnavailable
from bridge.sources.tar_stream import entries, gzip_stream, plain_stream
from bridge.sources.tree import UNFINISHED

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
MAXIMUM_MEMBERS = 100_000
MAXIMUM_MEMBER_BYTES = 2 * 1024**3
MAXIMUM_UNPACKED_BYTES = 64 * 1024**3
MAXIMUM_RATIO = 200
"""How many times its packed size a zip member may be, if it is larger than UNSUSPICIOUS_BYTES: a black image packs
better than any bomb."""

UNSUSPICIOUS_BYTES = 16 * 1024**2
MAXIMUM_ZIP_DIRECTORY_BYTES = 16 * 1024**2
MAXIMUM_NAME = 512
CHUNK = 65_536

_MEMBER = re.compile(r"(.*?\.(?:zip|tar|tar\.gz|tgz))!(.+)", re.IGNORECASE | re.DOTALL)
_NUMBER = re.compile(r"#\d+")
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DAMAGED = (
    zipfile.BadZipFile, struct.error, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError, IndexError,
    OverflowError,
)  # fmt: skip
"""What the library raises for archives that are damaged or made to harm."""


def is_archive(path: str) -> bool:
    """Whether a name is that of an archive."""
    return path.lower().endswith(SUFFIXES)


def archive_and_name(key: str) -> tuple[str, str] | None:
    """The archive's path and the member's name, or None for the path of a plain file."""
    found = _MEMBER.fullmatch(key)
    return (found[1], found[2]) if found else None


@dataclass(frozen=True)
class Member:
    """One member, to be read before the next one is asked for.

    Result  `name` its name, or `#NUMBER` if that cannot be shown; `size` its bytes, unpacked; `problem` why it cannot
            be used, "" if it can; `consumed` bytes of the archive that lie before it
    """

    name: str
    size: int
    problem: str
    consumed: int
    _read: Callable[[int], bytes]

    def read(self, length: int) -> bytes:
        """The next bytes, at most so many; b"" at its end. Raises InvalidFile when it is damaged or too short."""
        return self._read(length)


def members(
    path: Path, wanted: frozenset[str] | None = None, maximum_unpacked_bytes: int = MAXIMUM_UNPACKED_BYTES
) -> Iterator[Member]:
    """The files in an archive, hidden ones and folders left out; only the `wanted` names, if given.

    Raises  InvalidFile         damaged, truncated or past a bound; what came before is good
            SourceUnavailable   it cannot be read (FileNotFoundError passes)
    """
    with _opened(path) as file:
        found = (
            _zip(file, wanted, maximum_unpacked_bytes)
            if path.name.lower().endswith(".zip")
            else _tar(file, path.name.lower().endswith(".tar"), maximum_unpacked_bytes)
        )
        missing = set(wanted) if wanted is not None else None
        seen: set[str] = set()
        for number, member in enumerate(found, 1):
            if number > MAXIMUM_MEMBERS:
                raise InvalidFile(f"more than {MAXIMUM_MEMBERS} members: refused")
            if _hidden(member.name):
                continue
            judged = _judged(member, number, seen)
            if missing is None:
                yield judged
            elif judged.name in missing:
                missing.remove(judged.name)
                yield judged
                if not missing:
                    return


def headers_source(member: Member) -> Callable[[int, int], bytes]:
    """A member by offset, for a reader that goes forward: its first bytes are kept, later ones only a little while."""
    return _Forward(member).read


def drain(member: Member) -> None:
    """Reads the rest of a member, so that damage in it is seen. Raises InvalidFile."""
    while member.read(CHUNK):
        pass


KEPT_BYTES = 32 * 1024**2
_RECENT_BYTES = 4 * CHUNK


class _Forward:
    def __init__(self, member: Member) -> None:
        self._member, self._head, self._recent, self._got = member, bytearray(), b"", 0

    def read(self, length: int, offset: int) -> bytes:
        end = min(offset + length, self._member.size)
        if end - offset > KEPT_BYTES:
            raise InvalidFile(f"more than {KEPT_BYTES} bytes of it would be needed at once: unpack the archive")
        while self._got < end:
            chunk = self._member.read(CHUNK)
            if not chunk:
                break
            self._got += len(chunk)
            if self._got <= KEPT_BYTES:
                self._head += chunk
            self._recent = (self._recent + chunk)[-_RECENT_BYTES:]
        if end <= len(self._head):
            return bytes(self._head[offset:end])
        start = self._got - len(self._recent)
        if offset < start:
            raise InvalidFile("it can only be read by going back in it: unpack the archive")
        return self._recent[offset - start : end - start]


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123  a descriptor has no Path
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise InvalidFile("not a regular file")
            yield file
    except FileNotFoundError:
        raise
    except PermissionError:
        raise InvalidFile("the file may not be read: check its permissions") from None
    except OSError as error:
        raise SourceUnavailable(f"an archive cannot be read: {error.strerror}") from None


def _judged(member: Member, number: int, seen: set[str]) -> Member:
    """The member with its problem if it has one, and a number for a name that is not fit to be its key."""
    problem = _name_problem(member.name, seen)
    if problem:
        return replace(member, name=f"#{number}", problem=problem)
    seen.add(member.name)
    if member.problem:
        return member
    if is_archive(member.name):
        return replace(member, problem="an archive in an archive is not opened: unpack the outer one")
    if member.size > MAXIMUM_MEMBER_BYTES:
        return replace(member, problem=f"larger than {MAXIMUM_MEMBER_BYTES} bytes: refused")
    return member


def _name_problem(name: str, seen: set[str]) -> str:
    if ".." in name.replace("\\", "/").split("/") or name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name):
        return "its name leads out of the archive: refused"
    if len(name) > MAXIMUM_NAME or not name.isprintable() or not name or _NUMBER.fullmatch(name):
        return "its name is too long or has characters that cannot be shown"
    return "a member before it has the same name" if name in seen else ""


def _hidden(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    hidden = any(part.startswith(".") and part not in (".", "..") for part in parts)
    return hidden or parts[0] == "__MACOSX" or name.endswith(UNFINISHED)


def _tar(file: BinaryIO, plain: bool, maximum_unpacked_bytes: int) -> Iterator[Member]:
    size = os.fstat(file.fileno()).st_size
    for entry in entries(plain_stream(file, size) if plain else gzip_stream(file, maximum_unpacked_bytes)):
        yield Member(entry.name.removeprefix("./"), entry.size, entry.problem, entry.consumed, entry.read)


def _zip(file: BinaryIO, wanted: frozenset[str] | None, maximum_unpacked_bytes: int) -> Iterator[Member]:
    size = os.fstat(file.fileno()).st_size
    try:
        archive = zipfile.ZipFile(_Guarded(file, size))
    except _DAMAGED:
        raise InvalidFile("damaged or truncated: its directory cannot be read") from None
    infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
    if sum(info.file_size for info in infos) > maximum_unpacked_bytes:
        raise InvalidFile(f"it unpacks to more than {maximum_unpacked_bytes} bytes: refused")
    for info in infos:
        if not info.is_dir():
            problem = _zip_problem(info)
            read = _ZipReader(archive, info).read
            yield Member(info.filename, info.file_size, problem, max(info.header_offset, 0), read)


def _zip_problem(info: zipfile.ZipInfo) -> str:
    mode = info.external_attr >> 16
    if stat.S_ISLNK(mode) or stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return "a link or a device: refused"
    if info.flag_bits & 0x1:
        return "encrypted: it cannot be read"
    if info.compress_type not in _METHODS:
        return "packed by another method than store and deflate: pack it again"
    if info.file_size > UNSUSPICIOUS_BYTES and info.file_size > MAXIMUM_RATIO * info.compress_size:
        return f"it unpacks to more than {MAXIMUM_RATIO} times its size: refused"
    return ""


class _ZipReader:
    """Opens a member when it is first read."""

    def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
        self._archive, self._info, self._left = archive, info, info.file_size
        self._content: IO[bytes] | None = None

    def read(self, length: int) -> bytes:
        try:
            if self._content is None:
                self._content = self._archive.open(self._info)
            found = self._content.read(min(length, self._left) or 1)
        except _DAMAGED:
            raise InvalidFile("damaged: it cannot be unpacked, or its checksum is wrong") from None
        if len(found) > self._left or (self._left and not found):
            raise InvalidFile("damaged: it has another size than the archive says")
        self._left -= len(found)
        return found


class _Guarded:
    """The file as zipfile sees it: no read is larger than a directory may be, no seek leads out of it."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size

    def read(self, length: int = -1) -> bytes:
        if length > MAXIMUM_ZIP_DIRECTORY_BYTES:
            raise InvalidFile(f"its directory is larger than {MAXIMUM_ZIP_DIRECTORY_BYTES} bytes: refused")
        return self._file.read(length if length >= 0 else MAXIMUM_ZIP_DIRECTORY_BYTES)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._file.tell()}.get(whence, self._size)
        if start + offset < 0:
            raise EOFError
        return self._file.seek(start + offset)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True
