"""The first 128 bytes of files in a spool (PS3.10 7.1 leaves them to the program): what the file is checked by.

0–11     HEADERS ONLY, when the pixel data was dropped; else zeros
12–63    zeros
64–95    SHA-256 of DICM and the file meta information
96–127   SHA-256 of what follows them, when the pixel data was dropped: the name has the digest of what was received
"""

from __future__ import annotations

import hashlib
from pathlib import Path

TRIMMED = b"HEADERS ONLY"
"""Begins the preamble of an object whose pixel data was dropped; what was received begins with zeros."""

MARKER = slice(128, 132)
META_LENGTH = b"\x02\0\0\0UL\x04\0"
"""Begins the file meta information; its length follows."""

_META_AT, _TRIMMED_AT, _END = 64, 96, 128
_PIECE = 1_048_576
_ALL_META = 65_536
"""File meta information is shorter."""


def has_marker(head: bytes) -> bool:
    """Whether a file that begins so says that it is DICOM (PS3.10 7.1)."""
    return head[MARKER] == b"DICM"


def data_set_at(head: bytes) -> int:
    """Where the data set begins; 0, the whole file, where the file meta information does not say (PS3.10 7.1)."""
    start = MARKER.stop if has_marker(head) else 0
    if head[start : start + 8] != META_LENGTH:
        return 0
    return start + 12 + int.from_bytes(head[start + 8 : start + 12], "little")


def preamble(head: bytes, trimmed: bytes = b"") -> bytes:
    """The preamble of a file that begins so; `trimmed`: what is left of its data set. All zeros where the file meta
    information is not whole in `head`."""
    end = data_set_at(head)
    if not has_marker(head) or not _END < end <= len(head):
        return bytes(_END)
    mark = TRIMMED if trimmed else b""
    rest = hashlib.sha256(trimmed).digest() if trimmed else bytes(32)
    return mark.ljust(_META_AT, b"\0") + hashlib.sha256(head[_END:end]).digest() + rest


def problem(path: Path) -> str:
    """Why a file of a spool is not what was kept, "" when it is. Its name ends with the digest of what was received.

    Files of earlier versions have a preamble of zeros, but for their mark: of these, and of a file without file meta
    information, what the name says is checked alone, and nothing where pixel data was dropped. Raises OSError.
    """
    with path.open("rb") as file:
        head = file.read(_ALL_META)
        start = data_set_at(head)
        found = hashlib.sha256(head[start:])
        while piece := file.read(_PIECE):
            found.update(piece)
    kept, trimmed = head[:_END], head.startswith(TRIMMED)
    if kept == TRIMMED.ljust(_END, b"\0"):
        return ""
    if start and has_marker(head) and any(kept):
        mark = TRIMMED if trimmed else b""
        if kept[:_META_AT] != mark.ljust(_META_AT, b"\0"):
            return "its preamble was changed"
        if kept[_META_AT:_TRIMMED_AT] != hashlib.sha256(head[_END:start]).digest():
            return "its file meta information was changed"
        if trimmed:
            return "" if kept[_TRIMMED_AT:] == found.digest() else "its data set was changed"
        if any(kept[_TRIMMED_AT:]):
            return "its preamble was changed"
    return "" if path.stem.partition("-")[2] == found.hexdigest()[:32] else "its data set was changed"
