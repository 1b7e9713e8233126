"""Saves what a bridge keeps, while it runs, and puts it back. Part of the composition root.

The order is what makes a backup whole: first the lake, then the state, then the spool.

- A lake older than the state lacks what was delivered since: it is delivered again after a restore. One newer than the
  state would hold revisions that the state gives again, to other contents, and would take those for old.
- A spool newer than the state has every object that the state knows, and more: the next look finds these. One older
  would lack objects that were acknowledged.
- FHIR servers and archives are read again after a restore: they are where they are.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bridge import __version__
from bridge.config import Settings
from bridge.errors import ConfigError
from bridge.ports import SWEEP_QUEUE
from bridge.sources.spool import sync_folder
from bridge.state import State
from cohort.lake import Lake
from cohort.store.place import place_of

FORMAT = 1
MANIFEST = "backup.json"
"""Written last: a folder without it is no whole backup."""

_NEVER_CHANGED = {"lake": ("files", "generations", "delta", "loads", "parked"), "spool": ("studies",)}
"""Folders of a lake, and of each source's spool, whose files are written once: linked where the file system can."""

_UNFINISHED = ("scratch-", "incoming-")
"""Begin the names of folders that work on a lake uses."""


def back_up(settings: Settings, folder: Path, told: Callable[[str], None]) -> dict[str, Any]:
    """Everything kept in the data folder, in a new folder. Result: what its manifest says.

    Raises  ConfigError  the folder is there already, there is no state, or it is in PostgreSQL
    """
    source = settings.data_dir / "state.sqlite"
    if settings.state_url:
        raise ConfigError(
            "state_url: back up another database with its own tools, in this order: data_dir/lake, database, "
            "data_dir/spool; bridge backup is for the SQLite state in data_dir"
        )
    if not source.exists():
        raise ConfigError(f"data_dir: no state in {settings.data_dir}: has `bridge run` been started there?")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is there already: name a new folder")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        told("the lake")
        with Lake(place_of(settings)).held_still():
            lake = _saved(settings.data_dir / "lake", folder / "lake")
        told("the state")
        _copy_state(source, folder / "state.sqlite")
        told("the spool")
        spool = _saved(settings.data_dir / "spool", folder / "spool")
    except OSError as error:
        raise ConfigError(f"{folder}: the backup cannot be written: {error.strerror}") from None
    made = datetime.now(UTC).isoformat(timespec="seconds")
    manifest: dict[str, Any] = {"format": FORMAT, "made": made, "version": __version__}
    manifest |= {"lake": settings.lake.url or "lake", "lake_files": lake, "spool_files": spool}
    _write(folder / MANIFEST, json.dumps(manifest).encode())
    return manifest


def restore(settings: Settings, folder: Path, now: float, told: Callable[[str], None]) -> dict[str, Any]:
    """What a backup holds, in a data folder that has nothing yet; then everything is marked to be compared: sources,
    FHIR servers, lake. Result: the backup's manifest.

    Raises  ConfigError  no whole backup, or there is something in the data folder
    """
    manifest = read_manifest(folder)
    if settings.state_url:
        raise ConfigError("state_url: the backup is of a SQLite state: leave state_url empty to restore it")
    for name in ("state.sqlite", "spool", "lake"):
        there = settings.data_dir / name
        if there.is_file() or (there.is_dir() and any(p.is_file() for p in there.rglob("*"))):
            raise ConfigError(f"data_dir: there is a {name} in {settings.data_dir}: move it away before")
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        for name in ("spool", "lake"):
            told(f"the {name}")
            _saved(folder / name, settings.data_dir / name)
        told("the state")
        part = settings.data_dir / "state.sqlite.part"
        _copy_state(folder / "state.sqlite", part)
        part.replace(settings.data_dir / "state.sqlite")
        sync_folder(settings.data_dir)
    except OSError as error:
        raise ConfigError(f"data_dir: the backup cannot be written there: {error.strerror}") from None
    state = State(settings.database_url)
    try:
        state.release_leases()
        for sink in ("lake", *(one.name for one in settings.sinks)):
            state.mark_known(sink, now)
        state.mark(SWEEP_QUEUE, [one.name for one in settings.sources], now)
    finally:
        state.close()
    return manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a backup says of itself. Raises ConfigError when it is not whole, or of a newer program."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text("utf-8"))
        known = manifest["format"] <= FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{folder}: no whole backup: {MANIFEST} is missing or cannot be read") from None
    if not known:
        raise ConfigError(f"{folder}: the backup was made by a newer program: use that")
    return manifest


def _copy_state(source: Path, target: Path) -> None:
    """The database as it is at one moment; who writes to it goes on."""
    try:
        with closing(sqlite3.connect(source, timeout=30)) as old, closing(sqlite3.connect(target)) as new:
            old.backup(new)
    except sqlite3.Error as error:
        raise ConfigError(f"{source.name}: it cannot be copied ({type(error).__name__}): see bridge verify") from None
    _sync(target)


def _saved(source: Path, target: Path) -> int:
    """The files of the lake or the spool in another folder: linked where they never change, else copied. Result: how
    many.

    Files that come or go meanwhile may be in it or not; what is not finished is left out.
    """
    saved, folders = 0, {target}
    for path in _files(source):
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        folders.add(place.parent)
        with suppress(FileNotFoundError):
            _save(path, place, never_changed=_kind(source, path) in _NEVER_CHANGED[source.name])
            saved += 1
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    for folder in sorted(folders):
        sync_folder(folder)
    return saved


def _save(path: Path, place: Path, *, never_changed: bool) -> None:
    if never_changed:
        with suppress(OSError):  # another file system, or one without links
            os.link(path, place)
            return
    shutil.copy2(path, place)
    _sync(place)


def _files(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(n for n in folders if not n.endswith(".part") and not n.startswith(_UNFINISHED))
        found = (Path(folder) / name for name in sorted(names) if not name.endswith((".part", "lock")))
        yield from (path for path in found if _kind(root, path) != "incoming")


def _kind(root: Path, path: Path) -> str:
    """The folder of the lake, or of a source's spool, that a file is in; "" for none."""
    parts = path.relative_to(root).parts[:-1]
    at = 1 if root.name == "spool" else 0
    return parts[at] if len(parts) > at else ""


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    _sync(path)
    sync_folder(path.parent)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
