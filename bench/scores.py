"""Score cards of a million predictions: the card, its slices, drift by month.

    make bench-scores          medians of five runs; `python -m bench.scores --rows N` for another size

Before anything is timed, AUROC and average precision are compared with what rank sums and scikit-learn give, and
replicates with scikit-learn's. Beside it: the same number of bootstrap draws by a loop of scikit-learn's two functions
with `sample_weight`, of which five draws are timed.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, roc_auc_score

from bench.results_file import Measured, write
from cohort.privacy import Policy
from cohort.scores.asked import Asked
from cohort.scores.card import Target, card
from cohort.scores.judged import judged
from cohort.scores.measures import replicable
from cohort.scores.report import report
from cohort.scores.resampling import drawn, replicates_for
from cohort.scores.rows import OUTCOMES, rows_of

ROWS, RUNS, SEED, LOOPED = 1_000_000, 5, 20260101, 5
TARGET = Target("nodules", "1.0", "", "427359005")


def a_table(rows: int) -> pa.Table:
    """A year of predictions of six patients for every ten of them, about a tenth of them confirmed."""
    random = np.random.default_rng(SEED)
    true = random.random(rows) < 0.1
    score = np.clip(random.normal(0.3 + 0.3 * true, 0.15), 0, 1)
    made = {
        "prediction_id": np.char.add("p", np.arange(rows).astype(str)),
        "patient": np.char.add("q", random.integers(rows * 6 // 10, size=rows).astype(str)),
        "study_instance_uid": np.char.add("2.25.", np.arange(rows).astype(str)),
        "model": np.full(rows, TARGET.model),
        "model_version": np.full(rows, TARGET.model_version),
        "finding_code": np.full(rows, TARGET.finding_code),
        "score": score,
        "threshold": np.full(rows, 0.5),
        "predicted": score >= 0.5,
        "outcome": np.array(OUTCOMES)[true.astype(int)],
        "predicted_at": np.datetime64("2026-01-01", "us") + random.integers(365 * 86_400, size=rows) * 1_000_000,
        "reader_agrees": random.random(rows) < 0.9,
        "manufacturer": random.choice(["ACME", "OTHER"], rows),
        "site": random.choice(["North", "South", "East"], rows),
        "age_band": random.choice([f"{d}0-{d}9" for d in range(2, 10)], rows),
        "sex": random.choice(["female", "male"], rows),
    }
    return pa.table({name: pa.array(values) for name, values in made.items()})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=ROWS)
    size = parser.parse_args().rows
    table = a_table(size)
    rows = rows_of(table)
    whole = card(TARGET, rows)
    of = judged(rows)
    ranks, positives = rankdata(of.score), int(of.truth.sum())
    auroc = (ranks[of.truth].sum() - positives * (positives + 1) / 2) / (positives * (len(of) - positives))
    assert abs((whole.measures["auroc"].value or 0) - auroc) < 1e-9
    draws = replicates_for(size)
    weights = next(drawn(of.people, LOOPED, LOOPED))
    ours = replicable(of, ["auroc", "auprc"])(weights)
    started = time.perf_counter()
    for line, w in enumerate(weights):
        assert abs(roc_auc_score(of.truth, of.score, sample_weight=w[of.patient]) - ours["auroc"][line]) < 1e-9
        average = average_precision_score(of.truth, of.score, sample_weight=w[of.patient])
        assert abs(average - ours["auprc"][line]) < 1e-9
    looped = (time.perf_counter() - started) / LOOPED * draws
    exact = Policy(small_cells=1)
    timed = {
        "rows from a table": lambda: rows_of(table),
        "card": lambda: card(TARGET, rows),
        "card and slices by site, scanner, sex, age": lambda: report(rows, Asked.of(TARGET.model), exact),
        "card and drift of nine months": lambda: report(rows, Asked.of(TARGET.model, by=(), drift=True), exact),
    }
    measured = [Measured(what, median_of(run), "s") for what, run in timed.items()]
    measured.append(looped_beside(of, draws, looped))
    measured.append(Measured("peak memory", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, "GB"))
    write("scores", SEED, {"rows": size, "patients": of.people, "draws": draws}, measured, RUNS)


def median_of(run: Callable[[], Any]) -> float:
    """Seconds."""
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def looped_beside(of: Any, draws: int, looped: float) -> Measured:
    """The draws alone, beside the loop."""

    def all_draws() -> None:
        statistic = replicable(of, ["auroc", "auprc"])
        for weights in drawn(of.people, draws, 2):
            statistic(weights)

    seconds = median_of(all_draws)
    return Measured("bootstrap of AUROC and AUPRC", seconds, "s", "loop of scikit-learn", looped, seconds / looped)


if __name__ == "__main__":
    main()
