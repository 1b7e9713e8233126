"""What people see of a score card under the policy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from cohort.privacy import Policy
from cohort.scores.calibration import Bin
from cohort.scores.card import Card
from cohort.scores.coarse import Coarse
from cohort.scores.curves import Point
from cohort.scores.intervals import Estimate
from cohort.scores.judged import CELLS, Count
from cohort.scores.measures import RATES
from cohort.scores.turnaround import QUANTILES, Turnaround

SIGNIFICANT_DIGITS = 2


def shown(exact: Card, policy: Policy) -> Card | None:
    """The card as it may be shown, None where it is of fewer patients than the threshold. An exact card's curve must be
    at fixed thresholds: others are people's own scores."""
    if policy.small_cells == 1:
        return exact
    coarse = Coarse.of(policy, exact.predictions)
    if not coarse.enough(exact.predictions.patients):
        return None
    return replace(
        exact,
        predictions=coarse.count(exact.predictions),
        outcomes={name: coarse.count(count) for name, count in exact.outcomes.items()},
        confusion={name: coarse.count(count) for name, count in exact.confusion.items()},
        readers={name: coarse.count(count) for name, count in exact.readers.items()},
        measures={name: _measure(name, found, exact, coarse) for name, found in exact.measures.items()},
        calibration=tuple(_bin(b, coarse) for b in exact.calibration if coarse.enough(b.observed.patients)),
        turnaround=tuple(_turnaround(t, coarse) for t in exact.turnaround),
        curve=_curve(exact.curve, coarse),
    )


def in_order(cards: Iterable[Card]) -> list[Card]:
    """The cards of slices by what is shown of them: the order must not tell more than the counts."""
    return sorted(cards, key=lambda c: (-(c.predictions.patients or 0), c.value))


def left_out(reasons: Mapping[str, int], policy: Policy) -> dict[str, int | None]:
    """How many rows could not be used, as coarse as patients are; None for fewer than the threshold."""
    return {reason: policy.count(n) for reason, n in reasons.items()}


def _measure(name: str, found: Estimate, exact: Card, coarse: Coarse) -> Estimate:
    if name in RATES:
        part, whole = RATES[name]
        rest = tuple(c for c in whole if c not in part)
        return coarse.rate(tuple(exact.confusion[c] for c in part), tuple(exact.confusion[c] for c in rest))
    if name == "agreement":
        return coarse.rate((exact.readers["agreed"],), (exact.readers["disagreed"],))
    return coarse.rounded(found)


def _bin(exact: Bin, coarse: Coarse) -> Bin:
    width = exact.high - exact.low
    patients = exact.observed.patients or 0
    mean = coarse.rounded(Estimate((exact.mean_score or 0.0), None, None, 0, patients), scale=width)
    return replace(
        exact,
        true=coarse.count(exact.true),
        false=coarse.count(exact.false),
        mean_score=mean.value,
        observed=coarse.rate((exact.true,), (exact.false,)),
    )


def _curve(exact: tuple[Point, ...], coarse: Coarse) -> tuple[Point, ...]:
    """What the model would have missed is told as all less what it would have found, both coarse: 21 pairs of counts
    with one sum, each made coarse by itself, would tell the sum. At the first threshold, 0, it would have found all."""
    made = []
    for point in exact:
        cells = {}
        for found, missed in (("tp", "fn"), ("fp", "tn")):
            whole, cells[found] = coarse.count(exact[0].cells[found]), coarse.count(point.cells[found])
            left = (whole.n or 0) - (cells[found].n or 0)
            cells[missed] = Count(left if left > 0 else None, None)
        made.append(Point(point.threshold, {name: cells[name] for name in CELLS}))
    return tuple(made)


def _turnaround(exact: Turnaround, coarse: Coarse) -> Turnaround:
    """A quantile needs as many patients as the threshold on both of its sides."""
    people = exact.predictions.patients or 0
    quantiles = {
        name: _digits(getattr(exact, name)) if coarse.enough(int(people * min(q, 1 - q))) else None
        for name, q in QUANTILES.items()
    }
    return Turnaround(exact.name, coarse.count(exact.predictions), coarse.count(exact.before), **quantiles)


def _digits(number: float | None) -> float | None:
    return None if number is None else float(f"{number:.{SIGNIFICANT_DIGITS}g}")
