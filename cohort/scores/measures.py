"""The measures of a score card: what scikit-learn computes of all rows, and the same of many bootstrap samples.

scikit-learn takes one sample at a time. The replicates are computed here for lines of weights, from rows that are
sorted once; tests hold every line against scikit-learn's answer with `sample_weight`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, brier_score_loss, confusion_matrix, roc_auc_score

from cohort.scores.intervals import Estimate, absent, bootstrapped, wilson
from cohort.scores.judged import CELLS, Judged
from cohort.scores.resampling import Statistic, bootstrap
from cohort.scores.rows import Flags, Floats, Integers

RATES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "prevalence": (("tp", "fn"), CELLS),
    "sensitivity": (("tp",), ("tp", "fn")),
    "specificity": (("tn",), ("tn", "fp")),
    "ppv": (("tp",), ("tp", "fp")),
    "npv": (("tn",), ("tn", "fn")),
}
"""name → cells of the confusion matrix: these, of those."""

RANKED = ("auroc", "auprc", "brier")
"""What is measured of the scores themselves."""

_FUNCTIONS: Mapping[str, Callable[[Flags, Floats], Any]] = {
    "auroc": roc_auc_score,
    "auprc": average_precision_score,
    "brier": brier_score_loss,
}


def confusion(of: Judged) -> dict[str, int]:
    """How many predictions are in each of CELLS."""
    if not len(of):  # scikit-learn refuses to count nothing
        return dict.fromkeys(CELLS, 0)
    tn, fp, fn, tp = (int(n) for n in confusion_matrix(of.truth, of.predicted, labels=[False, True]).ravel())
    return {"tp": tp, "fp": fp, "fn": fn, "tn": tn}


def rates(of: Judged) -> dict[str, Estimate]:
    """RATES with Wilson intervals."""
    cells = confusion(of)
    found = {}
    for name, (part, whole) in RATES.items():
        here = np.logical_or.reduce([of.cell(c) for c in whole])
        found[name] = wilson(sum(cells[c] for c in part), sum(cells[c] for c in whole), of.patients(here))
    return found


def value(name: str, of: Judged) -> float | None:
    """One of RATES or RANKED of all rows, None where it has no value."""
    if name in RATES:
        cells = confusion(of)
        part, whole = (sum(cells[c] for c in names) for names in RATES[name])
        return part / whole if whole else None
    scored = of.scored()
    if not len(scored) or (name != "brier" and not scored.both_classes()):
        return None
    truth = scored.truth.astype(int)
    if name == "brier" and not scored.both_classes():  # scikit-learn cannot tell the classes from one alone
        return float(np.mean((scored.score - truth) ** 2))
    return float(_FUNCTIONS[name](truth, scored.score))


def missing(of: Judged, name: str) -> str:
    """Why a measure has no value."""
    if not len(of):
        return "no outcomes"
    if name in RATES:
        return "nothing to count"
    return "one class alone" if len(of.scored()) else "no scores"


def ranked(of: Judged, among: int = 0) -> dict[str, Estimate]:
    """RANKED with percentile intervals of the bootstrap by patient; `among`: see `replicates_for`."""
    scored = of.scored()
    values = {name: value(name, of) for name in RANKED}
    patients = {name: scored.patients() if name == "brier" else scored.rarer() for name in RANKED}
    asked = [name for name, found in values.items() if found is not None]
    replicates = replicated(scored, asked, among) if asked else {}
    return {
        name: absent(missing(of, name), len(scored), patients[name])
        if found is None
        else bootstrapped(found, replicates[name], len(scored), patients[name])
        for name, found in values.items()
    }


def replicated(of: Judged, names: Sequence[str], among: int = 0) -> dict[str, Floats]:
    """The replicates of the measures `names`; none where all rows are one patient's."""
    if of.patients() < 2:
        return dict.fromkeys(names, np.empty(0))
    return bootstrap(replicable(of, names), of.people, len(of), among)


def replicable(of: Judged, names: Sequence[str]) -> Statistic:
    """The measures `names` of bootstrap samples: from lines of weights of patients, one value a line for each measure,
    nan where a sample has none."""
    wanted = [name for name in (*CELLS, "squares", "scored") if _summed(name, names)]
    sums_of = _per_patient(of, wanted)
    areas_of = _areas(of.scored()) if {"auroc", "auprc"} & set(names) else None

    def statistic(weights: Integers) -> dict[str, Floats]:
        sums = dict(zip(wanted, (weights.astype(np.float64) @ sums_of).T, strict=True))
        areas = areas_of(weights) if areas_of else {}
        return {name: areas[name] if name in areas else _mean(name, sums) for name in names}

    return statistic


def _summed(part: str, names: Sequence[str]) -> bool:
    """Whether what adds up over patients is needed for the measures."""
    return bool(set(names) & set(RATES)) if part in CELLS else "brier" in names


def _per_patient(of: Judged, wanted: Sequence[str]) -> Floats:
    """Shape (people, wanted): each patient's rows in a cell, rows with a score and the sum of their squared errors."""
    scored = ~np.isnan(of.score)
    parts = {"squares": np.where(scored, np.nan_to_num(of.score) - of.truth, 0.0) ** 2, "scored": scored}
    columns = [
        np.bincount(of.patient, parts[name] if name in parts else of.cell(name), minlength=of.people) for name in wanted
    ]
    return np.stack(columns, axis=1) if columns else np.empty((of.people, 0))


def _mean(name: str, sums: Mapping[str, Floats]) -> Floats:
    if name == "brier":
        return _ratio(sums["squares"], sums["scored"])
    part, whole = (sum(sums[cell] for cell in cells) for cells in RATES[name])
    return _ratio(np.asarray(part), np.asarray(whole))


def _areas(of: Judged) -> Statistic:
    """AUROC and average precision of lines of weights. Rows are sorted by falling score once; what rows of one score
    have in common is looked up at the first and last of them, for the positive rows alone."""
    if not of.both_classes():
        return lambda weights: dict.fromkeys(("auroc", "auprc"), np.full(len(weights), np.nan))
    order = np.argsort(-of.score, kind="stable")
    patient, truth, score = of.patient[order], of.truth[order], of.score[order]
    new = np.append(True, score[1:] != score[:-1])
    first = np.flatnonzero(new)
    last = np.append(first[1:], len(score)) - 1
    group = np.cumsum(new) - 1
    positive = np.flatnonzero(truth)
    start, end = first[group[positive]] - 1, last[group[positive]]
    trues = np.cumsum(truth)
    true_start, true_end = np.where(start >= 0, trues[start], 0) - 1, trues[end] - 1

    def statistic(weights: Integers) -> dict[str, Floats]:
        of_rows = weights.astype(np.int32)[:, patient]
        every = np.cumsum(of_rows, axis=1, dtype=np.int32)
        gained = of_rows[:, positive].astype(np.float64)
        true = np.cumsum(gained, axis=1)
        positives = true[:, -1]
        negatives = every[:, -1] - positives
        true_to, every_to = true[:, true_end], every[:, end]
        above = np.where(start >= 0, every[:, start], 0) - np.where(true_start >= 0, true[:, true_start], 0)
        false_to = every_to - true_to
        below = np.einsum("ij,ij->i", gained, negatives[:, None] - (above + false_to) / 2.0)
        precise = np.einsum("ij,ij->i", gained, true_to / np.maximum(every_to, 1))
        return {
            "auroc": _ratio(below, positives * negatives),
            "auprc": _ratio(np.where(negatives > 0, precise, np.nan), positives),
        }

    return statistic


def _ratio(part: Floats, whole: Floats) -> Floats:
    """nan where there is nothing to divide by."""
    shares: Floats = np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return shares
