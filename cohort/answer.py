"""The answer to a query: columns, rows, and what it was asked of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """Rows with their columns.

    Result  `columns` (name, DuckDB type); `rows` JSON values (dates and times as ISO 8601, lists as lists);
            `truncated` True when there are more rows than were asked for; `generation` the lake's state it was
            asked of; `elapsed_s` seconds; `notes` what a reader must know of it (docs/privacy.md)
    """

    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[Any, ...], ...]
    truncated: bool
    generation: str
    elapsed_s: float
    notes: tuple[str, ...] = ()
