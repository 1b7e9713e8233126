"""A DICOMDIR as a hint: which files it names, and how many of them are not there. It is never followed.

Its records point at one another by offset and may run in circles; their order and contents say nothing that the files
themselves do not say better. Only the names are taken, wherever they stand (PS3.3 F.3.2.2, Referenced File ID).
"""

from __future__ import annotations

import re
from pathlib import Path

from bridge.errors import SourceUnavailable

MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"
MAXIMUM_BYTES = 64 * 1024**2
MAXIMUM_NAMES = 200_000

_FILE_ID = re.compile(rb"\x04\x00\x00\x15CS(..)", re.DOTALL)
_COMPONENT = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def absent_files(dicomdir: Path) -> tuple[int, int]:
    """(files it names, how many of them are not beside it). Media may show the names in lower case.

    Raises  SourceUnavailable when it cannot be read (FileNotFoundError passes)
    """
    try:
        with dicomdir.open("rb") as file:
            content = file.read(MAXIMUM_BYTES)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SourceUnavailable(f"a DICOMDIR cannot be read: {error.strerror}") from None
    named: set[tuple[str, ...]] = set()
    for found in _FILE_ID.finditer(content):
        length = int.from_bytes(found[1], "little")
        parts = tuple(content[found.end() : found.end() + length].decode("ascii", "replace").strip(" \0").split("\\"))
        if all(_COMPONENT.fullmatch(part) and part.strip(".") for part in parts):
            named.add(parts)
        if len(named) == MAXIMUM_NAMES:
            break
    return len(named), sum(not _is_there(dicomdir.parent, parts) for parts in named)


def _is_there(folder: Path, parts: tuple[str, ...]) -> bool:
    return folder.joinpath(*parts).exists() or folder.joinpath(*(part.lower() for part in parts)).exists()
