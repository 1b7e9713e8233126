"""Clinical FHIR into the lake: NDJSON files and folders, gzip too. A bad line is parked, the rest loads."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from bridge.errors import ConfigError, InvalidResource
from cohort.lake import Lake

MAXIMUM_LINE_BYTES = 4_194_304
BATCH_LINES = 20_000


@dataclass(frozen=True)
class LoadReport:
    """counts: resource type → resources loaded; parked: (file, line number, reason) of what was not."""

    counts: Mapping[str, int]
    parked: tuple[tuple[str, int, str], ...]


def load(
    paths: Iterable[Path], lake: Lake, now: datetime, progress: Callable[[int, int], None] | None = None
) -> LoadReport:
    """Appends every resource to the lake's delta; `lake.publish` makes them visible.

    A resource is an upsert by type and id; meta.lastUpdated decides which version is newer, else the time of this
    load. `progress` is told bytes read and bytes in all.

    Raises  ConfigError when a path does not exist or holds no NDJSON
    """
    files = _files(paths)
    total = sum(f.stat().st_size for f in files)
    counts: Counter[str] = Counter()
    parked: list[tuple[str, int, str]] = []
    batch: list[dict[str, Any]] = []
    done = 0
    for file in files:
        for number, line in _lines(file):
            try:
                batch.append(_delta_line(line, now))
            except InvalidResource as error:
                parked.append((file.name, number, str(error)))
                continue
            counts[batch[-1]["type"]] += 1
            if len(batch) >= BATCH_LINES:
                lake.append(batch)
                batch = []
        done += file.stat().st_size
        if progress is not None:
            progress(done, total)
    if batch:
        lake.append(batch)
    return LoadReport(dict(sorted(counts.items())), tuple(parked))


def _files(paths: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(p for p in path.rglob("*") if p.name.endswith((".ndjson", ".ndjson.gz")))
        elif path.is_file():
            found.append(path)
        else:
            raise ConfigError(f"{path}: no such file or folder")
    if not found:
        raise ConfigError("no .ndjson or .ndjson.gz file there")
    return found


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """(number, line) without blank lines; a longer line than allowed comes as its first bytes, too long to pass."""
    with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as lines:
        number = 0
        while line := lines.readline(MAXIMUM_LINE_BYTES + 1):
            number += 1
            while len(line) > MAXIMUM_LINE_BYTES and not line.endswith(b"\n"):
                rest = lines.readline(MAXIMUM_LINE_BYTES)
                if not rest or rest.endswith(b"\n"):
                    break
            if line.strip():
                yield number, line


def _delta_line(line: bytes, now: datetime) -> dict[str, Any]:
    if len(line) > MAXIMUM_LINE_BYTES:
        raise InvalidResource(f"longer than {MAXIMUM_LINE_BYTES} bytes")
    try:
        resource = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise InvalidResource("not JSON") from None
    if not isinstance(resource, dict):
        raise InvalidResource("not a FHIR resource: no JSON object")
    kind, id_ = resource.get("resourceType"), resource.get("id")
    if not isinstance(kind, str) or not kind.isalpha() or not kind.isascii():
        raise InvalidResource("resourceType: missing or not a resource type")
    if not isinstance(id_, str) or not id_ or len(id_) > 64:
        raise InvalidResource("id: missing or longer than 64 characters")
    return {
        "kind": "resource",
        "origin": "clinical",
        "type": kind,
        "id": id_,
        "revision": _revision(resource, now),
        "deleted": False,
        "resource": resource,
    }


def _revision(resource: Mapping[str, Any], now: datetime) -> int:
    """Microseconds since the epoch of meta.lastUpdated, else of this load."""
    meta = resource.get("meta")
    updated = meta.get("lastUpdated") if isinstance(meta, dict) else None
    try:
        moment = datetime.fromisoformat(updated) if isinstance(updated, str) else now
        return int(moment.timestamp() * 1_000_000) if moment.tzinfo else int(now.timestamp() * 1_000_000)
    except (ValueError, OverflowError):
        return int(now.timestamp() * 1_000_000)
