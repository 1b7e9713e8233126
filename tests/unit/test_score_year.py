"""A simulated year: every number of the score cards equals one that was computed apart, in plain Python; drift is
found.

Nothing of cohort.scores is used for the numbers that are expected.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator
from math import log, sqrt
from pathlib import Path
from statistics import NormalDist, quantiles
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from scipy.stats import rankdata

from cohort.privacy import Policy
from cohort.scores.asked import Asked
from cohort.scores.card import Card
from cohort.scores.report import Report, report
from cohort.scores.rows import Rows, read_rows
from tests.score_rows import a_table
from tests.score_year import DRIFTED_MONTH, Year, a_year

Z = NormalDist().inv_cdf(0.975)
SLICES = {
    "site": lambda r: r["site"],
    "scanner": lambda r: f"{r['manufacturer']} {r['model_name']}",
    "sex": lambda r: r["sex"],
    "age": lambda r: r["age_band"],
}


@pytest.fixture(scope="module")
def year() -> Year:
    return a_year()


@pytest.fixture(scope="module")
def rows(year: Year, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    file = tmp_path_factory.mktemp("year") / "rows.parquet"
    pyarrow.parquet.write_table(a_table(year.pulled), file)
    return read_rows(file)


@pytest.fixture(scope="module")
def made(rows: Rows) -> Iterator[Report]:
    """Few draws: what is compared here are values; other tests compare intervals."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cohort.scores.resampling.DRAWS", 1)
        patch.setattr("cohort.scores.resampling.FEW_ROWS", 0)
        yield report(rows, Asked.of("nodules", drift=True, versions=True), Policy(small_cells=1))


def wilson(k: int, n: int) -> tuple[float, float, float]:
    p, z2 = k / n, Z * Z
    centre, half = (p + z2 / (2 * n)) / (1 + z2 / n), Z * sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return p, centre - half, centre + half


def rank_auroc(truth: list[bool], scores: list[float]) -> float:
    ranks, positives = rankdata(scores), sum(truth)
    above = sum(r for r, true in zip(ranks, truth, strict=True) if true) - positives * (positives + 1) / 2
    return float(above / (positives * (len(truth) - positives)))


def stepwise_precision(truth: list[bool], scores: list[float]) -> float:
    found = said = 0
    area, positives = 0.0, sum(truth)
    by_score: dict[float, list[bool]] = defaultdict(list)
    for true, score in zip(truth, scores, strict=True):
        by_score[score].append(true)
    for score in sorted(by_score, reverse=True):
        gained = sum(by_score[score])
        found, said = found + gained, said + len(by_score[score])
        area += gained / positives * found / said
    return area


def check(card: Card, rows: list[dict[str, Any]]) -> None:
    """Every value of a card."""
    assert (card.predictions.n, card.predictions.patients) == (len(rows), len({r["patient"] for r in rows}))
    for outcome, count in card.outcomes.items():
        own = [r for r in rows if r["outcome"] == outcome]
        assert (count.n, count.patients) == (len(own), len({r["patient"] for r in own}))
    known = [r for r in rows if r["outcome"] in ("confirmed", "refuted")]
    cells: dict[str, list[str]] = {"tp": [], "fp": [], "fn": [], "tn": []}
    for r in known:
        true = r["outcome"] == "confirmed"
        cells[("t" if true == r["predicted"] else "f") + ("p" if r["predicted"] else "n")].append(r["patient"])
    for name, patients in cells.items():
        assert (card.confusion[name].n, card.confusion[name].patients) == (len(patients), len(set(patients)))
    tp, fp, fn, tn = (len(cells[name]) for name in ("tp", "fp", "fn", "tn"))
    for name, part, whole in (
        ("prevalence", tp + fn, len(known)), ("sensitivity", tp, tp + fn), ("specificity", tn, tn + fp),
        ("ppv", tp, tp + fp), ("npv", tn, tn + fn),
    ):  # fmt: skip
        found = card.measures[name]
        assert (found.value, found.low, found.high) == pytest.approx(wilson(part, whole), abs=1e-12)
        assert found.n == whole
    check_scores(card, [r for r in known if r["score"] is not None])
    check_readers(card, [r for r in rows if r["reader_agrees"] is not None])
    check_times(card, rows)


def check_scores(card: Card, known: list[dict[str, Any]]) -> None:
    truth, scores = [r["outcome"] == "confirmed" for r in known], [r["score"] for r in known]
    assert card.measures["auroc"].value == pytest.approx(rank_auroc(truth, scores), abs=1e-12)
    assert card.measures["auprc"].value == pytest.approx(stepwise_precision(truth, scores), abs=1e-12)
    errors = [(s - t) ** 2 for s, t in zip(scores, truth, strict=True)]
    assert card.measures["brier"].value == pytest.approx(sum(errors) / len(errors), abs=1e-12)
    bins: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for score, true in zip(scores, truth, strict=True):
        bins[next(n for n in range(10) if score <= (n + 1) / 10 + 1e-15)].append((score, true))
    far = 0.0
    for (place, members), told in zip(sorted(bins.items()), card.calibration, strict=True):
        n, true = len(members), sum(t for _, t in members)
        mean = sum(s for s, _ in members) / n
        assert (told.low, told.true.n, told.false.n) == (place / 10, true, n - true)
        assert told.mean_score == pytest.approx(mean, abs=1e-12)
        observed = told.observed
        assert (observed.value, observed.low, observed.high) == pytest.approx(wilson(true, n), abs=1e-9)
        far += n / len(known) * abs(mean - true / n)
    assert card.measures["ece"].value == pytest.approx(far, abs=1e-12)
    found = sorted(s for s, t in zip(scores, truth, strict=True) if t)
    for point in card.curve:
        assert point.cells["tp"].n == len(found) - bisect_left(found, point.threshold)


def check_readers(card: Card, read: list[dict[str, Any]]) -> None:
    table = Counter((r["predicted"], r["predicted"] == r["reader_agrees"]) for r in read)
    n, agreed = len(read), sum(r["reader_agrees"] for r in read)
    model, reader = (table[True, True] + table[True, False]) / n, (table[True, True] + table[False, True]) / n
    chance = model * reader + (1 - model) * (1 - reader)
    assert card.measures["kappa"].value == pytest.approx((agreed / n - chance) / (1 - chance), abs=1e-12)
    found = card.measures["agreement"]
    assert (found.value, found.low, found.high) == pytest.approx(wilson(agreed, n), abs=1e-9)
    assert (card.readers["agreed"].n, card.readers["disagreed"].n) == (agreed, n - agreed)


def check_times(card: Card, rows: list[dict[str, Any]]) -> None:
    read = [r for r in rows if r["reader_at"] is not None]
    times = {
        "index_to_prediction_days": [(r["predicted_at"].date() - r["index_date"]).days for r in rows],
        "prediction_to_reader_hours": [(r["reader_at"] - r["predicted_at"]).total_seconds() / 3600 for r in read],
        "index_to_evidence_days": [r["delay_days"] for r in rows if r["delay_days"] is not None],
    }
    for told in card.turnaround:
        wanted = [t for t in times[told.name] if t >= 0]
        assert (told.predictions.n, told.before.n) == (len(wanted), len(times[told.name]) - len(wanted))
        hundredths = quantiles(wanted, n=100, method="inclusive")
        for name, place in (("p25", 25), ("median", 50), ("p75", 75), ("p95", 95)):
            assert getattr(told, name) == pytest.approx(hundredths[place - 1], abs=1e-9)


def test_late_corrected_and_repeated_rows_leave_one_for_each_prediction(year: Year, rows: Rows) -> None:
    assert len(year.final) == len(rows) == 100_000
    assert len(year.pulled) > 190_000
    assert rows.left_out == {"replaced by a later row, or the same row again": len(year.pulled) - 100_000}


def test_every_number_of_every_card_equals_an_independent_one(year: Year, made: Report) -> None:
    seen = 0
    for card in made.cards:
        own = [r for r in year.final.values() if r["model_version"] == card.target.model_version]
        check(card, [r for r in own if SLICES[card.slice](r) == card.value] if card.slice else own)
        seen += 1
    assert seen == 2 * (1 + 4 + 2 + 2 + 3)


def index(first: list[Any], second: list[Any]) -> float:
    one, other = Counter(first), Counter(second)
    total = 0.0
    for word in {*one, *other}:
        p, q = max(one[word], 0.5) / len(first), max(other[word], 0.5) / len(second)
        total += (q - p) * log(q / p)
    return total


def test_the_drift_planted_in_september_is_found_and_none_before(year: Year, made: Report) -> None:
    scored, scanner = defaultdict(dict), defaultdict(dict)
    for drift in made.drift:
        version, month = drift.target.model_version, drift.window.first_day.month
        levels = {s.what: s.level for s in drift.shifts}
        scored[version][month], scanner[version][month] = levels.pop("score"), levels.pop("scanner")
        assert set(levels.values()) == {"none"}
        own = [r for r in year.final.values() if r["model_version"] == version]
        before = [r for r in own if r["predicted_at"].month <= 3]
        here = [r for r in own if r["predicted_at"].month == month]
        psi = {s.what: s.psi for s in drift.shifts}
        for name, word in SLICES.items():
            assert psi[name] == pytest.approx(index(list(map(word, before)), list(map(word, here))), abs=1e-9)
    drifted = set(range(DRIFTED_MONTH, 13))
    assert {v: {m for m, told in months.items() if told != "none"} for v, months in scored.items()} == {
        "1.0": drifted,
        "2.0": set(),
    }
    assert {v: {m for m, told in months.items() if told == "large"} for v, months in scanner.items()} == {
        "1.0": drifted,
        "2.0": drifted,
    }


def test_the_change_of_specificity_is_that_of_the_new_scanner(year: Year, made: Report) -> None:
    for drift in made.drift:
        version, month = drift.target.model_version, drift.window.first_day.month
        refuted = [r for r in year.final.values() if r["model_version"] == version and r["outcome"] == "refuted"]
        first = [not r["predicted"] for r in refuted if r["predicted_at"].month <= 3]
        second = [not r["predicted"] for r in refuted if r["predicted_at"].month == month]
        change = next(c for c in drift.changes if c.measure == "specificity")
        wanted = sum(second) / len(second) - sum(first) / len(first)
        assert change.difference.value == pytest.approx(wanted, abs=1e-12)
        if version == "1.0" and month >= DRIFTED_MONTH:
            assert change.clear
            assert (change.difference.high or 0) < -0.1


def test_the_versions_are_compared_on_the_same_studies(year: Year, made: Report) -> None:
    (found,) = made.comparisons
    by_study: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for r in year.final.values():
        if r["outcome"] in ("confirmed", "refuted"):
            by_study[r["study_instance_uid"]][r["model_version"]] = r
    pairs = [p for p in by_study.values() if len(p) == 2]
    right = [{v: r["predicted"] == (r["outcome"] == "confirmed") for v, r in p.items()} for p in pairs]
    assert found.predictions.n == len(pairs) - (found.outcomes_differ.n or 0)
    assert found.outcomes_differ.n == 0
    assert found.discordant["second_alone_right"].n == sum(p["2.0"] and not p["1.0"] for p in right)
    assert found.mcnemar.value is not None
    assert found.mcnemar.value < 1e-6
    scored = [p for p in pairs if all(r["score"] is not None for r in p.values())]
    truth = [p["1.0"]["outcome"] == "confirmed" for p in scored]
    areas = [rank_auroc(truth, [p[v]["score"] for p in scored]) for v in ("1.0", "2.0")]
    auroc = next(c for c in found.changes if c.measure == "auroc")
    assert auroc.difference.value == pytest.approx(areas[1] - areas[0], abs=1e-12)
    assert auroc.clear


def test_the_interval_of_the_auroc_is_that_of_drawing_patients_again(year: Year, rows: Rows) -> None:
    """With as many draws as people get, beside forty draws by rank sums."""
    known = [
        r for r in year.final.values()
        if r["model_version"] == "1.0" and r["outcome"] in ("confirmed", "refuted") and r["score"] is not None
    ]  # fmt: skip
    whose: dict[str, list[int]] = defaultdict(list)
    for n, r in enumerate(known):
        whose[r["patient"]].append(n)
    truth, scores = np.array([r["outcome"] == "confirmed" for r in known]), np.array([r["score"] for r in known])
    random, people, areas = np.random.default_rng(3), list(whose.values()), []
    for _ in range(40):
        here = [n for p in random.integers(len(people), size=len(people)) for n in people[p]]
        areas.append(rank_auroc(list(truth[here]), list(scores[here])))
    (card,) = report(rows, Asked.of("nodules@1.0", by=()), Policy(small_cells=1)).cards
    found = card.measures["auroc"]
    assert (found.high or 0) - (found.low or 0) == pytest.approx(2 * Z * np.std(areas, ddof=1), rel=0.4)
    assert (found.low or 1) < rank_auroc(list(truth), list(scores)) < (found.high or 0)


def test_under_the_default_policy_the_same_drift_is_found(rows: Rows) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cohort.scores.resampling.DRAWS", 1)
        found = report(rows, Asked.of("nodules@1.0", by=(), drift=True), Policy())
    levels = {d.window.first_day.month: {s.what: s.level for s in d.shifts} for d in found.drift}
    assert [month for month, told in levels.items() if told["score"] != "none"] == [9, 10, 11, 12]
    assert all(told["scanner"] == "none" for month, told in levels.items() if month < DRIFTED_MONTH)


def test_a_year_is_read_the_same_in_any_order(year: Year, tmp_path: Path) -> None:
    small = a_year(studies=400, patients=300)
    told = []
    for order in (small.pulled, small.pulled[::-1]):
        pyarrow.parquet.write_table(a_table(order), tmp_path / "rows.parquet")
        found = read_rows(tmp_path / "rows.parquet")
        told.append(sorted(zip(np.array(found.patient.names)[found.patient.codes], found.outcome, strict=True)))
    assert told[0] == told[1]
