"""How long it took: from the day asked to the model, from the model to the reader, to the evidence of the outcome."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from cohort.scores.judged import Count, counted
from cohort.scores.rows import Floats, Moments, Rows

QUANTILES = {"p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}


@dataclass(frozen=True)
class Turnaround:
    """Quartiles and the 95th percentile of the times of `predictions`; None where there are none. `before` counts the
    times that would be negative, such as those of a reader who reported before the model had run: they are left out.

    Units   `index_to_prediction_days`, `index_to_evidence_days` in whole days, `prediction_to_reader_hours` in hours
    """

    name: str
    predictions: Count
    before: Count
    p25: float | None
    median: float | None
    p75: float | None
    p95: float | None


def turnaround(rows: Rows) -> tuple[Turnaround, ...]:
    """The three times, of predictions that have both ends of them."""
    predicted_day = rows.predicted_at.astype("datetime64[D]")
    return (
        _of("index_to_prediction_days", _passed(rows.index_date.astype("datetime64[D]"), predicted_day, "D"), rows),
        _of("prediction_to_reader_hours", _passed(rows.predicted_at, rows.reader_at, "us") / 3.6e9, rows),
        _of("index_to_evidence_days", rows.delay_days, rows),
    )


def _passed(start: Moments, end: Moments, unit: Literal["D", "us"]) -> Floats:
    """nan where either is missing."""
    passed = end - start
    return np.where(np.isnat(passed), np.nan, passed / np.timedelta64(1, unit))


def _of(name: str, times: Floats, rows: Rows) -> Turnaround:
    wanted = times >= 0
    found = np.quantile(times[wanted], list(QUANTILES.values())) if wanted.any() else [None] * len(QUANTILES)
    shown = {q: None if v is None else float(v) for q, v in zip(QUANTILES, found, strict=True)}
    return Turnaround(name, counted(rows, wanted), counted(rows, times < 0), **shown)
