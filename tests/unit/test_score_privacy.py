"""What a score card tells of few patients."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import orjson
import pytest

from cohort.privacy import Policy
from cohort.scores.asked import Asked
from cohort.scores.coarse import FEW
from cohort.scores.intervals import wilson
from cohort.scores.report import Report, report
from cohort.scores.rows import Rows
from tests.score_rows import scored, some_rows

SAFE, EXACT = Policy(), Policy(small_cells=1)


def cells(tp: int, fp: int, fn: int, tn: int, **rest: Any) -> list[dict[str, Any]]:
    """Rows of a confusion matrix, each about a patient of its own."""
    kinds = [(tp, True, "confirmed"), (fp, True, "refuted"), (fn, False, "confirmed"), (tn, False, "refuted")]
    return [
        {"predicted": says, "outcome": outcome, "score": 0.9 if says else 0.1} | rest
        for n, says, outcome in kinds
        for _ in range(n)
    ]


def made(rows: Rows, policy: Policy = SAFE, **asked: Any) -> Report:
    return report(rows, Asked.of("nodules", **asked), policy)


def test_rates_are_made_of_the_counts_that_are_shown() -> None:
    (card,) = made(some_rows(cells(57, 23, 13, 407)), by=()).cards
    assert {name: count.n for name, count in card.confusion.items()} == {"tp": 50, "fp": 20, "fn": 10, "tn": 400}
    found = card.measures["sensitivity"]
    assert found.value == pytest.approx(54.5 / (54.5 + 14.5))
    assert (found.low, found.high) == (wilson(50, 69).low, wilson(59, 69).high)
    assert found.n == 60
    assert (found.low or 1) < 57 / 70 < (found.high or 0)


def test_what_is_shown_is_the_same_for_every_number_in_a_small_cell() -> None:
    told = {
        orjson.dumps(made(some_rows(cells(57, 23, fn, 407 - fn)), by=()).cards[0].measures["sensitivity"])
        for fn in range(10)
    }
    assert len(told) == 1


@pytest.mark.parametrize("few", [0, 3, 9])
def test_a_class_of_few_patients_says_the_same_as_one_of_none(few: int) -> None:
    (card,) = made(some_rows(cells(few, 0, 0, 300)), by=()).cards
    for name in ("auroc", "auprc", "sensitivity"):
        assert (card.measures[name].value, card.measures[name].n, card.measures[name].why) == (None, None, FEW)
    assert card.confusion["tp"].n is None
    assert card.outcomes["confirmed"].patients is None


def test_a_slice_of_few_patients_is_left_out_and_subtraction_does_not_tell_of_it() -> None:
    rows = [*cells(30, 0, 0, 27, sex="female"), *cells(2, 0, 0, 1, sex="male")]
    cards = made(some_rows(rows), by=("sex",)).cards
    assert [(c.value, c.predictions.patients) for c in cards] == [("", 60), ("female", 50)]
    assert cards[0].confusion["tp"].n == cards[1].confusion["tp"].n == 30
    exact = made(some_rows(rows), EXACT, by=("sex",)).cards
    assert [(c.value, c.predictions.patients) for c in exact] == [("", 60), ("female", 57), ("male", 3)]


def test_counts_of_several_rows_for_each_patient_are_as_coarse_as_their_patients() -> None:
    rows = some_rows([one | {"patient": f"q{n % 12}"} for n, one in enumerate(cells(30, 0, 0, 30))])
    (card,) = made(rows, by=()).cards
    assert (card.predictions.n, card.predictions.patients) == (50, 10)


def test_a_report_of_fewer_patients_than_the_threshold_is_empty() -> None:
    rows = some_rows([one | {"patient": f"q{n % 9}"} for n, one in enumerate(cells(300, 10, 10, 300))])
    found = made(rows, drift=True, versions=True)
    assert (found.cards, found.drift, found.comparisons) == ((), (), ())
    assert "fewer than 10 patients" in found.notes[0]


def test_numbers_that_are_more_than_counts_are_rounded_to_what_ten_patients_move() -> None:
    random = np.random.default_rng(1)
    truth = random.random(3_000) < 0.4
    scores = np.clip(random.normal(0.4 + 0.2 * truth, 0.15), 0, 1)
    exact, coarse = (made(scored(truth, scores), policy, by=()).cards[0] for policy in (EXACT, SAFE))
    for name, step in (("auroc", 0.01), ("auprc", 0.01), ("brier", 0.005), ("ece", 0.005)):
        found, true = coarse.measures[name], exact.measures[name]
        assert abs((found.value or 0) - (true.value or 0)) <= step / 2
        assert (found.value or 0) / step == pytest.approx(round((found.value or 0) / step))
        if true.low is not None and true.high is not None:
            assert (found.low or 1) <= true.low < true.high <= (found.high or 0)
    assert [p.threshold for p in coarse.curve] == pytest.approx(np.linspace(0, 1, 21))
    assert all(b.mean_score is None or b.low <= b.mean_score <= b.high for b in coarse.calibration)


def test_quantiles_of_times_need_as_many_patients_on_both_sides() -> None:
    found = [made(some_rows(cells(n, 0, 0, 0)), by=()).cards[0].turnaround[2] for n in (19, 20, 199, 200)]
    assert [(t.median is None, t.p95 is None) for t in found] == [
        (True, True), (False, True), (False, True), (False, False),
    ]  # fmt: skip


def test_a_curve_does_not_tell_the_sum_that_all_of_its_points_have() -> None:
    random = np.random.default_rng(3)
    told = []
    for confirmed in (400, 409):
        truth = np.arange(900) < confirmed
        scores = np.where(truth, random.random(900), 0.4 * random.random(900))
        (card,) = made(scored(truth, scores), by=()).cards
        told.append({(p.cells["tp"].n or 0) + (p.cells["fn"].n or 0) for p in card.curve})
    assert told == [{400}, {400}]


def test_words_of_few_patients_in_both_windows_are_not_named() -> None:
    rows = [
        one | {"site": "Small" if n % 100 == 0 else "North", "predicted_at": f"2026-0{1 + n % 6}-05T10:00:00Z"}
        for n, one in enumerate(cells(300, 100, 100, 300))
    ]
    rows = [one | {"predicted_at": np.datetime64(one["predicted_at"][:-1], "us").astype(object)} for one in rows]
    found = made(some_rows(rows), by=(), since=date(2026, 4, 1)).drift
    (site,) = (s for s in found[0].shifts if s.what == "site")
    assert [name for name, _, _ in site.bins] == ["North"]


def numbers(value: Any, name: str = "") -> Any:
    """Every count in a report's JSON."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from numbers(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from numbers(inner, name)
    elif name in ("n", "patients"):
        yield value


@pytest.mark.parametrize("seed", range(2))
def test_no_count_of_any_report_is_small_or_fine(seed: int) -> None:
    random = np.random.default_rng(seed)
    n = 900
    rows = []
    for _ in range(n):
        true, month = random.random() < 0.3, int(random.integers(1, 7))
        score = float(np.clip(random.normal(0.4 + 0.2 * true, 0.2), 0, 1))
        rows.append(
            {
                "patient": f"q{random.integers(600)}", "outcome": "confirmed" if true else "refuted", "score": score,
                "predicted": score > 0.5, "site": random.choice(["North", "South", "East"], p=[0.9, 0.09, 0.01]),
                "sex": random.choice(["female", "male"]), "reader_agrees": bool(random.random() < 0.9),
                "model_version": random.choice(["1.0", "1.1"]), "study_instance_uid": f"2.25.{random.integers(400)}",
                "predicted_at": np.datetime64(f"2026-{month:02}-05T10:00", "us").astype(object),
            }
        )  # fmt: skip
    found = made(some_rows(rows), drift=True, versions=True)
    told = list(numbers(orjson.loads(orjson.dumps(found))))
    assert len(told) > 300
    assert all(count is None or count % 10 == 0 for count in told)
    assert found.drift
    assert not [v for c in found.cards for v in c.outcomes.values() if v.patients == 0]
