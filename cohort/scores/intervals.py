"""Numbers with the interval they lie in, and why there is none where there is none."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import numpy as np
from scipy.stats import binomtest, norm

from cohort.scores.rows import Floats

CONFIDENCE = 0.95
PERCENTILES_FROM = 500


@dataclass(frozen=True)
class Estimate:
    """A number, the ends of its 95% interval, and of how many predictions it is.

    `patients` are those of the smallest group that it rests on: of the rarer class for an AUROC. `why` says what is
    missing where there is no value or no interval; it is "" where both are there.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int | None
    patients: int | None
    why: str = ""

    def __post_init__(self) -> None:
        if not all(isfinite(x) for x in (self.value, self.low, self.high) if x is not None):
            raise ValueError("an estimate is a finite number or None")


def absent(why: str, n: int | None = None, patients: int | None = None) -> Estimate:
    """No number, and why."""
    return Estimate(None, None, None, n, patients, why)


def wilson(successes: int, n: int, patients: int | None = None) -> Estimate:
    """A proportion with its Wilson score interval, without continuity correction (Wilson 1927).

    >>> found = wilson(81, 263)
    >>> f"{found.value:.4f} {found.low:.4f} {found.high:.4f}"
    '0.3080 0.2553 0.3662'
    """
    if n == 0:
        return absent("nothing to count", 0, 0)
    found = binomtest(successes, n).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(successes / n, float(found.low), float(found.high), n, patients)


def bootstrapped(value: float, replicates: Floats, n: int, patients: int, least: float = 0.0) -> Estimate:
    """A number between `least` and 1 with the interval of its bootstrap replicates; nan among these are replicates in
    which it has no value, such as an AUROC of one class alone.

    From PERCENTILES_FROM replicates on it is the percentile interval; of fewer, which stand for very many rows, the
    normal one with the replicates' standard deviation: the outermost of a hundred would be chance.
    """
    defined = replicates[np.isfinite(replicates)]
    if 2 * len(defined) < len(replicates) or len(defined) < 2:
        return Estimate(value, None, None, n, patients, "too few patients for an interval")
    tail = (1 - CONFIDENCE) / 2
    if len(replicates) >= PERCENTILES_FROM:
        low, high = np.quantile(defined, (tail, 1 - tail))
    else:
        low, high = norm.interval(CONFIDENCE, value, np.std(defined, ddof=1) or np.finfo(float).tiny)
    return Estimate(value, max(float(low), least), min(float(high), 1.0), n, patients)
