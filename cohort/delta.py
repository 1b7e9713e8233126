"""Reads delta files: the newest line for every resource and every set of rows."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

Key = tuple[str, str, str]
"""origin, resource type, id."""

Parked = tuple[str, int, str]
"""file (or resource), line number (0: none), reason."""


@dataclass
class Newest:
    """The newest line for every key in a batch of delta files, and what could not be read."""

    resources: dict[Key, dict[str, Any]] = field(default_factory=dict)
    rows: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    parked: list[Parked] = field(default_factory=list)


def read(batch: Iterable[Path]) -> Newest:
    """Of equal revisions the later line wins. A line that is none is parked."""
    newest = Newest()
    with _no_collection():
        _read(batch, newest)
    return newest


@contextmanager
def _no_collection() -> Iterator[None]:
    """Parsed JSON has no cycles, and looking for some takes twice as long as parsing does."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _read(batch: Iterable[Path], newest: Newest) -> None:
    for path in batch:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    take(newest, orjson.loads(line))
                except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
                    newest.parked.append((path.name, number, "not a line of the delta's format"))


def take(newest: Newest, line: dict[str, Any]) -> None:
    """Takes in one line. Raises KeyError, TypeError or ValueError for one that is none."""
    revision = int(line["revision"])
    if line["kind"] == "resource":
        key = (str(line["origin"]), str(line["type"]), str(line["id"]))
        if not key[1].isalpha() or not key[1].isascii() or not (line["deleted"] or isinstance(line["resource"], dict)):
            raise ValueError
        held = newest.resources.get(key)
        if held is None or revision >= held["revision"]:
            newest.resources[key] = line
    elif line["kind"] == "rows":
        place = (str(line["table"]), str(line["key"]))
        kept = newest.rows.get(place)
        if kept is None or revision >= kept["revision"]:
            newest.rows[place] = line | {"rows": list(line["rows"])}
    else:
        raise ValueError
