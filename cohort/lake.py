"""The lake: immutable generations of columnar tables, published by atomic rename, and a delta beside them.

    LAKE/delta/*.ndjson         what writers appended (docs/lake.md)
    LAKE/delta/NAME/*           a whole load: seen all at once; NDJSON, and Parquet made of NDJSON
    LAKE/files/*.parquet        files of tables; never changed, shared by generations
    LAKE/generations/ID.json    manifest of one generation
    LAKE/names/NAME             the id of a generation that is kept
    LAKE/CURRENT                the id of the newest one
    LAKE/parked/*.ndjson        lines that could not be used, with the reason

Any number of processes read; one publishes at a time. Killed anywhere, the next publish goes on: a delta file is
removed only after the generation that holds its content is durable, and folding it twice changes nothing.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson

from cohort import compaction
from cohort.delta import Parked
from cohort.fold import Fold
from cohort.generation import Generation, Generations, Listed, sync, write
from cohort.tables import Tables

FOLD_BYTES = {".ndjson": 67_108_864, ".parquet": 8_589_934_592}
"""Delta bytes folded in one step, by suffix. NDJSON is held in memory; Parquet is read as often as it is needed, and
one step for all of it makes one file of each table. All steps of one publish become visible together."""

ABANDONED_S = 86_400.0
"""A load that has written nothing for so long died."""

MAXIMUM_PARKED = 10_000
"""Parked lines kept of one load or publish; more are counted."""


class Lake:
    """One lake folder. `at` is told each stage of publishing (tests kill the process there)."""

    def __init__(self, root: Path, at: Callable[[str], None] = lambda _stage: None) -> None:
        self.root, self._at = root, at
        (root / "delta").mkdir(parents=True, exist_ok=True)
        self._generations = Generations(root)

    def check(self) -> None:
        """Raises ConfigError when another version of this program made the lake."""
        self._generations.manifest()

    def append(self, lines: Iterable[Mapping[str, Any]]) -> Path:
        """Writes one delta file, durable when this returns."""
        return _append(self.root / "delta", lines)

    @contextmanager
    def loading(self) -> Iterator[Loading]:
        """Takes the lines of a whole load, bit by bit. All of it becomes visible at once; none, after an error."""
        name = _new_name()
        part = self.root / "delta" / f"{name}.part"
        part.mkdir()
        try:
            loading = Loading(part)
            yield loading
            shutil.rmtree(loading.scratch)
            part.rename(self.root / "delta" / name)
            sync(self.root / "delta")
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def pending(self) -> int:
        """How many delta files are not in a generation yet."""
        return sum(len(files) for files in self._units())

    def current(self) -> Generation | None:
        """The newest generation, or None before the first."""
        return self._generations.current()

    def generation(self, wanted: str) -> Generation:
        """A generation by its id or name. Raises InvalidQuery when it is not (or no longer) there."""
        return self._generations.find(wanted)

    def generations(self) -> list[Listed]:
        """Every generation that can be asked, newest first."""
        return self._generations.list()

    def keep(self, name: str, wanted: str) -> str:
        """Keeps a generation (its id or name) under a name. Result: its id. Raises InvalidQuery."""
        with self._exclusive():
            return self._generations.keep(name, wanted)

    def forget(self, name: str) -> None:
        """No longer keeps the generation of this name. Raises InvalidQuery when there is none."""
        with self._exclusive():
            self._generations.forget(name)

    def publish(self, now: datetime) -> Generation | None:
        """Folds what is pending into the next generation; None when nothing is. One publisher at a time."""
        with self._exclusive():
            pending = [path for files in self._units() for path in files]
            if not pending:
                return None
            before = self._generations.manifest()
            id_ = self._generations.next_id()
            with Tables(self.root / "files", id_, before["tables"] if before else {}) as tables:
                fold = Fold(tables)
                for batch in _batches(pending):
                    fold.run(batch)
                made = tables.manifest()
            self._at("folded")
            self.park(id_, fold.parked)
            self._publish(id_, made, now)
            for path in pending:
                path.unlink(missing_ok=True)
            self._remove_empty_loads(now.timestamp())
            self._at("delta removed")
            self._generations.forget_old(now.timestamp())
            return self._generations.current()

    def compact(self, now: datetime, *, everything: bool = False) -> bool:
        """Makes one file of many where small ones have grown too many or too large, while others publish and read.

        Result  whether a table was compacted. With `everything`, each table that is not one whole file is.
        """
        with self._lock("compact.lock"):
            before = self._generations.manifest()
            work = compaction.due(before["tables"], everything=everything) if before else {}
            with compaction.Compaction(self.root) as run:
                merged = {table: run.merge(table, entries) for table, entries in work.items()}
                if not merged:
                    return False
                self._at("compacted")
                with self._exclusive():
                    held = self._generations.manifest()["tables"]
                    id_ = self._generations.next_id()
                    made = held | {name: run.put(name, held[name], one, id_) for name, one in merged.items()}
                    self._publish(id_, made, now)
                    self._generations.forget_old(now.timestamp())
        return True

    def park(self, name: str, parked: Sequence[Parked]) -> None:
        """Keeps lines that could not be used, with their reasons, for a person."""
        if parked:
            kept = [{"file": f, "line": n, "reason": reason} for f, n, reason in parked[:MAXIMUM_PARKED]]
            if len(parked) > MAXIMUM_PARKED:
                kept.append({"file": "", "line": 0, "reason": f"and {len(parked) - MAXIMUM_PARKED} more"})
            write(self.root / "parked" / f"{name}.ndjson", b"".join(orjson.dumps(one) + b"\n" for one in kept))

    def parked(self, limit: int) -> list[dict[str, Any]]:
        """What could not be used: `of` (generation or load), `file`, `line` (0: none), `reason`; the newest first."""
        found: list[dict[str, Any]] = []
        for path in sorted((self.root / "parked").glob("*.ndjson"), key=lambda p: p.stat().st_mtime, reverse=True):
            for line in path.read_bytes().splitlines():
                found.append({"of": path.stem} | orjson.loads(line))
                if len(found) >= limit:
                    return found
        return found

    def _publish(self, id_: str, tables: Mapping[str, Any], now: datetime) -> None:
        self._generations.write_manifest(id_, now.isoformat(), tables)
        self._at("manifest written")
        self._generations.make_current(id_)
        self._at("published")

    def _units(self) -> list[list[Path]]:
        """The delta, oldest first: single files, and whole loads."""
        found = []
        for path in sorted((self.root / "delta").iterdir()):
            if path.suffix == ".ndjson":
                found.append([path])
            elif path.suffix != ".part" and path.is_dir():
                found.append(sorted(p for p in path.iterdir() if p.suffix in (".ndjson", ".parquet")))
        return found

    def _remove_empty_loads(self, now: float) -> None:
        for folder in (self.root / "delta").iterdir():
            if folder.suffix == ".ndjson" or not folder.is_dir():
                continue
            with suppress(OSError):  # a load that has just become whole, or is not empty
                if folder.suffix != ".part":
                    folder.rmdir()
                elif now - folder.stat().st_mtime > ABANDONED_S:
                    shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with self._lock("publish.lock"):
            yield

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        with (self.root / name).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


class Loading:
    """A load under way: takes its parts, in order. `scratch` is a folder on the lake's disk, gone after the load."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.scratch = folder, folder / "scratch"
        self.scratch.mkdir()

    def __call__(self, lines: Iterable[Mapping[str, Any]]) -> Path:
        """Lines, as a file that is durable when this returns."""
        return _append(self._folder, lines)

    def add(self, file: Path) -> None:
        """A delta file in Parquet (cohort.arrivals.COLUMNS), which is moved; durable when this returns."""
        sync(file)
        file.replace(self._folder / f"{_new_name()}.parquet")
        sync(self._folder)


def _append(folder: Path, lines: Iterable[Mapping[str, Any]]) -> Path:
    path = folder / f"{_new_name()}.ndjson"
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        for line in lines:
            file.write(orjson.dumps(line) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)
    sync(folder)
    return path


def _new_name() -> str:
    """Sorts by the time it was made."""
    return f"{time.time_ns():020}-{uuid4().hex}"


def _batches(paths: Sequence[Path]) -> Iterator[list[Path]]:
    batch: list[Path] = []
    size = 0
    for path in paths:
        size += path.stat().st_size
        kind = path.suffix
        if batch and (size > FOLD_BYTES[kind] or kind != batch[0].suffix):
            yield batch
            batch, size = [], path.stat().st_size
        batch.append(path)
    yield batch
