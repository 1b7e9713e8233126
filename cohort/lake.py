"""The lake: immutable generations of columnar tables, and a delta beside them, in a folder or an S3-compatible store.

    LAKE/delta/*.ndjson         what writers appended (docs/lake.md); a digest of it is part of the name
    LAKE/delta/NAME.load        a whole load: names its parts, which are seen all at once
    LAKE/loads/NAME/*           the parts of loads: NDJSON, and Parquet made of NDJSON
    LAKE/files/*.parquet        files of tables; never changed, shared by generations
    LAKE/files/*.duckdb         copies of the large ones, which questions read
    LAKE/generations/ID.json    manifest of one generation
    LAKE/names/NAME             the id of a generation that is kept
    LAKE/CURRENT                the id of the newest one
    LAKE/parked/*.ndjson        lines that could not be used, with the reason

Any number of processes read. Of several that publish, on one machine or many, one succeeds and the others look again.
Killed anywhere, the next publish goes on: a delta file is removed only after the generation that holds its content is
durable, and folding it twice changes nothing.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson

from bridge.errors import SinkUnavailable
from cohort import compaction
from cohort.delta import Parked
from cohort.fold import Fold
from cohort.generation import Generation, Generations, Head, Listed
from cohort.layers import names_in_tables
from cohort.store import Entry, Store
from cohort.store.files import digest, digest_of
from cohort.store.place import Place, in_folder
from cohort.tables import Tables

FOLD_BYTES = {".ndjson": 67_108_864, ".parquet": 8_589_934_592}
"""Delta bytes folded in one step, by suffix. NDJSON is held in memory; Parquet is read as often as it is needed, and
one step for all of it makes one file of each table. All steps of one publish become visible together."""

ABANDONED_S = 86_400.0
"""A load that has written nothing for so long died."""

MAXIMUM_PARKED = 10_000
"""Parked lines kept of one load or publish; more are counted."""


TRIES = 10
"""Publishers on other machines may be faster so often; then it is tried again later."""


@dataclass(frozen=True)
class _Pending:
    """What is seen together: one delta file, or a whole load with the object that names its parts."""

    parts: tuple[Entry, ...]
    load: str = ""


class Lake:
    """One lake, in a folder or at a place. `at` is told each stage of publishing (tests kill the process there)."""

    def __init__(self, where: Path | Place, at: Callable[[str], None] = lambda _stage: None) -> None:
        self.place, self._at = in_folder(where) if isinstance(where, Path) else where, at
        self._store, self._files = self.place.store, self.place.files
        self._generations = Generations(self._store, self._files)

    @property
    def root(self) -> Path:
        """A folder of this machine for work on the lake: the lake itself, where it is in a folder."""
        return self.place.work

    def check(self) -> None:
        """Raises ConfigError when another version of this program made the lake, or its store cannot publish."""
        self._store.check()
        self._generations.head()

    def append(self, lines: Iterable[Mapping[str, Any]]) -> str:
        """Writes one delta file, durable when this returns. Result: its key."""
        content = _lines(lines)
        key = f"delta/{_new_name(content)}.ndjson"
        self._store.put(key, content)
        return key

    @contextmanager
    def loading(self) -> Iterator[Loading]:
        """Takes the lines of a whole load, bit by bit. All of it becomes visible at once; none, after an error."""
        name = _begun()
        with self.place.scratch() as scratch:
            loading = Loading(self._store, f"loads/{name}-{uuid4().hex}", scratch)
            try:
                yield loading
            except BaseException:
                self._store.delete(loading.parts)
                raise
            if loading.parts:
                content = orjson.dumps(loading.parts)
                self._store.put(f"delta/{name}-{digest_of(content)}.load", content)

    def pending(self) -> int:
        """How many delta files are not in a generation yet."""
        return sum(len(one.parts) for one in self._pending())

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
        """Folds what is pending into the next generation; None when nothing is.

        Raises  SinkUnavailable when a file cannot be made, the store does not answer, or others were always faster
        """
        with self._exclusive():
            for _ in range(TRIES):
                pending = self._pending()
                if not pending:
                    return None
                if self._publish(pending, now):
                    self._store.delete([one.load for one in pending if one.load])
                    self._store.delete([part.key for one in pending for part in one.parts])
                    self._at("delta removed")
                    self._generations.forget_old(now.timestamp())
                    return self._generations.current()
        raise SinkUnavailable("lake: other publishers were always faster, or a file of the lake is missing")

    def compact(self, now: datetime, *, everything: bool = False) -> bool:
        """Makes one file of many where small ones have grown too many or too large, while others publish and read.

        Result  whether a table was compacted, or got a copy. With `everything`, each that is not one whole file is.
        Raises  as `publish`
        """
        with self._lock("compact.lock"), self.place.scratch() as scratch:
            self._sweep(now.timestamp() - ABANDONED_S)
            before = self._generations.head()
            work = compaction.due(before.tables, everything=everything)
            if not work:
                return False
            with compaction.Compaction(self._files, scratch, stamp_of(before)) as run, _others_may_be_faster():
                merged = {table: run.merge(table, entries) for table, entries in work.items()}
                self._at("compacted")
                for _ in range(TRIES):
                    with self._exclusive():
                        if self._put(run, merged, now):
                            self._generations.forget_old(now.timestamp())
                            return True
        raise SinkUnavailable("lake: publishers were always faster than compaction; it is tried again")

    @contextmanager
    def held_still(self) -> Iterator[None]:
        """Nobody on this machine publishes, keeps or forgets meanwhile; writers append."""
        with self._exclusive():
            yield

    def park(self, name: str, parked: Sequence[Parked]) -> None:
        """Keeps lines that could not be used, with their reasons, for a person."""
        if parked:
            kept = [{"file": f, "line": n, "reason": reason} for f, n, reason in parked[:MAXIMUM_PARKED]]
            if len(parked) > MAXIMUM_PARKED:
                kept.append({"file": "", "line": 0, "reason": f"and {len(parked) - MAXIMUM_PARKED} more"})
            self._store.put(f"parked/{name}.ndjson", _lines(kept))

    def parked(self, limit: int) -> list[dict[str, Any]]:
        """What could not be used: `of` (generation or load), `file`, `line` (0: none), `reason`; the newest first."""
        found: list[dict[str, Any]] = []
        for entry in sorted(self._store.list("parked"), key=lambda e: e.modified, reverse=True):
            for line in self._store.read(entry.key)[0].splitlines():
                found.append({"of": Path(entry.key).stem} | orjson.loads(line))
                if len(found) >= limit:
                    return found
        return found

    def _publish(self, pending: Sequence[_Pending], now: datetime) -> bool:
        """False when another publisher was faster."""
        head = self._generations.head()
        with ExitStack() as stack:
            try:
                scratch = stack.enter_context(self.place.scratch())
                tables = stack.enter_context(Tables(self._files, scratch, stamp_of(head), head.tables))
                fold = Fold(tables)
                for batch in filter(None, _batches([part for one in pending for part in one.parts])):
                    with self.place.scratch() as incoming:
                        fold.run(self._store.fetch([part.key for part in batch], incoming))
                made = tables.manifest()
                self._at("folded")
                self._files.keep(sorted(tables.made & names_in_tables(made)))
            except FileNotFoundError:  # somebody has published what was pending, and removed it
                return False
        published = self._generations.publish(head, now.isoformat(), made, self._at)
        if published:
            self.park(head.next_id, fold.parked)
        return published

    def _put(self, run: compaction.Compaction, merged: Mapping[str, compaction.Merged], now: datetime) -> bool:
        """False when a publisher was faster."""
        head = self._generations.head()
        tables = dict(head.tables) | {name: run.put(name, head.tables[name], one) for name, one in merged.items()}
        self._files.keep(sorted(run.made & names_in_tables(tables)))
        run.made.clear()  # a large file is sent once
        return self._generations.publish(head, now.isoformat(), tables, self._at)

    def _pending(self) -> list[_Pending]:
        """The delta, oldest first: single files, and whole loads."""
        found, loads = [], list[Entry]()
        for entry in self._store.list("delta"):
            if entry.key.endswith(".load"):
                loads = loads or self._store.list("loads")
                parts = self._parts(entry.key)
                found.append(_Pending(tuple(one for one in loads if one.key in parts), entry.key))
            elif entry.key.endswith(".ndjson"):
                found.append(_Pending((entry,)))
        return found

    def _parts(self, load: str) -> frozenset[str]:
        try:
            return frozenset(orjson.loads(self._store.read(load)[0]))
        except FileNotFoundError:  # published meanwhile
            return frozenset()

    def _sweep(self, before: float) -> None:
        """Removes what was begun before that moment and never finished: objects, and parts that no load names."""
        self._store.sweep(before)
        whole = {key for one in self._pending() for key in (part.key for part in one.parts)}
        loads: dict[str, list[Entry]] = {}
        for entry in self._store.list("loads"):
            loads.setdefault(entry.key.rpartition("/")[0], []).append(entry)
        for parts in loads.values():
            if all(part.modified < before and part.key not in whole for part in parts):
                self._store.delete([part.key for part in parts])

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with self._lock("publish.lock"):
            yield

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        """One of this machine at a time: others would work for nothing."""
        with (self.root / name).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


class Loading:
    """A load under way: takes its parts, in order. `scratch` is a folder on the lake's disk, gone after the load."""

    def __init__(self, store: Store, folder: str, scratch: Path) -> None:
        self._store, self._folder, self.scratch = store, folder, scratch
        self.parts: list[str] = []

    def __call__(self, lines: Iterable[Mapping[str, Any]]) -> str:
        """Lines, as a file that is durable when this returns. Result: its key."""
        content = _lines(lines)
        self.parts.append(f"{self._folder}/{_new_name(content)}.ndjson")
        self._store.put(self.parts[-1], content)
        return self.parts[-1]

    def add(self, file: Path) -> None:
        """A delta file in Parquet (cohort.arrivals.COLUMNS), which is moved; durable when this returns."""
        self.parts.append(f"{self._folder}/{_begun()}-{digest(file)}.parquet")
        self._store.send(file, self.parts[-1])
        file.unlink(missing_ok=True)


def _lines(lines: Iterable[Mapping[str, Any]]) -> bytes:
    return b"".join(orjson.dumps(line) + b"\n" for line in lines)


def _begun() -> str:
    return f"{time.time_ns():020}"


def _new_name(content: bytes) -> str:
    """Sorts by the time it was made, and says what is in it."""
    return f"{_begun()}-{digest_of(content)}"


def stamp_of(head: Head) -> str:
    """Part of the names of the files that one publish makes."""
    return f"{head.next_id}-{uuid4().hex[:8]}"


@contextmanager
def _others_may_be_faster() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise SinkUnavailable("lake: files were replaced while they were compacted; it is tried again") from None


def _batches(parts: Sequence[Entry]) -> Iterator[list[Entry]]:
    batch: list[Entry] = []
    size = 0
    for part in parts:
        size += part.size
        kind = Path(part.key).suffix
        if batch and (size > FOLD_BYTES[kind] or kind != Path(batch[0].key).suffix):
            yield batch
            batch, size = [], part.size
        batch.append(part)
    yield batch
