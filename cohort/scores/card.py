"""The score card of one model version about one finding: of all its predictions, or of a slice of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cohort.scores.agreement import agreement, read
from cohort.scores.calibration import Bin, calibration, ece
from cohort.scores.curves import Point, curve
from cohort.scores.intervals import Estimate
from cohort.scores.judged import Count, counted, counts, judged
from cohort.scores.measures import ranked, rates
from cohort.scores.rows import OUTCOMES, Rows
from cohort.scores.turnaround import Turnaround, turnaround


@dataclass(frozen=True)
class Target:
    """A version of a model, and the finding that it asserts."""

    model: str
    model_version: str
    finding_system: str
    finding_code: str


@dataclass(frozen=True)
class Card:
    """What is known of a model version's predictions.

    `slice` and `value` say which of them ("" for all); `threshold` is that of all rows, None where they have several.
    `outcomes` and `confusion` count predictions and their patients; `readers` those that a reader agreed with or not.
    `measures` are numbers between 0 and 1 (kappa from -1), of the predictions with a known outcome: prevalence,
    sensitivity, specificity, ppv, npv, auroc, auprc, brier, ece; of those with a reader: agreement, kappa.
    """

    target: Target
    slice: str
    value: str
    threshold: float | None
    predictions: Count
    outcomes: Mapping[str, Count]
    confusion: Mapping[str, Count]
    readers: Mapping[str, Count]
    measures: Mapping[str, Estimate]
    calibration: tuple[Bin, ...]
    turnaround: tuple[Turnaround, ...]
    curve: tuple[Point, ...]


def card(
    target: Target, rows: Rows, slice: str = "", value: str = "", *, among: int = 0, fixed_curve: bool = False
) -> Card:
    """The card of these rows, exactly: see `shown` for what people may see of it. Slices have no curve; `among` is
    how many rows all slices of a kind have."""
    of, readers = judged(rows), read(rows)
    bins = calibration(of)
    thresholds = np.unique(rows.threshold[~np.isnan(rows.threshold)])
    return Card(
        target=target,
        slice=slice,
        value=value,
        threshold=float(thresholds[0]) if len(thresholds) == 1 else None,
        predictions=counted(rows),
        outcomes={name: counted(rows, rows.outcome == place) for place, name in enumerate(OUTCOMES)},
        confusion=counts(of),
        readers={
            "agreed": readers.count(readers.truth == readers.predicted),
            "disagreed": readers.count(readers.truth != readers.predicted),
        },
        measures={**rates(of), **ranked(of, among), "ece": ece(bins, of), **agreement(readers, among)},
        calibration=bins,
        turnaround=turnaround(rows),
        curve=() if slice else curve(of, fixed=fixed_curve),
    )
