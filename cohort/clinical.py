"""Clinical FHIR into the lake: NDJSON files and folders, gzip too. A bad line is parked, the rest loads."""

from __future__ import annotations

import gzip
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, BinaryIO

import orjson

from bridge.errors import ConfigError, InvalidResource
from cohort import ndjson
from cohort.delta import Parked
from cohort.lake import MAXIMUM_PARKED, Lake, Loading

MAXIMUM_LINE_BYTES = 4_194_304
BATCH_BYTES = 33_554_432
PART_BYTES, BLOCK_BYTES = 268_435_456, 1_048_576
"""A gzip file is unpacked in parts of about so many bytes."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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
    with lake.loading() as loading:
        reader = _Reader(now, loading, counts, parked, len(parked))
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
    """Makes delta files of files, part by part: memory does not grow with the files."""

    now: datetime
    loading: Loading
    counts: Counter[str]
    parked: list[Parked]
    parked_lines: int = 0
    batch: list[Delta] = field(default_factory=list)
    batch_bytes: int = 0

    def read(self, file: Path, kind: Callable[[bytes, datetime], list[Delta]]) -> Iterator[int]:
        """Takes in one file; yields the bytes read of it now and then."""
        try:
            with file.open("rb") as raw:
                zipped = _is_gzip(raw)
                if kind is not _resource_lines:
                    yield from self._lines(file, raw, kind)
                elif zipped:
                    yield from self._unpacked(file, raw)
                else:
                    self._part(file, file, 0)
                    yield file.stat().st_size
        except (EOFError, zlib.error, gzip.BadGzipFile):
            self._park((str(file), 0, "the gzip file is damaged or cut off: what comes before is loaded"))

    def _lines(self, file: Path, raw: BinaryIO, kind: Callable[[bytes, datetime], list[Delta]]) -> Iterator[int]:
        for number, line in _lines(gzip.GzipFile(fileobj=raw) if _is_gzip(raw) else raw):
            self._take(file, number, line, kind)
            if self.batch_bytes >= BATCH_BYTES:
                self.flush()
                yield raw.tell()

    def _unpacked(self, file: Path, raw: BinaryIO) -> Iterator[int]:
        """A gzip file, whose checksums DuckDB does not look at, in parts that end with a line."""
        part, before, ended = self.loading.scratch / "part.ndjson", 0, False
        with gzip.GzipFile(fileobj=raw) as unpacked:
            while not ended:
                try:
                    ended = _copy_part(unpacked, part)
                finally:  # what comes before damage counts
                    before += self._part(file, part, before)
                yield raw.tell()

    def _part(self, file: Path, part: Path, before: int) -> int:
        """Takes in a file, or a part of one after so many lines. Result: lines in it, where it is only a part."""
        self.flush()
        made = self.loading.scratch / "part.parquet"
        converted = ndjson.convert(part, made, _microseconds(self.now), MAXIMUM_LINE_BYTES)
        if converted is not None:
            self.counts.update(converted.counts)
            if converted.counts:
                self.loading.add(made)
        odd = None if converted is None else frozenset(converted.odd)
        if odd or odd is None:
            with part.open("rb") as raw:
                for place, (number, line) in enumerate(_lines(raw)):
                    if odd is None or place in odd:
                        self._take(file, before + number, line, _resource_lines)
                    if self.batch_bytes >= BATCH_BYTES:
                        self.flush()
        return 0 if part == file else _count_lines(part)

    def flush(self) -> None:
        if self.batch:
            self.loading(self.batch)
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


def _lines(lines: IO[bytes] | gzip.GzipFile) -> Iterator[tuple[int, bytes]]:
    """(number, line) without blank lines; a longer line than allowed comes as its first bytes, too long to pass."""
    number = 0
    while line := lines.readline(MAXIMUM_LINE_BYTES + 1):
        number += 1
        while len(line) > MAXIMUM_LINE_BYTES and not line.endswith(b"\n"):
            rest = lines.readline(MAXIMUM_LINE_BYTES)
            if not rest or rest.endswith(b"\n"):
                break
        if line.strip():
            yield number, line


def _copy_part(source: gzip.GzipFile, target: Path) -> bool:
    """Writes the next PART_BYTES and what is left of the line then; of a damaged file, the whole lines before the
    damage. Result: whether that was all."""
    with target.open("wb") as part:
        whole = 0
        try:
            while part.tell() < PART_BYTES:
                block = source.read1(BLOCK_BYTES)  # what was unpacked before damage is given
                whole = part.tell() + block.rfind(b"\n") + 1 if b"\n" in block else whole
                part.write(block)
                if not block:
                    return True
            while rest := source.readline(BLOCK_BYTES):
                part.write(rest)
                if rest.endswith(b"\n"):
                    return False
        except (EOFError, zlib.error, gzip.BadGzipFile):
            part.truncate(whole)
            raise
    return True


def _count_lines(file: Path) -> int:
    with file.open("rb") as raw:
        return sum(block.count(b"\n") for block in iter(lambda: raw.read(BLOCK_BYTES), b""))


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
    return (moment - _EPOCH) // timedelta(microseconds=1)
