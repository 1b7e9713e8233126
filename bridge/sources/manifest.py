"""What came over each association, what became of it and why: one newline-delimited JSON file per association.

    associations/2026-03-01/20260301T091500123456Z-1f0c….ndjson
    {"id": …, "started": …, "peer": …, "calling_ae_title": …, "called_ae_title": …, "contexts": …}
    {"number": 1, "sop_instance_uid": …, "sha256": …, "status": "0000", "verdict": "accepted"}
    {"ended": …, "how": "released", "received": 1, "accepted": 1, "quarantined": 0, "refused": 0}

A file without its last line is of an association that goes on, or of a process that was killed. An association that
brings no objects has a file only once it has ended, and within bounds (`quota`).
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson

from bridge.errors import InvalidQuery

_ID = re.compile(r"\d{8}T\d{12}Z-[0-9a-f]{8}")
LONGEST_SHOWN = 1_000_000
"""Objects of one association that are shown."""


class Verdict(StrEnum):
    """What became of one object. Accepted + quarantined + refused = received, always."""

    ACCEPTED = "accepted"
    FINDINGS = "accepted with findings"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    ROUTED = "routed"
    QUARANTINED = "quarantined"
    REFUSED = "refused"

    @property
    def total(self) -> str:
        """The sum it counts in: accepted, quarantined or refused."""
        return self.value if self in (Verdict.QUARANTINED, Verdict.REFUSED) else "accepted"


class Manifest:
    """Writes one association's file; used by its thread alone. The file is made when its first line after the opening
    comes; lines are in it, not yet fsynced, at once."""

    def __init__(self, folder: Path, now: float, opening: Mapping[str, Any]) -> None:
        started = datetime.fromtimestamp(now, UTC)
        self.id = f"{started:%Y%m%dT%H%M%S%f}Z-{uuid4().hex[:8]}"
        self._path = folder / f"{started:%Y-%m-%d}" / f"{self.id}.ndjson"
        self._opening = {"id": self.id, "started": started.isoformat(), **opening}
        self._descriptor, self._bytes = -1, 0
        self._totals: Counter[str] = Counter()

    @property
    def empty(self) -> bool:
        """Whether no object has come."""
        return not self._totals["received"]

    def add(self, verdict: Verdict, status: int, line: Mapping[str, Any]) -> None:
        """One object that was received. Raises OSError when the disk does not take its line: it is not counted."""
        number = self._totals["received"] + 1
        self._write({"number": number, "status": f"{status:04X}", "verdict": verdict.value, **line})
        self._totals["received"] = number
        self._totals[verdict.total] += 1

    def end(self, now: float, how: str) -> None:
        """The last line; all is fsynced when objects came."""
        totals = {name: self._totals[name] for name in ("received", "accepted", "quarantined", "refused")}
        try:
            self._write({"ended": datetime.fromtimestamp(now, UTC).isoformat(), "how": how, **totals})
            if not self.empty:
                os.fsync(self._descriptor)
        finally:
            if self._descriptor >= 0:
                os.close(self._descriptor)

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._descriptor < 0:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            descriptor = os.open(self._path, flags, 0o600)
            try:
                self._append(descriptor, self._opening)
            except OSError:
                os.close(descriptor)
                self._path.unlink()
                self._bytes = 0
                raise
            self._descriptor = descriptor
        self._append(self._descriptor, line)

    def _append(self, descriptor: int, line: Mapping[str, Any]) -> None:
        """A whole line, or nothing of it."""
        content = orjson.dumps(line) + b"\n"
        written = os.write(descriptor, content)
        if written < len(content):
            os.ftruncate(descriptor, self._bytes)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._bytes += written


def associations(
    folder: Path, limit: int = 100, problem: Callable[[str], None] = lambda _: None
) -> list[dict[str, Any]]:
    """The newest associations, newest first: opening and totals in one object; `how` is missing while one goes on."""
    found: list[dict[str, Any]] = []
    for path in _newest(folder):
        if len(found) >= limit:
            break
        lines = list(_ends(path))
        if not lines:
            problem(path.name)
            continue
        found.append(lines[0] | (lines[-1] if "how" in lines[-1] else {}))
    return found


def association(folder: Path, id_: str) -> dict[str, Any]:
    """One association with its `objects`. Raises InvalidQuery when there is none under this id."""
    if _ID.fullmatch(id_) is None:
        raise InvalidQuery("an association's id is a time and eight digits, as the list shows it")
    path = folder / f"{id_[:4]}-{id_[4:6]}-{id_[6:8]}" / f"{id_}.ndjson"
    try:
        with path.open("rb") as file:
            lines = [
                orjson.loads(line) for line, _ in zip(file, range(LONGEST_SHOWN), strict=False) if line[-1:] == b"\n"
            ]
    except FileNotFoundError:
        raise InvalidQuery("no association is known under this id") from None
    shown: dict[str, Any] = dict(lines[0]) if lines else {"id": id_}
    if lines and "how" in lines[-1]:
        shown |= lines[-1]
    return shown | {"objects": [line for line in lines[1:] if "number" in line]}


def forget(folder: Path, now: float, days: float) -> None:
    """Removes whole days of manifests that are older than so many days."""
    oldest = datetime.fromtimestamp(now, UTC) - timedelta(days=days)
    for day in folder.iterdir() if folder.is_dir() else ():
        if re.fullmatch(r"\d{4}-\d\d-\d\d", day.name) and day.name < f"{oldest:%Y-%m-%d}":
            shutil.rmtree(day, ignore_errors=True)


def _newest(folder: Path) -> Iterator[Path]:
    for day in sorted(folder.iterdir(), reverse=True) if folder.is_dir() else ():
        yield from sorted(day.glob("*.ndjson"), reverse=True)


def _ends(path: Path) -> Iterator[dict[str, Any]]:
    """The first and the last whole line of a manifest."""
    with path.open("rb") as file:
        first = file.readline()
        if not first.endswith(b"\n"):
            return
        yield orjson.loads(first)
        file.seek(max(len(first), path.stat().st_size - 4096))
        last = file.read().rstrip(b"\n").rpartition(b"\n")[2]
    if last:
        try:
            yield orjson.loads(last)
        except orjson.JSONDecodeError:
            return
