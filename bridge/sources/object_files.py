"""Objects as files: written as a C-GET brings them, read to be sent by C-STORE (PS3.10 7, PS3.4 B)."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from bridge.errors import InvalidFile, SourceUnavailable
from bridge.sources.association import file_prefix

MAXIMUM_OBJECT_BYTES = 2_147_483_648
SUCCESS, OUT_OF_RESOURCES, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000
_BUFFER = 1_048_576


@dataclass(frozen=True)
class Arrived:
    """A whole object of a C-GET in a file, fsynced. `digest` is the SHA-256 of its data set, in hex."""

    part: Path
    sop_class_uid: str
    sop_instance_uid: str
    digest: str


class Objects(Protocol):
    """Where the objects of a C-GET go. `keep` gives the C-STORE status; what it does not move away is deleted."""

    def part(self) -> Path: ...

    def keep(self, arrived: Arrived) -> int: ...


class Arriving:
    """One object of a C-GET on its way to disk. What cannot be written is thrown away, and its sender told."""

    def __init__(
        self, objects: Objects, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, ae_title: str
    ) -> None:
        self._objects, self._part = objects, objects.part()
        self._class, self._instance = sop_class_uid, sop_instance_uid
        self._hash, self._size, self._status = hashlib.sha256(), 0, SUCCESS
        self._file: BinaryIO | None = None
        if not (sop_class_uid and sop_instance_uid):
            self._status = CANNOT_UNDERSTAND
        try:
            descriptor = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self._file = os.fdopen(descriptor, "wb", buffering=_BUFFER)
            self._file.write(file_prefix(sop_class_uid, sop_instance_uid, transfer_syntax_uid, ae_title))
        except OSError:
            self._status = OUT_OF_RESOURCES

    def write(self, fragment: memoryview) -> None:
        self._size += len(fragment)
        if self._status != SUCCESS or self._file is None:
            return
        self._hash.update(fragment)
        try:
            if self._size > MAXIMUM_OBJECT_BYTES:
                self._status = OUT_OF_RESOURCES
            else:
                self._file.write(fragment)
        except OSError:
            self._status = OUT_OF_RESOURCES

    def finished(self) -> int:
        """The C-STORE status: success once the object is kept and survives a crash."""
        try:
            if self._file is not None and self._status == SUCCESS:
                self._file.flush()
                os.fsync(self._file.fileno())
                arrived = Arrived(self._part, self._class, self._instance, self._hash.hexdigest())
                self._status = self._objects.keep(arrived)
        except OSError:
            self._status = OUT_OF_RESOURCES
        self.discard()
        return self._status

    def discard(self) -> None:
        """Leaves no part behind."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
        self._part.unlink(missing_ok=True)


def read_head(file: Path, most_bytes: int) -> bytes:
    """The first so many bytes of a file that is no link. Raises FileNotFoundError, InvalidFile, SourceUnavailable."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as content:
            if not stat.S_ISREG(os.fstat(content.fileno()).st_mode):
                raise InvalidFile("not a regular file")
            return content.read(most_bytes)
    except FileNotFoundError:
        raise
    except PermissionError:
        raise InvalidFile("the file may not be read: check its permissions") from None
    except OSError as error:
        raise SourceUnavailable(f"a file cannot be read: {error.strerror}") from None


@dataclass(frozen=True)
class StoredObject:
    """What a C-STORE needs to know of a file: its UIDs, and where its data set lies."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    offset: int
    size: int


def stored_object(file: Path) -> StoredObject:
    """Reads the file meta information (PS3.10 7.1). Raises InvalidFile when there is none; OSError."""
    with file.open("rb") as content:
        head = content.read(65_536)
        size = os.fstat(content.fileno()).st_size
    if head[128:132] != b"DICM":
        raise InvalidFile("not a DICOM file: no DICM marker")
    values: dict[int, bytes] = {}
    position = 132
    while head[position : position + 2] == b"\2\0" and position + 12 <= len(head):
        element, vr, length = struct.unpack_from("<H2sH", head, position + 2)
        position += 8
        if vr in (b"OB", b"UN", b"UT"):
            (length,) = struct.unpack_from("<I", head, position)
            position += 4
        values[element] = head[position : position + length]
        position += length
    found = [values.get(e, b"").decode("ascii", "replace").strip(" \0") for e in (0x0002, 0x0003, 0x0010)]
    if not all(found) or position >= size:
        raise InvalidFile("its file meta information lacks MediaStorageSOPClassUID, its instance or TransferSyntaxUID")
    return StoredObject(found[0], found[1], found[2], position, size - position)
