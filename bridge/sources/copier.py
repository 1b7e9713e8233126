"""Copies objects into a spool's folder of parts and digests them on the way."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from bridge.errors import SourceUnavailable
from bridge.sources.preamble import MARKER, data_set_at, has_marker, preamble
from bridge.sources.spool import Spool

MINIMUM_FREE_BYTES = 1024**3
"""Below this free space nothing more is copied."""

PIECE = 1024**2


class SpoolUnavailable(SourceUnavailable):
    """The spool takes nothing now: what was not judged yet is to be imported again."""


class Copier:
    """Copies into the spool's folder of parts, with a preamble of ours: what else the file may be is not imported."""

    def __init__(self, spool: Spool, minimum_free_bytes: int) -> None:
        self._spool, self._minimum_free = spool, minimum_free_bytes

    def copy(self, read: Callable[[int], bytes]) -> tuple[Path, int, str]:
        """(part, bytes, SHA-256 of the data set in hex). Raises SpoolUnavailable; what `read` raises passes."""
        if shutil.disk_usage(self._spool.incoming).free < self._minimum_free:
            raise SpoolUnavailable(f"import: less than {self._minimum_free} bytes are free beside the spool")
        part = self._spool.part()
        try:
            with _opened_part(part) as descriptor:
                size, digest = digest_of(read, lambda content: _write(descriptor, content))
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        return part, size, digest


@contextlib.contextmanager
def _opened_part(part: Path) -> Iterator[int]:
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SpoolUnavailable(f"import: the spool cannot be written: {error.strerror}") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write(descriptor: int, content: bytes) -> None:
    left = memoryview(content)
    try:
        while left:
            left = left[os.write(descriptor, left) :]
    except OSError as error:
        raise SpoolUnavailable(f"import: the spool cannot be written: {error.strerror}") from None


def digest_of(read: Callable[[int], bytes], write: Callable[[bytes], None] = lambda _content: None) -> tuple[int, str]:
    """(bytes, SHA-256 of the data set, which begins after the file meta information), each piece handed to `write`."""
    piece = read(PIECE)
    if has_marker(piece):
        piece = preamble(piece) + piece[MARKER.start :]
    size, skipped, found = 0, data_set_at(piece), hashlib.sha256()
    while piece:
        write(piece)
        found.update(memoryview(piece)[max(0, skipped - size) :])
        size += len(piece)
        piece = read(PIECE)
    return size, found.hexdigest()
