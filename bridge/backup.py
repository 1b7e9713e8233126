"""Saves what a bridge keeps, while it runs, and puts it back. Part of the composition root.

The order is what makes a backup whole: first the lake, then the state, then the spool.

- A lake older than the state lacks what was delivered since: it is delivered again after a restore. One newer than the
  state would hold revisions that the state gives again, to other contents, and would take those for old.
- A spool newer than the state has every object that the state knows, and more: the next look finds these. One older
  would lack objects that were acknowledged.
- FHIR servers and archives are read again after a restore: they are where they are. Watched folders that lie in the
  data folder are archives that would be lost with it: they are saved after the spool, for the same reason.
- Exports and documents on their way to archives are made again from the state, a cache is filled again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bridge import __version__
from bridge.config import FolderSource, Settings
from bridge.errors import ConfigError
from bridge.ports import SWEEP_QUEUE
from bridge.saved_files import save, save_file, save_watched, sync_file
from bridge.sources.spool import sync_folder
from bridge.state import State
from bridge.state.database import sqlite_file
from bridge.state.table_files import TABLES, Dump, dump, load, must_be_empty
from cohort import saved
from cohort.lake import Lake
from cohort.store.place import place_of

FORMAT = 2
MANIFEST = "backup.json"
"""Written last: a folder without it is no whole backup."""

STATE = "state.sqlite"
"""The state in SQLite, in a backup."""

_KEPT = ("id", "image-token.key")
"""Files of the data folder: which one it is to those who share it, and the key that signs models' tokens."""


def back_up(settings: Settings, folder: Path, told: Callable[[str], None]) -> dict[str, Any]:
    """Everything kept, in a new folder. Result: what its manifest says.

    Raises  ConfigError  the folder is there already, or there is no state
            Unavailable  the database or the lake's store does not answer
    """
    source = sqlite_file(settings.database_url)
    if source is not None and not source.exists():
        raise ConfigError(f"data_dir: no state in {settings.data_dir}: has `bridge run` been started there?")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is there already: name a new folder")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        told("the lake")
        lake = _save_lake(settings, folder / "lake")
        told("the state")
        state = _save_state(settings, source, folder)
        told("the spool")
        spool = save(settings.data_dir / "spool", folder / "spool")
        for name, inbox in _watched(settings).items():
            save_watched(inbox, folder / "sources" / name)
        for name in _KEPT:
            if (settings.data_dir / name).exists():
                save_file(settings.data_dir / name, folder / name)
    except OSError as error:
        raise ConfigError(f"{folder}: the backup cannot be written: {error.strerror}") from None
    made = datetime.now(UTC).isoformat(timespec="seconds")
    manifest: dict[str, Any] = {"format": FORMAT, "made": made, "version": __version__, "state": state}
    manifest |= {"lake": settings.lake.url or "lake", "lake_files": lake, "spool_files": spool}
    (folder / MANIFEST).write_text(json.dumps(manifest), "utf-8")
    sync_file(folder / MANIFEST)
    sync_folder(folder)
    return manifest


def restore(settings: Settings, folder: Path, now: float, told: Callable[[str], None]) -> dict[str, Any]:
    """What a backup holds, in a data folder, a database and a bucket that have nothing yet; then everything is marked
    to be compared: sources, FHIR servers, lake. Result: the backup's manifest.

    Raises  ConfigError  no whole backup, or there is something already
            Unavailable  the database or the lake's store does not answer
    """
    manifest = read_manifest(folder)
    target = sqlite_file(settings.database_url)
    if (target is None) != (folder / TABLES).is_dir():
        kind = "SQLite" if target is None else "PostgreSQL"
        raise ConfigError(f"state_url: the backup is of a state in {kind}, and is put back into one alone")
    for there in (target or settings.data_dir / STATE, settings.data_dir / "spool", settings.data_dir / "lake"):
        if there.is_file() or (there.is_dir() and any(p.is_file() for p in there.rglob("*"))):
            raise ConfigError(f"data_dir: there is a {there.name} in {there.parent}: move it away before")
    if target is None:
        must_be_empty(settings.database_url)
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        told("the lake")
        _put_back_lake(settings, folder / "lake")
        told("the spool")
        save(folder / "spool", settings.data_dir / "spool")
        for name, inbox in _watched(settings).items():
            if (folder / "sources" / name).is_dir() and not (inbox.is_dir() and any(inbox.iterdir())):
                save_watched(folder / "sources" / name, inbox)
        for name in _KEPT:
            if (folder / name).exists():
                save_file(folder / name, settings.data_dir / name)
        told("the state")
        _put_back_state(settings, target, folder, manifest)
        sync_folder(settings.data_dir)
    except OSError as error:
        raise ConfigError(f"data_dir: the backup cannot be written there: {error.strerror}") from None
    _mark_all(settings, now)
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


def _save_lake(settings: Settings, folder: Path) -> int:
    """Result: how many files and objects."""
    if not settings.lake.url:
        with Lake(place_of(settings)).held_still():
            return save(settings.lake_dir, folder)
    beside = save(settings.lake_dir, folder)
    return beside + saved.save(place_of(settings).store, folder)


def _put_back_lake(settings: Settings, folder: Path) -> None:
    if settings.lake.url:
        saved.put_back(place_of(settings).store, folder)
    save(folder, settings.lake_dir, leave=saved.OBJECTS if settings.lake.url else ())


def _save_state(settings: Settings, source: Path | None, folder: Path) -> dict[str, Any]:
    if source is not None:
        _copy_state(source, folder / STATE)
        return {"kind": "sqlite"}
    (folder / TABLES).mkdir(mode=0o700)
    tables = asdict(dump(settings.database_url, folder / TABLES))
    sync_folder(folder / TABLES)
    return {"kind": "postgresql"} | tables


def _put_back_state(settings: Settings, target: Path | None, folder: Path, manifest: dict[str, Any]) -> None:
    if target is None:
        load(settings.database_url, folder / TABLES, Dump.of(manifest["state"]))
        return
    part = target.with_name(f"{target.name}.part")
    part.unlink(missing_ok=True)
    _copy_state(folder / STATE, part)
    part.replace(target)
    sync_folder(target.parent)


def _copy_state(source: Path, target: Path) -> None:
    """The database as it is at one moment; who writes to it goes on."""
    try:
        with closing(sqlite3.connect(source, timeout=30)) as old, closing(sqlite3.connect(target)) as new:
            old.backup(new)
    except sqlite3.Error as error:
        raise ConfigError(f"{source.name}: it cannot be copied ({type(error).__name__}): see bridge verify") from None
    sync_file(target)


def _watched(settings: Settings) -> dict[str, Path]:
    """The watched folders that lie in the data folder, by the names of their sources."""
    folders = [one for one in settings.sources if isinstance(one, FolderSource)]
    return {one.name: one.path for one in folders if one.path.is_relative_to(settings.data_dir)}


def _mark_all(settings: Settings, now: float) -> None:
    """Nothing is leased, files of exports are not there, and everybody is to be compared with what was put back."""
    state = State(settings.database_url)
    try:
        state.release_leases()
        for job in state.exports():
            state.remove_export(job.id)
        for sink in ("lake", *(one.name for one in settings.sinks)):
            state.mark_known(sink, now)
        state.mark(SWEEP_QUEUE, [one.name for one in settings.sources], now)
    finally:
        state.close()
