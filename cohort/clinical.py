"""Clinical FHIR into the lake: NDJSON files and folders, gzip too. A bad line is parked, the rest loads."""

from __future__ import annotations

import gzip
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from bridge.errors import ConfigError, InvalidResource
from cohort.delta import Parked
from cohort.lake import MAXIMUM_PARKED, Lake

MAXIMUM_LINE_BYTES = 4_194_304
BATCH_BYTES = 33_554_432


@dataclass(frozen=True)
class LoadReport:
    """counts: resource type → resources loaded; deleted: resources taken away; parked: (file, line number, reason)
    of what could not be used, `parked_lines` of them in all."""

    counts: Mapping[str, int]
    deleted: int
    parked: tuple[Parked, ...]
    parked_lines: int


def load(
    paths: Iterable[Path],
    lake: Lake,
    now: datetime,
    progress: Callable[[int, int], None] | None = None,
    *,
    deleted: Iterable[Path] = (),
    told: Iterable[Parked] = (),
) -> LoadReport:
    """Appends every resource to the lake's delta as one load; `lake.publish` makes all of it visible together.

    A resource is an upsert by type and id; meta.lastUpdated decides which version is newer, else the time of this
    load. Files of `deleted` hold Bundles with DELETE entries (Bulk Data Access: deleted): those resources go.
    `progress` is told bytes read and bytes in all. The lake keeps what could not be used, by file and line, and
    what the sender `told` of.

    Raises  ConfigError when a path does not exist or holds no NDJSON
    """
    files = [(f, _resource_lines) for f in _files(paths)] + [(f, _deletions) for f in deleted]
    total, done = sum(f.stat().st_size for f, _ in files), 0
    counts: Counter[str] = Counter()
    parked = list(told)
    with lake.loading() as append:
        reader = _Reader(now, append, counts, parked, len(parked))
        for file, kind in files:
            for read_bytes in reader.read(file, kind):
                if progress is not None:
                    progress(done + read_bytes, total)
            done += file.stat().st_size
        reader.flush()
    lake.park(f"load-{now:%Y%m%dT%H%M%S.%f}", parked)
    gone = counts.pop(_GONE, 0)
    return LoadReport(dict(sorted(counts.items())), gone, tuple(parked), reader.parked_lines)


_GONE = "-"
Delta = dict[str, Any]


@dataclass
class _Reader:
    """Reads files line by line and appends batches of delta lines: memory does not grow with the files."""

    now: datetime
    append: Callable[[Iterable[Mapping[str, Any]]], str]
    counts: Counter[str]
    parked: list[Parked]
    parked_lines: int = 0
    batch: list[Delta] = field(default_factory=list)
    batch_bytes: int = 0

    def read(self, file: Path, kind: Callable[[bytes, datetime], list[Delta]]) -> Iterator[int]:
        """Takes in one file; yields the bytes read of it now and then."""
        try:
            with file.open("rb") as raw:
                for number, line in _lines(file, raw):
                    self._take(file, number, line, kind)
                    if self.batch_bytes >= BATCH_BYTES:
                        self.flush()
                        yield raw.tell()
        except (EOFError, zlib.error, gzip.BadGzipFile):
            self._park((str(file), 0, "the gzip file is damaged or cut off: what comes before is loaded"))

    def flush(self) -> None:
        if self.batch:
            self.append(self.batch)
        self.batch, self.batch_bytes = [], 0

    def _take(self, file: Path, number: int, line: bytes, kind: Callable[[bytes, datetime], list[Delta]]) -> None:
        try:
            found = kind(line, self.now)
        except InvalidResource as error:
            self._park((str(file), number, str(error)))
            return
        self.batch += found
        self.batch_bytes += len(line)
        self.counts.update(_GONE if one["deleted"] else one["type"] for one in found)

    def _park(self, one: Parked) -> None:
        self.parked_lines += 1
        if len(self.parked) < MAXIMUM_PARKED:
            self.parked.append(one)


def _files(paths: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    asked = list(paths)
    for path in asked:
        if path.is_dir():
            found += sorted(p for p in path.rglob("*") if p.name.endswith((".ndjson", ".ndjson.gz")))
        elif path.is_file():
            found.append(path)
        else:
            raise ConfigError(f"{path}: no such file or folder")
    if asked and not found:
        raise ConfigError("no .ndjson or .ndjson.gz file there")
    return found


def _lines(file: Path, raw: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(number, line) without blank lines; a longer line than allowed comes as its first bytes, too long to pass."""
    lines = gzip.GzipFile(fileobj=raw) if _is_gzip(raw) else raw
    number = 0
    while line := lines.readline(MAXIMUM_LINE_BYTES + 1):
        number += 1
        while len(line) > MAXIMUM_LINE_BYTES and not line.endswith(b"\n"):
            rest = lines.readline(MAXIMUM_LINE_BYTES)
            if not rest or rest.endswith(b"\n"):
                break
        if line.strip():
            yield number, line


def _is_gzip(raw: BinaryIO) -> bool:
    """By the first bytes (RFC 1952 2.3.1), whatever the file's name is."""
    first = raw.read(2)
    raw.seek(0)
    return first == b"\x1f\x8b"


def _object(line: bytes) -> dict[str, Any]:
    if len(line) > MAXIMUM_LINE_BYTES:
        raise InvalidResource(f"longer than {MAXIMUM_LINE_BYTES} bytes")
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise InvalidResource("not JSON") from None
    if not isinstance(found, dict):
        raise InvalidResource("not a FHIR resource: no JSON object")
    return found


def _resource_lines(line: bytes, now: datetime) -> list[Delta]:
    resource = _object(line)
    kind, id_ = _named(resource.get("resourceType"), resource.get("id"))
    return [_line(kind, id_, _revision(resource, now), resource)]


def _deletions(line: bytes, now: datetime) -> list[Delta]:
    """Of a Bundle: what each entry deletes, by request.url TYPE/ID."""
    entries = _object(line).get("entry")
    found = []
    for entry in entries if isinstance(entries, list) else ():
        request = entry.get("request") if isinstance(entry, dict) else None
        if not isinstance(request, dict) or request.get("method") != "DELETE":
            raise InvalidResource("entry.request.method: not DELETE, as a file of deleted resources has it")
        kind, _, id_ = str(request.get("url", "")).rpartition("/")
        found.append(_line(*_named(kind.rpartition("/")[2], id_), _microseconds(now), None))
    return found


def _named(kind: Any, id_: Any) -> tuple[str, str]:
    if not isinstance(kind, str) or not kind.isalpha() or not kind.isascii() or len(kind) > 64:
        raise InvalidResource("resourceType: missing or not a resource type")
    if not isinstance(id_, str) or not id_ or len(id_) > 64:
        raise InvalidResource("id: missing or longer than 64 characters")
    return kind, id_


def _line(kind: str, id_: str, revision: int, resource: Mapping[str, Any] | None) -> Delta:
    return {
        "kind": "resource", "origin": "clinical", "type": kind, "id": id_, "revision": revision,
        "deleted": resource is None, "resource": resource,
    }  # fmt: skip


def _revision(resource: Mapping[str, Any], now: datetime) -> int:
    """Microseconds since the epoch of meta.lastUpdated, else of this load."""
    meta = resource.get("meta")
    updated = meta.get("lastUpdated") if isinstance(meta, dict) else None
    try:
        moment = datetime.fromisoformat(updated) if isinstance(updated, str) else now
        return _microseconds(moment if moment.tzinfo else now)
    except (ValueError, OverflowError):
        return _microseconds(now)


def _microseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000)
