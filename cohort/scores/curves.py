"""What the model would have found at other thresholds: the points of the ROC and the precision-recall curve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cohort.scores.judged import Count, Judged, counts

POINTS = 51
FIXED = 21


@dataclass(frozen=True)
class Point:
    """Predictions in each of CELLS were the class positive from this score on (`score >= threshold`)."""

    threshold: float
    cells: Mapping[str, Count]


def curve(of: Judged, *, fixed: bool = False) -> tuple[Point, ...]:
    """Points by rising threshold: at most POINTS of the scores there are, evenly spread among the predictions; or,
    `fixed`, at FIXED thresholds from 0 to 1, which tell nothing of the scores there are."""
    scored = of.scored()
    if not len(scored):
        return ()
    if fixed:
        thresholds = np.linspace(0.0, 1.0, FIXED).round(6)
    else:
        thresholds = np.unique(np.quantile(scored.score, np.linspace(0, 1, POINTS), method="lower"))
    return tuple(_point(scored, float(t)) for t in thresholds)


def _point(of: Judged, threshold: float) -> Point:
    at = Judged(of.truth, of.score >= threshold, of.score, of.patient, of.people)
    return Point(threshold, counts(at))
