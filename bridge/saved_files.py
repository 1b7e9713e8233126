"""The files of a data folder in another folder, and back: linked where they never change. Part of `bridge.backup`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from bridge.sources.spool import sync_folder

_NEVER_CHANGED = {"lake": ("files", "generations", "delta", "loads", "parked"), "spool": ("studies",)}
"""Folders of a lake, and of each source's spool, whose files are written once: linked where the file system can."""

_UNFINISHED = ("scratch-", "incoming-")
"""Begin the names of folders that work on a lake uses."""

_LEFT_OUT = (".part", "lock", ".sqlite", ".sqlite-journal")
"""End the names of what is not finished, or of this machine, or begins anew: cursors into `outcomes.sqlite` of an older
copy would pass over changes, and are refused when it is gone."""


def save(source: Path, target: Path, leave: tuple[str, ...] = ()) -> int:
    """The files of the lake or the spool in another folder: linked where they never change, else copied; secrets are
    readable by their owner alone. `leave` names what at the top is left out. Result: how many.

    Files that come or go meanwhile may be in it or not; what is not finished is left out.
    """
    never_changed = _NEVER_CHANGED[source.name]
    return _save(source, target, ((path, _kind(source, path) in never_changed) for path in _files(source, leave)))


def save_watched(source: Path, target: Path) -> int:
    """Every file of a folder that others write to, copied. Result: how many."""
    found = (Path(folder) / name for folder, _, names in os.walk(source) for name in sorted(names))
    return _save(source, target, ((path, False) for path in found if path.is_file()))


def save_file(path: Path, place: Path, *, never_changed: bool = False) -> None:
    """One file. Raises OSError."""
    if never_changed:
        with suppress(OSError):  # another file system, or one without links
            os.link(path, place)
            return
    if path.suffix == ".key":
        place.touch(mode=0o600)
        shutil.copyfile(path, place)
        place.chmod(0o600)
    else:
        shutil.copy2(path, place)
    sync_file(place)


def sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _save(source: Path, target: Path, paths: Iterable[tuple[Path, bool]]) -> int:
    """Files, and whether they never change."""
    saved, folders = 0, {target}
    for path, never_changed in paths:
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        folders.add(place.parent)
        with suppress(FileNotFoundError):
            save_file(path, place, never_changed=never_changed)
            saved += 1
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    for folder in sorted(folders):
        sync_folder(folder)
    return saved


def _files(root: Path, leave: tuple[str, ...]) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        left = leave if Path(folder) == root else ()
        folders[:] = sorted(n for n in folders if not n.endswith(".part") and not n.startswith(_UNFINISHED))
        folders[:] = [name for name in folders if name not in left]
        found = (Path(folder) / name for name in sorted(names) if not name.endswith(_LEFT_OUT) and name not in left)
        yield from (path for path in found if _kind(root, path) != "incoming")


def _kind(root: Path, path: Path) -> str:
    """The folder of the lake, or of a source's spool, that a file is in; "" for none."""
    parts = path.relative_to(root).parts[:-1]
    at = 1 if root.name == "spool" else 0
    return parts[at] if len(parts) > at else ""
