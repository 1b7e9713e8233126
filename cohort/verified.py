"""Finds objects of a lake that are not what was written: every one but CURRENT and names has a digest."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from cohort.generation import manifest_problem, names_of
from cohort.lake import Lake
from cohort.store.files import digest

_DIGEST = re.compile(r"-([0-9a-f]{32})\.(?:parquet|duckdb|ndjson|load)$")
OTHER = "its content is not what its name says"


def checked(lake: Lake) -> Iterator[tuple[str, str]]:
    """(key, why it is not what was written, or "") of every object that can be checked, beside those who write.

    Raises SinkUnavailable when the store does not answer.
    """
    manifests = [entry.key for entry in lake.place.store.list("generations")]
    needed: set[str] = set()
    for key in manifests:
        content = _content(lake, key)
        if content is None:
            continue
        damage = manifest_problem(content)
        yield key, damage
        needed |= set() if damage else {f"files/{name}" for name in names_of(content)}
    there = {e.key for folder in ("files", "delta", "loads") for e in lake.place.store.list(folder)}
    for key in sorted(there):
        problem = problem_of(lake, key)
        if problem is not None:
            yield key, problem
    for key in sorted(needed - there):
        if problem_of(lake, key) is None and manifests == [e.key for e in lake.place.store.list("generations")]:
            yield key, "it is missing"
    yield from _pointers(lake, manifests)


def checked_manifests(lake: Lake) -> Iterator[tuple[str, str]]:
    """The same of manifests and CURRENT alone."""
    manifests = [entry.key for entry in lake.place.store.list("generations")]
    for key in manifests:
        content = _content(lake, key)
        if content is not None:
            yield key, manifest_problem(content)
    yield from ((key, problem) for key, problem in _pointers(lake, manifests) if key == "CURRENT")


def _pointers(lake: Lake, manifests: list[str]) -> Iterator[tuple[str, str]]:
    """CURRENT and names say which generation: one that is there, and CURRENT the newest."""
    current = _content(lake, "CURRENT")
    if current is not None:
        newest = max((key.rpartition("/")[2].removesuffix(".json") for key in manifests), key=_number, default="")
        moved = [e.key for e in lake.place.store.list("generations")] != manifests
        fine = moved or current == newest.encode()
        yield "CURRENT", "" if fine else "it does not name the newest generation"
    for entry in lake.place.store.list("names"):
        content = _content(lake, entry.key)
        if content is not None:
            fine = f"generations/{content.decode('ascii', 'replace').strip()}.json" in manifests
            yield entry.key, "" if fine else "it names no generation that is there"


def problem_of(lake: Lake, key: str) -> str | None:
    """Why an object is not what its name says, "" when it is; None when it is gone, or its name says nothing."""
    said = _DIGEST.search(key)
    if said is None:
        return None
    with lake.place.scratch() as scratch:
        try:
            (path,) = lake.place.store.fetch([key], scratch)
            return "" if digest(path) == said[1] else OTHER
        except FileNotFoundError:
            return None
        except OSError:
            return "it cannot be read"


def _content(lake: Lake, key: str) -> bytes | None:
    try:
        return lake.place.store.read(key)[0]
    except FileNotFoundError:
        return None


def _number(id_: str) -> int:
    digits = Path(id_).name[1:]
    return int(digits) if digits.isdecimal() else -1
