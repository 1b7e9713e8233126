"""The cohort's lake as a sink: appends what changed to the lake's delta, durably, one file for each batch.

The file format is the contract with `cohort.lake` (docs/lake.md): NDJSON lines of kind `resource` and `rows`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from uuid import uuid4

import orjson

from bridge.errors import ProjectError, SinkUnavailable
from bridge.model import StudyState


class LakeSink:
    """Writes studies' resources and `dicom_*` rows. `written` is told after each file (it may publish)."""

    name = "lake"
    batch_size = 200
    wants_rows = True

    def __init__(self, root: Path, written: Callable[[], None]) -> None:
        self._delta, self._written = root / "delta", written

    def deliver(self, states: Sequence[StudyState]) -> list[ProjectError | None]:
        """All of them in one file, on disk when this returns. Raises SinkUnavailable when the disk refuses."""
        try:
            self._append(b"".join(orjson.dumps(line) + b"\n" for state in states for line in _lines(state)))
        except OSError as error:
            raise SinkUnavailable(f"sink lake: its delta cannot be written: {error.strerror}") from None
        self._written()
        return [None] * len(states)

    def _append(self, content: bytes) -> None:
        self._delta.mkdir(parents=True, exist_ok=True)
        path = self._delta / f"{time.time_ns():020}-{uuid4().hex}.ndjson"
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
        folder = os.open(self._delta, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _lines(state: StudyState) -> Iterator[dict[str, object]]:
    for resource in state.resources:
        yield {
            "kind": "resource",
            "origin": "bridge",
            "type": resource.resource_type,
            "id": resource.id,
            "revision": resource.revision,
            "deleted": resource.deleted,
            "resource": resource.content,
        }
    for table, rows in state.rows.items():
        yield {
            "kind": "rows",
            "table": table,
            "key": state.study_instance_uid,
            "revision": state.revision,
            "rows": list(rows),
        }
