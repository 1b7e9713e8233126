"""The lake: immutable generations of columnar tables, published by atomic rename, and a delta beside them.

    LAKE/delta/*.ndjson         what writers appended (docs/lake.md)
    LAKE/files/*.parquet        tables and raw resources; never changed, shared by generations
    LAKE/generations/ID.json    manifest of one generation
    LAKE/CURRENT                the id of the newest one
    LAKE/parked/*.ndjson        delta lines that could not be used, with the reason

Any number of processes read; one publishes at a time. Killed anywhere, the next publish goes on: a delta file is
removed only after the generation that holds its content is durable, and folding it twice changes nothing.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson

from bridge.errors import InvalidQuery
from cohort.fold import Fold, FoldResult
from cohort.schema import Column, catalogue

KEPT_GENERATIONS = 5
KEPT_SECONDS = 900.0
"""Younger generations are kept whatever their number: someone may be reading them."""

FOLD_BYTES = 268_435_456
"""Delta bytes folded at once: bounds memory. More is left for the next round of the same publish."""


@dataclass(frozen=True)
class Table:
    """One table of a generation: its file, its rows, its columns."""

    name: str
    file: Path
    rows: int
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class Generation:
    """One immutable state of the lake. Its id is what a result cites."""

    id: str
    created: str
    tables: Mapping[str, Table]


class Lake:
    """One lake folder. `at` is told each stage of publishing (tests kill the process there)."""

    def __init__(self, root: Path, at: Callable[[str], None] = lambda _stage: None) -> None:
        self.root, self._at = root, at
        for name in ("delta", "files", "generations", "parked"):
            (root / name).mkdir(parents=True, exist_ok=True)

    def append(self, lines: Iterable[Mapping[str, Any]]) -> Path:
        """Writes one delta file, durable when this returns."""
        path = self.root / "delta" / f"{time.time_ns():020}-{uuid4().hex}.ndjson"
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            for line in lines:
                file.write(orjson.dumps(line) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
        _sync(path.parent)
        return path

    def pending(self) -> int:
        """How many delta files are not in a generation yet."""
        return sum(1 for _ in (self.root / "delta").glob("*.ndjson"))

    def current(self) -> Generation | None:
        """The newest generation, or None before the first."""
        try:
            id_ = (self.root / "CURRENT").read_text("ascii").strip()
        except FileNotFoundError:
            return None
        return self.generation(id_)

    def generation(self, id_: str) -> Generation:
        """A generation by its id. Raises InvalidQuery when it is not (or no longer) there."""
        if not id_.isalnum():
            raise InvalidQuery("generation: an id is letters and digits")
        try:
            manifest = orjson.loads((self.root / "generations" / f"{id_}.json").read_bytes())
        except FileNotFoundError:
            raise InvalidQuery(f"generation {id_} is not kept (any more)") from None
        schemas = catalogue()
        tables = {
            name: Table(name, self.root / "files" / entry["file"], entry["rows"], schemas[name].columns)
            for name, entry in manifest["tables"].items()
            if name in schemas
        }
        return Generation(manifest["generation"], manifest["created"], tables)

    def publish(self, now: datetime) -> Generation | None:
        """Folds what is pending into the next generation; None when nothing is. One publisher at a time."""
        with self._exclusive():
            published = None
            while batch := self._batch():
                published = self._publish(batch, now)
            return published

    def _batch(self) -> list[Path]:
        batch: list[Path] = []
        size = 0
        for path in sorted((self.root / "delta").glob("*.ndjson")):
            size += path.stat().st_size
            if batch and size > FOLD_BYTES:
                break
            batch.append(path)
        return batch

    def _publish(self, batch: list[Path], now: datetime) -> Generation:
        before = self._manifest()
        number = int(before["generation"][1:]) + 1 if before else 1
        id_ = f"g{number:06}"
        with Fold(self.root / "files", id_, before["files"] if before else {}) as fold:
            result = fold.run(batch)
        self._at("folded")
        self._park(id_, result)
        manifest = {
            "generation": id_,
            "created": now.isoformat(),
            "tables": result.tables,
            "files": result.files,
            "parked": len(result.parked),
        }
        self._write(self.root / "generations" / f"{id_}.json", orjson.dumps(manifest))
        self._at("manifest written")
        self._write(self.root / "CURRENT", id_.encode())
        self._at("published")
        for path in batch:
            path.unlink(missing_ok=True)
        self._at("delta removed")
        self._forget_old(now.timestamp())
        return self.generation(id_)

    def _manifest(self) -> Any:
        current = self.current()
        if current is None:
            return None
        return orjson.loads((self.root / "generations" / f"{current.id}.json").read_bytes())

    def _park(self, id_: str, result: FoldResult) -> None:
        if result.parked:
            lines = [orjson.dumps({"file": f, "line": n, "reason": reason}) for f, n, reason in result.parked]
            self._write(self.root / "parked" / f"{id_}.ndjson", b"\n".join(lines) + b"\n")

    def _write(self, path: Path, content: bytes) -> None:
        part = path.with_name(path.name + ".part")
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        _sync(path.parent)

    def _forget_old(self, now: float) -> None:
        """Removes manifests past the number and age that are kept, then files no manifest names."""
        manifests = sorted((self.root / "generations").glob("*.json"))
        for path in manifests[:-KEPT_GENERATIONS]:
            if now - path.stat().st_mtime > KEPT_SECONDS:
                path.unlink()
        kept = [orjson.loads(p.read_bytes()) for p in (self.root / "generations").glob("*.json")]
        named = {entry["file"] for m in kept for entry in (*m["tables"].values(), *m["files"].values())}
        for file in (self.root / "files").iterdir():
            if file.name not in named:
                file.unlink(missing_ok=True)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with (self.root / "publish.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
