"""Who asked what: an append-only log of every question, SELECT and plot, in lines of JSON. It holds no answers.

    LAKE/log/queries.ndjson          the current file
    LAKE/log/queries-TIME.ndjson     full ones, by the time they were closed

A question has two lines with the same `id`: `asked`, durable before it runs, and how it ended. A question that cannot
be logged is not run.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson

from bridge.errors import Unavailable
from cohort.answer import Answer

CURRENT = "queries.ndjson"
MOST_BYTES = 16_777_216
MOST_TEXT = 20_000
"""Characters of a SELECT that are kept."""


@dataclass(frozen=True)
class Asked:
    """A question as the log has it.

    `who` is the user of the operating system for the command, the client's address for the API; `door` the way in;
    `kind` question, attrition, comparison, sql, view, chart, export,
    outcomes, readings, similar, scores or timeline; `what` its name or the SELECT; `generation` the lake's
    state it is asked of; `access` what the settings let it show.
    """

    who: str
    door: str
    kind: str
    what: str
    parameters: Mapping[str, Any]
    generation: str
    access: str


class QueryLog:
    """The log of one lake; any number of processes write to it. Files older than `days` are removed."""

    def __init__(self, folder: Path, days: float = 365.0) -> None:
        self._folder, self._days = folder, days

    @contextmanager
    def asking(self, asked: Asked, now: datetime) -> Iterator[list[Answer]]:
        """Logs a question around its run; the block puts the answer, or all that an export
        is made of, into the list. Raises Unavailable when the log
        cannot be written."""
        id_ = uuid4().hex
        text = asked.what[:MOST_TEXT]
        self._write({"id": id_, "time": now.isoformat(), "event": "asked"} | asked.__dict__ | {"what": text}, now)
        answers: list[Answer] = []
        end: dict[str, Any] = {"id": id_, "event": "failed"}
        try:
            yield answers
            end |= {
                "event": "answered",
                "rows": sum(len(one.rows) for one in answers),
                "seconds": round(sum(one.elapsed_s for one in answers), 3),
            }
        except Exception as error:
            end["reason"] = type(error).__name__
            raise
        finally:
            ended = datetime.now(UTC)
            self._write(end | {"time": ended.isoformat()}, ended)

    def entries(self) -> Iterator[dict[str, Any]]:
        """Every line, oldest first; one that a crash cut short is left out."""
        for path in [*sorted(self._folder.glob("queries-*.ndjson")), self._folder / CURRENT]:
            if path.exists():
                for line in path.read_bytes().splitlines():
                    try:
                        yield orjson.loads(line)
                    except orjson.JSONDecodeError:
                        continue

    def questions(self) -> list[dict[str, Any]]:
        """One entry for each question, oldest first: its line `asked` with how it ended. `event` asked: not ended."""
        found: dict[str, dict[str, Any]] = {}
        for entry in self.entries():
            known = found.setdefault(str(entry.get("id")), {})
            known |= entry if entry.get("event") == "asked" else {k: v for k, v in entry.items() if k != "time"}
        return [entry for entry in found.values() if "who" in entry]

    def _write(self, entry: Mapping[str, Any], now: datetime) -> None:
        line = orjson.dumps(entry) + b"\n"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with (self._folder / "lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._rotate(now)
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
                descriptor = os.open(self._folder / CURRENT, flags, 0o600)
                try:
                    self._whole(descriptor, line)
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
        except OSError as error:
            raise Unavailable(f"the log of questions cannot be written ({type(error).__name__})") from None

    def _whole(self, descriptor: int, line: bytes) -> None:
        """One line; after one that a crash cut short, on a line of its own."""
        size = os.fstat(descriptor).st_size
        if size:
            with (self._folder / CURRENT).open("rb") as held:
                held.seek(size - 1)
                line = line if held.read(1) == b"\n" else b"\n" + line
        if os.write(descriptor, line) != len(line):
            raise OSError("written in part")

    def _rotate(self, now: datetime) -> None:
        current = self._folder / CURRENT
        if current.exists() and current.stat().st_size > MOST_BYTES:
            current.rename(self._folder / f"queries-{now:%Y%m%dT%H%M%S%f}.ndjson")
            oldest = (now - timedelta(days=self._days)).timestamp()
            for path in self._folder.glob("queries-*.ndjson"):
                if path.stat().st_mtime < oldest:
                    path.unlink()
