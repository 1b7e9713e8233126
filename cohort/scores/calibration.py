"""Whether a score of 0.7 comes true in 70 of 100: the calibration curve and its expected error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.calibration import calibration_curve

from cohort.scores.intervals import Estimate, absent, wilson
from cohort.scores.judged import Count, Judged
from cohort.scores.rows import Flags, Integers

BINS = 10


@dataclass(frozen=True)
class Bin:
    """Predictions with a score in (low, high], the first bin from 0 on: those that came true and those that did not,
    their mean score, and the share that came true."""

    low: float
    high: float
    true: Count
    false: Count
    mean_score: float | None
    observed: Estimate


def calibration(of: Judged) -> tuple[Bin, ...]:
    """The bins of equal width that hold predictions, in order."""
    scored = of.scored()
    if not len(scored):
        return ()
    _, means = calibration_curve(scored.truth.astype(int), scored.score, n_bins=BINS, strategy="uniform")
    places = bin_of(scored)
    return tuple(
        _bin(scored, places == place, int(place), float(mean))
        for place, mean in zip(np.unique(places), means, strict=True)
    )


def _bin(of: Judged, here: Flags, place: int, mean: float) -> Bin:
    true = of.count(here & of.truth)
    whole = of.count(here)
    observed = wilson(true.n or 0, whole.n or 0, whole.patients)
    return Bin(place / BINS, (place + 1) / BINS, true, of.count(here & ~of.truth), mean, observed)


def ece(bins: tuple[Bin, ...], of: Judged) -> Estimate:
    """Expected calibration error: the mean distance of mean score and share that came true, over BINS bins of equal
    width, weighted by their predictions (Naeini 2015). Without interval: bootstrap samples are less calibrated than
    what they are drawn from, so their errors lie above it."""
    scored = of.scored()
    if not len(scored):
        return absent("no scores" if len(of) else "no outcomes", 0, 0)
    far = sum((b.observed.n or 0) * abs((b.mean_score or 0.0) - (b.observed.value or 0.0)) for b in bins)
    return Estimate(far / len(scored), None, None, len(scored), scored.patients(), "the bootstrap of it is biased")


def bin_of(of: Judged) -> Integers:
    """Which bin each score is in."""
    edges = np.linspace(0.0, 1.0, BINS + 1)
    return np.searchsorted(edges[1:-1], of.score).astype(np.int64)
