"""Score cards against published examples, hand computation, statsmodels and brute force."""

from __future__ import annotations

from itertools import product
from math import isfinite
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, cohen_kappa_score, roc_auc_score
from statsmodels.stats.proportion import proportion_confint

from cohort.scores.agreement import agreement, read
from cohort.scores.calibration import BINS
from cohort.scores.intervals import Estimate, wilson
from cohort.scores.judged import Count, judged
from cohort.scores.measures import RANKED, RATES, replicable, value
from cohort.scores.resampling import bootstrap, drawn
from tests.score_rows import card_of, scored, some_rows


def close(found: Estimate, wanted: float, tolerance: float = 1e-12) -> bool:
    return found.value is not None and abs(found.value - wanted) <= tolerance


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_wilson_interval_is_that_of_newcombe_1998_table_1(successes: int, n: int, low: float, high: float) -> None:
    found = wilson(successes, n)
    assert (round(found.low or 0, 4), round(found.high or 0, 4)) == (low, high)


def test_the_wilson_interval_is_that_of_statsmodels() -> None:
    for successes, n in ((0, 1), (1, 1), (3, 7), (999, 1000), (400_000, 1_000_000)):
        found = wilson(successes, n)
        assert (found.low, found.high) == pytest.approx(proportion_confint(successes, n, method="wilson"), abs=1e-9)


def test_the_auroc_of_rated_images_is_that_of_hanley_and_mcneil_1982() -> None:
    normal, abnormal = (33, 6, 6, 11, 2), (3, 2, 2, 11, 33)
    scores = np.repeat([0.1, 0.3, 0.5, 0.7, 0.9] * 2, normal + abnormal)
    found = card_of(scored([0] * 58 + [1] * 51, scores)).measures["auroc"]
    assert close(found, 0.893, 0.0005)
    assert 0.80 < (found.low or 0) < 0.86 < 0.93 < (found.high or 0) < 0.96  # their standard error is 0.032
    assert (found.n, found.patients) == (109, 51)


def test_measures_are_those_of_published_examples() -> None:
    made = card_of(scored([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])).measures
    assert close(made["auprc"], 5 / 6)
    assert close(made["auroc"], 0.75)
    assert close(card_of(scored([0, 1, 1, 0], [0.1, 0.9, 0.8, 0.3])).measures["brier"], 0.0375)


def test_kappa_is_that_of_the_textbook_table() -> None:
    cells = {(True, True): 20, (True, False): 5, (False, True): 10, (False, False): 15}
    rows = [
        {"predicted": model, "reader_agrees": model == reader} for (model, reader), n in cells.items() for _ in range(n)
    ]
    made = card_of(some_rows(rows))
    assert close(made.measures["kappa"], 0.4)
    assert close(made.measures["agreement"], 0.7)
    assert made.readers == {"agreed": Count(35, 35), "disagreed": Count(15, 15)}
    kappa = made.measures["kappa"]
    assert 0.1 < (kappa.low or 0) < 0.25 < 0.55 < (kappa.high or 0) < 0.7  # Fleiss' standard error is 0.13


def test_a_card_is_what_the_hand_computes() -> None:
    outcomes = [
        ("confirmed", 0.9), ("confirmed", 0.8), ("confirmed", 0.2), ("refuted", 0.7), ("refuted", 0.1),
        ("refuted", 0.1), ("refuted", 0.3), ("censored", 0.6), ("pending", 0.95), ("pending", 0.05),
    ]  # fmt: skip
    made = card_of(some_rows([{"outcome": o, "score": s, "predicted": s >= 0.5} for o, s in outcomes]))
    assert made.predictions == Count(10, 10)
    assert {name: count.n for name, count in made.outcomes.items()} == {
        "refuted": 4, "confirmed": 3, "censored": 1, "pending": 2,
    }  # fmt: skip
    assert {name: count.n for name, count in made.confusion.items()} == {"tp": 2, "fp": 1, "fn": 1, "tn": 3}
    wanted = {"prevalence": 3 / 7, "sensitivity": 2 / 3, "specificity": 3 / 4, "ppv": 2 / 3, "npv": 3 / 4}
    assert all(close(made.measures[name], number) for name, number in wanted.items())
    assert close(made.measures["auroc"], (4 + 4 + 2) / 12)
    assert close(made.measures["auprc"], (1 / 1 + 2 / 2 + 3 / 5) / 3)
    assert close(made.measures["brier"], (0.01 + 0.04 + 0.64 + 0.49 + 0.01 + 0.01 + 0.09) / 7)
    # bins (0, 0.1]: two refuted; (0.1, 0.2]: one confirmed; (0.2, 0.3], (0.6, 0.7]: refuted; (0.7, 0.8], (0.8, 0.9]
    assert close(made.measures["ece"], (2 * 0.1 + 0.8 + 0.3 + 0.7 + 0.2 + 0.1) / 7)
    assert [(b.low, b.true.n, b.false.n) for b in made.calibration] == [
        (0.0, 0, 2), (0.1, 1, 0), (0.2, 0, 1), (0.6, 0, 1), (0.7, 1, 0), (0.8, 1, 0),
    ]  # fmt: skip
    assert made.threshold == 0.5


def test_turnaround_is_what_the_hand_computes() -> None:
    from datetime import UTC, date, datetime

    at = datetime(2026, 3, 2, 9, tzinfo=UTC)
    hours = [1, 2, 3, 4, 101, -5]
    rows = [
        {"predicted_at": at, "reader_at": datetime(2026, 3, 2, 9, tzinfo=UTC).replace(day=2) + delta, "delay_days": n}
        for n, delta in enumerate(np.array(hours, "timedelta64[h]").astype(object))
    ]
    rows += [{"reader_at": None, "delay_days": None, "index_date": date(2026, 2, 27), "predicted_at": at}]
    days, reader, evidence = card_of(some_rows(rows)).turnaround
    assert (reader.name, reader.predictions.n, reader.before.n) == ("prediction_to_reader_hours", 5, 1)
    assert (reader.p25, reader.median, reader.p75) == (2.0, 3.0, 4.0)
    assert reader.p95 == pytest.approx(4 + 0.8 * 97)
    assert (evidence.predictions.n, evidence.median) == (6, 2.5)
    assert (days.predictions.n, days.median, days.p95) == (7, 1.0, pytest.approx(1 + 0.7 * 2))


def test_the_curve_is_what_counting_gives() -> None:
    random = np.random.default_rng(5)
    truth, scores = random.random(400) < 0.3, np.round(random.random(400), 2)
    made = card_of(scored(truth, scores))
    assert 40 < len(made.curve) <= 51
    for point in made.curve:
        says = scores >= point.threshold
        assert point.cells["tp"].n == sum(says & truth)
        assert point.cells["fp"].n == sum(says & ~truth)
        assert point.cells["fn"].n == sum(~says & truth)


def random_rows(seed: int, n: int = 300, people: int = 120, decimals: int = 1) -> Any:
    random = np.random.default_rng(seed)
    truth = random.random(n) < 0.3
    scores = np.round(np.clip(random.normal(0.35 + 0.25 * truth, 0.2), 0, 1), decimals)
    return scored(truth, scores, random.integers(people, size=n))


@pytest.mark.parametrize("decimals", [1, 12])
def test_every_replicate_is_what_scikit_learn_computes_of_the_same_weights(decimals: int) -> None:
    of = judged(random_rows(3, decimals=decimals))
    weights = next(drawn(of.people, 20, 20, seed=8))
    found = replicable(of, [*RATES, *RANKED])(weights)
    for line, by_patient in enumerate(weights):
        w = by_patient[of.patient]
        assert found["auroc"][line] == pytest.approx(roc_auc_score(of.truth, of.score, sample_weight=w))
        assert found["auprc"][line] == pytest.approx(average_precision_score(of.truth, of.score, sample_weight=w))
        assert found["brier"][line] == pytest.approx(brier_score_loss(of.truth, of.score, sample_weight=w))
        assert found["sensitivity"][line] == pytest.approx(np.average(of.predicted[of.truth], weights=w[of.truth]))
        assert found["ppv"][line] == pytest.approx(np.average(of.truth[of.predicted], weights=w[of.predicted]))
        assert found["prevalence"][line] == pytest.approx(np.average(of.truth, weights=w))


def test_replicates_do_not_depend_on_how_many_are_computed_at_once() -> None:
    whole = np.concatenate(list(drawn(7, 10, 10)))
    assert np.array_equal(whole, np.concatenate(list(drawn(7, 10, 3))))
    assert np.array_equal(whole.sum(axis=1), [7] * 10)


def test_intervals_are_those_of_a_bootstrap_that_was_written_apart() -> None:
    rows = random_rows(4)
    made, of = card_of(rows).measures, judged(rows)
    random, told = np.random.default_rng(99), {name: [] for name in ("auroc", "auprc", "brier")}
    members = [np.flatnonzero(of.patient == p) for p in range(of.people)]
    for _ in range(1_000):
        here = np.concatenate([members[p] for p in random.integers(of.people, size=of.people)])
        told["auroc"].append(roc_auc_score(of.truth[here], of.score[here]))
        told["auprc"].append(average_precision_score(of.truth[here], of.score[here]))
        told["brier"].append(brier_score_loss(of.truth[here], of.score[here]))
    for name, replicates in told.items():
        width = np.quantile(replicates, 0.975) - np.quantile(replicates, 0.025)
        assert made[name].low == pytest.approx(np.quantile(replicates, 0.025), abs=0.12 * width), name
        assert made[name].high == pytest.approx(np.quantile(replicates, 0.975), abs=0.12 * width), name


def test_drawing_patients_widens_the_interval_where_patients_repeat() -> None:
    random = np.random.default_rng(6)
    truth, scores = random.random(60) < 0.5, random.random(60)
    scores = np.clip(scores + 0.3 * truth, 0, 1)
    repeated = scored(np.repeat(truth, 10), np.repeat(scores, 10), np.repeat(np.arange(60), 10))
    apart = scored(np.repeat(truth, 10), np.repeat(scores, 10))
    wide, narrow = (card_of(rows).measures["auroc"] for rows in (repeated, apart))
    assert close(wide, narrow.value or 0)
    assert (wide.high or 0) - (wide.low or 0) > 2 * ((narrow.high or 0) - (narrow.low or 0))


def test_the_interval_of_kappa_is_that_of_drawing_again() -> None:
    random = np.random.default_rng(7)
    rows = [{"predicted": bool(p), "reader_agrees": bool(a)} for p, a in random.random((200, 2)) < (0.4, 0.8)]
    of = read(some_rows(rows))
    found = agreement(of)["kappa"]
    again = []
    for _ in range(1_000):
        here = random.integers(200, size=200)
        again.append(cohen_kappa_score(of.predicted[here], of.truth[here]))
    low, high = np.quantile(again, (0.025, 0.975))
    assert found.low == pytest.approx(low, abs=0.1 * (high - low))
    assert found.high == pytest.approx(high, abs=0.1 * (high - low))


def test_few_replicates_of_many_rows_give_a_normal_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = random_rows(9, n=2_000, people=2_000)
    whole = card_of(rows).measures["auroc"]
    monkeypatch.setattr("cohort.scores.resampling.FEW_ROWS", 0)
    monkeypatch.setattr("cohort.scores.resampling.DRAWS", 200_000)
    few = card_of(rows).measures["auroc"]
    assert few.value == whole.value
    assert few.low != whole.low
    width = (whole.high or 0) - (whole.low or 0)
    assert few.low == pytest.approx(whole.low, abs=0.2 * width)
    assert few.high == pytest.approx(whole.high, abs=0.2 * width)


@pytest.mark.parametrize(
    ("given", "measure", "why"),
    [
        ([{}, {}], "auroc", "one class alone"),
        ([{}, {}], "auprc", "one class alone"),
        ([{"outcome": "refuted"}] * 3, "auprc", "one class alone"),
        ([{"outcome": "refuted"}] * 3, "sensitivity", "nothing to count"),
        ([{"score": None}, {"score": None, "outcome": "refuted"}], "auroc", "no scores"),
        ([{"score": None}, {"score": None, "outcome": "refuted"}], "ece", "no scores"),
        ([{"outcome": "censored"}, {"outcome": "pending"}], "auroc", "no outcomes"),
        ([{"outcome": "censored"}], "prevalence", "nothing to count"),
        ([{"outcome": "censored"}], "ece", "no outcomes"),
        ([{"reader_agrees": None}], "kappa", "no reader"),
        ([{}, {}], "kappa", "one class alone"),
        ([], "brier", "no outcomes"),
    ],
)
def test_what_has_no_value_says_why(given: list[dict[str, Any]], measure: str, why: str) -> None:
    found = card_of(some_rows(given)).measures[measure]
    assert (found.value, found.low, found.high, found.why) == (None, None, None, why)


def test_one_patient_gives_a_value_without_interval() -> None:
    found = card_of(scored([0, 1], [0.2, 0.7], [1, 1])).measures["auroc"]
    assert (found.value, found.low, found.why) == (1.0, None, "too few patients for an interval")


def test_scores_that_are_all_alike_are_chance() -> None:
    made = card_of(scored([0, 1, 0, 1], [0.5] * 4)).measures
    assert close(made["auroc"], 0.5)
    assert close(made["auprc"], 0.5)


def test_no_number_of_any_small_card_is_nan() -> None:
    kinds = list(product(("confirmed", "refuted", "pending"), (None, 0.0, 1.0), (True, False), (None, True, False)))
    random = np.random.default_rng(2)
    for _ in range(60):
        chosen = [kinds[n] for n in random.integers(len(kinds), size=random.integers(0, 6))]
        names = ("outcome", "score", "predicted", "reader_agrees")
        made = card_of(some_rows([dict(zip(names, one, strict=True)) for one in chosen]))
        for name, found in made.measures.items():
            numbers = [x for x in (found.value, found.low, found.high) if x is not None]
            assert all(isfinite(x) for x in numbers), name
            assert found.why or len(numbers) == 3, name


def test_the_value_of_one_class_is_that_of_the_formula() -> None:
    of = judged(scored([1, 1], [0.6, 0.8]))
    assert value("brier", of) == pytest.approx((0.16 + 0.04) / 2)
    assert bootstrap(replicable(of, ["auroc"]), of.people, 2)["auroc"].size == 1_000
    assert BINS == 10
