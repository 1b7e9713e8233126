"""The cohort's lake as a sink: appends what changed to the lake's delta, durably, in one file for each batch.

The lines are the contract with `cohort.lake` (docs/lake.md): kinds `resource` and `rows`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from bridge.errors import ProjectError, SinkUnavailable
from bridge.model import StudyState


class LakeSink:
    """Writes studies' resources and `dicom_*` rows. `append` makes one file of the delta durable; `written` is told
    after each (it may publish)."""

    name = "lake"
    batch_size = 200
    wants_rows = True

    def __init__(self, append: Callable[[Iterable[Mapping[str, object]]], object], written: Callable[[], None]) -> None:
        self._append, self._written = append, written

    def deliver(self, states: Sequence[StudyState]) -> list[ProjectError | None]:
        """All of them in one file, durable when this returns. Raises SinkUnavailable when disk or store refuse."""
        try:
            self._append(line for state in states for line in _lines(state))
        except OSError as error:
            raise SinkUnavailable(f"sink lake: its delta cannot be written: {error.strerror}") from None
        self._written()
        return [None] * len(states)


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
