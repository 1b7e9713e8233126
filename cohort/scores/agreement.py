"""How far the readers agreed with the model, whatever became of the patients."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import cohen_kappa_score

from cohort.scores.intervals import Estimate, absent, bootstrapped, wilson
from cohort.scores.judged import CELLS, Judged
from cohort.scores.resampling import Statistic, bootstrap
from cohort.scores.rows import Floats, Integers, Rows


def read(rows: Rows) -> Judged:
    """The predictions that a reader judged; their truth is what the reader saw: the model's class where the reader
    agreed, else the other one."""
    has = rows.reader_agrees >= 0
    codes, patient = np.unique(rows.patient.codes[has], return_inverse=True)
    predicted = rows.predicted[has]
    seen = np.where(rows.reader_agrees[has] == 1, predicted, ~predicted)
    return Judged(seen, predicted, rows.score[has], patient, len(codes))


def agreement(of: Judged, among: int = 0) -> dict[str, Estimate]:
    """Cohen's kappa of model and reader with the percentile interval of the bootstrap by patient, and the share of the
    predictions that they agreed on."""
    if not len(of):
        return dict.fromkeys(("agreement", "kappa"), absent("no reader", 0, 0))
    agreed = int(np.count_nonzero(of.truth == of.predicted))
    return {"agreement": wilson(agreed, len(of), of.patients()), "kappa": _kappa(of, among)}


def _kappa(of: Judged, among: int) -> Estimate:
    if len(np.unique(np.concatenate([of.truth, of.predicted]))) < 2:
        return absent("one class alone", len(of), 0)
    found = float(cohen_kappa_score(of.predicted, of.truth))
    replicates = bootstrap(_kappas(of), of.people, len(of), among)["kappa"] if of.patients() > 1 else np.empty(0)
    return bootstrapped(found, replicates, len(of), of.rarer(), least=-1.0)


def _kappas(of: Judged) -> Statistic:
    """Kappa of lines of weights of patients, nan where all are of one class; as scikit-learn's with `sample_weight`."""
    cells = np.stack([np.bincount(of.patient, of.cell(name), minlength=of.people) for name in CELLS], axis=1)

    def statistic(weights: Integers) -> dict[str, Floats]:
        tp, fp, fn, tn = (weights.astype(np.float64) @ cells).T
        n = tp + fp + fn + tn
        chance = ((tp + fp) * (tp + fn) + (tn + fp) * (tn + fn)) / n**2
        defined = chance < 1
        return {"kappa": np.divide((tp + tn) / n - chance, 1 - chance, out=np.full(len(n), np.nan), where=defined)}

    return statistic
