"""The measures of two sets of predictions beside each other, with the interval of their differences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cohort.scores.intervals import Estimate, absent, bootstrapped
from cohort.scores.judged import Judged
from cohort.scores.measures import RANKED, RATES, missing, replicable, value
from cohort.scores.resampling import bootstrap
from cohort.scores.rows import Floats, Integers

MEASURES = (*RATES, *RANKED)


@dataclass(frozen=True)
class Change:
    """A measure of the first and of the second set, and second less first. `clear` where the 95% interval of the
    difference does not hold 0."""

    measure: str
    first: float | None
    second: float | None
    difference: Estimate
    clear: bool


def changes(first: Judged, second: Judged) -> tuple[Change, ...]:
    """Every measure. Patients are numbered alike in both and drawn for both at once, so whoever is in both, as all are
    where two versions saw the same studies, counts as paired."""
    values = {name: (value(name, first), value(name, second)) for name in MEASURES}
    asked = [name for name, both in values.items() if None not in both]
    replicates = _differences(first, second, asked) if asked else {}
    made = []
    for name, (before, after) in values.items():
        people, n = min(patients_of(name, of) for of in (first, second)), len(first) + len(second)
        if before is None or after is None:
            difference = absent(missing(first if before is None else second, name), n, people)
        else:
            difference = bootstrapped(after - before, replicates[name], n, people, least=-1.0)
        made.append(Change(name, before, after, difference, clear(difference)))
    return tuple(made)


def clear(difference: Estimate) -> bool:
    """Whether the interval is there and does not hold 0."""
    low, high = difference.low, difference.high
    return low is not None and high is not None and not low <= 0 <= high


def patients_of(name: str, of: Judged) -> int:
    """The patients of the smallest group that a measure rests on."""
    if name in RANKED:
        return of.scored().patients() if name == "brier" else of.scored().rarer()
    return of.patients(np.logical_or.reduce([of.cell(c) for c in RATES[name][1]]))


def _differences(first: Judged, second: Judged, names: list[str]) -> dict[str, Floats]:
    of_first, of_second = replicable(first, names), replicable(second, names)

    def statistic(weights: Integers) -> dict[str, Floats]:
        before, after = of_first(weights), of_second(weights)
        return {name: after[name] - before[name] for name in names}

    return bootstrap(statistic, first.people, len(first) + len(second))
