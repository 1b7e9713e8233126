"""How coarse the numbers of a score card are, where counts of few patients are hidden.

Counts are as coarse as every count (cohort.privacy), and rates are computed of nothing but coarse counts: what a rate
tells, the counts beside it tell too. Numbers that are made of more than counts are rounded to a step that so many
patients as the threshold could move them by.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, floor, log10

from cohort.privacy import Policy
from cohort.scores.intervals import Estimate, absent, wilson
from cohort.scores.judged import Count

FEW = "few patients, or none"
COARSEST = 0.1
"""A step larger than this would tell nothing of a number between 0 and 1."""


@dataclass(frozen=True)
class Coarse:
    """A policy, and how many predictions one patient of what is shown has on average, rounded up."""

    policy: Policy
    rows_each: int

    @classmethod
    def of(cls, policy: Policy, whole: Count) -> Coarse:
        return cls(policy, max(1, ceil((whole.n or 0) / max(whole.patients or 0, 1))))

    def enough(self, patients: int | None) -> bool:
        return (patients or 0) >= self.policy.small_cells

    def count(self, exact: Count) -> Count:
        """Predictions and patients as they may be shown."""
        n, patients = exact.n or 0, exact.patients or 0
        return Count(self.policy.facts(n, patients), self.policy.count(patients))

    def span(self, exact: Count) -> tuple[int, int]:
        """Between which two counts of predictions everything lies that is shown as this one is."""
        shown = self.count(exact).n
        if shown is None:
            return 0, (self.policy.small_cells - 1) * self.rows_each
        return shown, shown + self.policy.step(exact.n or 0, exact.patients or 0) - 1

    def rate(self, part: tuple[Count, ...], rest: tuple[Count, ...]) -> Estimate:
        """The share of `part` in both. The value is in the middle of what the shown counts leave open; the interval
        is from the lower Wilson limit of the smallest share to the upper one of the largest."""
        (part_low, part_high), (rest_low, rest_high) = (self._sum(cells) for cells in (part, rest))
        if part_low + rest_low == 0:
            return absent(FEW)
        middle = (part_low + part_high) / (part_low + part_high + rest_low + rest_high)
        low, high = wilson(part_low, part_low + rest_high).low, wilson(part_high, part_high + rest_low).high
        return Estimate(middle, low, high, part_low + rest_low, None)

    def rounded(self, exact: Estimate, scale: float = 1.0) -> Estimate:
        """A number that one patient of `patients` moves by `scale / patients` at most, and its interval, widened to
        whole steps."""
        if exact.value is None or not self.enough(exact.patients):
            return absent(FEW)
        step = self.step(exact.patients or 0, scale)
        if step > COARSEST * scale * (1 + 1e-9):
            return absent(FEW)
        n, each = exact.n or 0, self.policy.small_cells * self.rows_each
        return replace(
            exact,
            value=_times(round(exact.value / step), step),
            low=None if exact.low is None else _times(floor(exact.low / step), step),
            high=None if exact.high is None else _times(ceil(exact.high / step), step),
            n=n // each * each,
            patients=self.policy.count(exact.patients or 0),
        )

    def step(self, patients: int, scale: float = 1.0) -> float:
        """What a number of so many patients is a multiple of: 1, 2 or 5 with a power of ten. It is made of the coarse
        count of patients.

        >>> Coarse(Policy(small_cells=10), 1).step(1234), Coarse(Policy(small_cells=10), 1).step(150)
        (0.01, 0.1)
        """
        least = scale * self.policy.small_cells / (self.policy.count(patients) or 1)
        power = 10.0 ** floor(log10(least))
        return next(power * times for times in (1, 2, 5, 10) if power * times >= least * (1 - 1e-9))

    def _sum(self, cells: tuple[Count, ...]) -> tuple[int, int]:
        spans = [self.span(cell) for cell in cells]
        return sum(low for low, _ in spans), sum(high for _, high in spans)


def _times(steps: int, step: float) -> float:
    """A whole number of steps without the noise of binary fractions."""
    return round(steps * step, 12)
