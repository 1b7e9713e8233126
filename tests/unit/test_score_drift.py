"""Drift and two versions beside each other: known answers, statsmodels, and intervals that were computed apart."""

from __future__ import annotations

import re
import sys
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

from bridge.errors import ConfigError, InvalidQuery
from cohort.privacy import Policy
from cohort.scores.asked import Asked
from cohort.scores.drift import Drift, level, stability_index
from cohort.scores.judged import Count
from cohort.scores.plots import card_plot, drift_plot, slices_plot
from cohort.scores.report import Report, report
from cohort.scores.rows import Rows
from cohort.scores.versions import Comparison, mcnemar
from tests.score_rows import some_rows

EXACT = Policy(small_cells=1)


def rows_by_month(seed: int = 1, each: int = 250, months: int = 6, **of_last: Any) -> list[dict[str, Any]]:
    """Predictions of alike months; those of the last have other values: `score` is added, words are set."""
    random, rows = np.random.default_rng(seed), []
    for month in range(1, months + 1):
        for n in range(each):
            true = random.random() < 0.3
            score = random.normal(0.35 + 0.3 * true, 0.15)
            words = {"site": str(random.choice(["North", "South"])), "sex": str(random.choice(["female", "male"]))}
            if month == months:
                score += of_last.get("score", 0.0)
                words |= {name: word for name, word in of_last.items() if name != "score"}
            score = float(np.clip(score, 0, 1))
            rows.append(
                {"outcome": "confirmed" if true else "refuted", "score": score, "predicted": score >= 0.5}
                | {"predicted_at": datetime(2026, month, 1 + n % 28, 23, 30, tzinfo=UTC)}
                | words
            )
    return rows


def drifts(rows: Rows, **asked: Any) -> tuple[Drift, ...]:
    return report(rows, Asked.of("nodules", by=(), **asked), EXACT).drift


def test_the_stability_index_is_what_the_hand_computes() -> None:
    wanted = (0.4 - 0.5) * np.log(0.4 / 0.5) + (0.6 - 0.5) * np.log(0.6 / 0.5)
    assert stability_index([50, 50], [40, 60]) == pytest.approx(wanted)
    assert stability_index([10, 20, 70], [1, 2, 7]) == pytest.approx(0.0)
    assert stability_index([5, 95], [0, 10]) == pytest.approx(
        (0.05 - 0.05) * 0 + (1 - 0.95) * np.log(1 / 0.95), abs=1e-9
    )
    assert [level(*x) for x in ((0.05, 0.0), (0.2, 0.3), (0.2, 0.1), (0.4, 0.1))] == [
        "none", "none", "moderate", "large",
    ]  # fmt: skip


def test_alike_months_do_not_drift_and_what_changes_is_named() -> None:
    found = drifts(some_rows(rows_by_month(score=0.25, site="West", manufacturer="OTHER")), drift=True)
    assert [d.window.first_day for d in found] == [date(2026, 4, 1), date(2026, 5, 1), date(2026, 6, 1)]
    assert (found[0].reference.first_day, found[0].reference.last_day) == (date(2026, 1, 1), date(2026, 3, 31))
    assert [s.level for d in found[:2] for s in d.shifts] == ["none"] * 12
    assert {s.what: s.level for s in found[2].shifts} == {
        "score": "large", "modality": "none", "site": "large", "scanner": "large", "sex": "none", "age": "none",
    }  # fmt: skip
    changed = {c.measure: c for c in found[2].changes}
    assert changed["specificity"].clear
    assert (changed["specificity"].difference.high or 0) < 0


def test_a_shift_is_over_tenths_of_the_references_scores() -> None:
    rows = some_rows(rows_by_month(score=0.25))
    shift = drifts(rows, drift=True)[2].shifts[0]
    months = rows.predicted_at.astype("datetime64[M]").astype(int) % 12 + 1
    first, last = rows.score[months <= 3], rows.score[months == 6]
    limits = [float(f"{x:.2g}") for x in np.quantile(first, np.arange(0.1, 1, 0.1))]
    p, q = (np.histogram(x, [0, *limits, 1.0000001])[0] for x in (first, last))
    assert [b[1].n for b in shift.bins] == list(p)
    assert [b[2].n for b in shift.bins] == list(q)
    p, q = p / len(first), np.maximum(q, 0.5) / len(last)
    assert shift.psi == pytest.approx(np.sum((q - p) * np.log(q / p)))


def test_two_windows_are_divided_at_a_day() -> None:
    (found,) = drifts(some_rows(rows_by_month(score=0.25)), since=date(2026, 6, 1))
    assert (found.reference.predictions, found.window.predictions) == (Count(1250, 1250), Count(250, 250))
    assert (found.reference.last_day, found.window.first_day) == (date(2026, 5, 31), date(2026, 6, 1))
    assert found.shifts[0].level == "large"
    assert drifts(some_rows(rows_by_month()), since=date(2027, 1, 1)) == ()


def test_the_interval_of_a_change_is_that_of_two_independent_proportions() -> None:
    (found,) = drifts(some_rows(rows_by_month(each=400)), since=date(2026, 6, 1))
    (change,) = (c for c in found.changes if c.measure == "prevalence")
    one, other = change.first or 0, change.second or 0
    error = np.sqrt(one * (1 - one) / 2000 + other * (1 - other) / 400)
    assert change.difference.low == pytest.approx(other - one - 1.96 * error, abs=0.15 * error)
    assert change.difference.high == pytest.approx(other - one + 1.96 * error, abs=0.15 * error)


def test_shifts_of_few_rows_are_not_called_drift() -> None:
    found = drifts(some_rows(rows_by_month(each=12)), drift=True)
    assert any((s.psi or 0) > 0.1 for d in found for s in d.shifts)
    assert {s.level for d in found for s in d.shifts} == {"none"}


def test_months_without_scores_or_outcomes_have_none() -> None:
    rows = [row | {"score": None, "outcome": "pending"} for row in rows_by_month(each=30)]
    found = drifts(some_rows(rows), drift=True)
    assert "score" not in {s.what for d in found for s in d.shifts}
    assert {(c.difference.value, c.difference.why) for d in found for c in d.changes} == {
        (None, "no outcomes"),
    }  # fmt: skip
    assert drifts(some_rows([row | {"predicted_at": None} for row in rows]), drift=True) == ()


def two_versions(seed: int = 4, n: int = 500) -> list[dict[str, Any]]:
    """Version 2.0, which began later, is better on the same studies; 1.0 has fifty studies more."""
    random, rows = np.random.default_rng(seed), []
    for study in range(n + 50):
        true, shared = random.random() < 0.4, random.normal(0, 0.1)
        for version, gain in (("1.0", 0.15), ("2.0", 0.35)):
            if study >= n and version == "2.0":
                continue
            score = float(np.clip(0.4 + gain * true + shared + random.normal(0, 0.1), 0, 1))
            rows.append(
                {"patient": f"q{study // 2}", "study_instance_uid": f"2.25.{study}", "model_version": version}
                | {"outcome": "confirmed" if true else "refuted", "score": score, "predicted": score >= 0.5}
                | {"predicted_at": datetime(2026, int(version[0]), 1, tzinfo=UTC)}
            )
    return rows


def compared(rows: list[dict[str, Any]]) -> Comparison:
    (found,) = report(some_rows(rows), Asked.of("nodules", by=(), versions=True), EXACT).comparisons
    return found


def test_two_versions_are_compared_on_the_studies_of_both() -> None:
    rows = two_versions()
    found = compared(rows)
    assert (found.first.model_version, found.second.model_version) == ("1.0", "2.0")
    assert found.predictions == Count(500, 250)
    pairs: dict[str, dict[str, bool]] = {}
    for row in rows:
        right = row["predicted"] == (row["outcome"] == "confirmed")
        pairs.setdefault(row["study_instance_uid"], {})[row["model_version"]] = right
    both = [p for p in pairs.values() if len(p) == 2]
    table = [[sum(p["1.0"] is a and p["2.0"] is b for p in both) for b in (True, False)] for a in (True, False)]
    assert found.discordant["first_alone_right"].n == table[0][1]
    assert found.discordant["second_alone_right"].n == table[1][0]
    assert found.mcnemar.value == pytest.approx(statsmodels_mcnemar(table, exact=True).pvalue)
    auroc = next(c for c in found.changes if c.measure == "auroc")
    assert auroc.clear
    assert (auroc.difference.low or 0) > 0


def test_the_paired_interval_is_that_of_delong() -> None:
    """DeLong 1988 from the structural components, written out; each study of a patient of its own."""
    rows = [row | {"patient": row["study_instance_uid"]} for row in two_versions()]
    auroc = next(c for c in compared(rows).changes if c.measure == "auroc")
    by = {v: {r["study_instance_uid"]: r for r in rows if r["model_version"] == v} for v in ("1.0", "2.0")}
    studies = sorted(by["2.0"])
    truth = np.array([by["2.0"][s]["outcome"] == "confirmed" for s in studies])
    areas, positive, negative = [], [], []
    for version in ("1.0", "2.0"):
        scores = np.array([by[version][s]["score"] for s in studies])
        wins = np.sign(scores[truth][:, None] - scores[~truth][None, :]) / 2 + 0.5
        areas.append(wins.mean())
        positive.append(wins.mean(axis=1))
        negative.append(wins.mean(axis=0))
    variance = np.cov(positive) / truth.sum() + np.cov(negative) / (~truth).sum()
    error = np.sqrt(variance[0, 0] + variance[1, 1] - 2 * variance[0, 1])
    assert auroc.difference.value == pytest.approx(areas[1] - areas[0])
    assert auroc.difference.low == pytest.approx(areas[1] - areas[0] + norm.ppf(0.025) * error, abs=0.15 * error)
    assert auroc.difference.high == pytest.approx(areas[1] - areas[0] + norm.ppf(0.975) * error, abs=0.15 * error)


def test_the_last_prediction_of_a_version_counts_and_outcomes_that_differ_are_left_out() -> None:
    rows = two_versions()
    rows.append(rows[1] | {"predicted_at": datetime(2026, 3, 1, tzinfo=UTC), "predicted": not rows[1]["predicted"]})
    rows[3] = rows[3] | {"outcome": "refuted" if rows[3]["outcome"] == "confirmed" else "confirmed"}
    before, found = compared(two_versions()), compared(rows)
    assert (found.predictions.n, found.outcomes_differ.n) == (499, 1)
    assert found.discordant != before.discordant


def test_mcnemar_of_nothing_discordant_has_no_p() -> None:
    assert mcnemar(Count(0, 0), Count(0, 0)).why == "no discordant pairs"
    assert mcnemar(Count(6, 6), Count(0, 0)).value == pytest.approx(2 / 64)


def a_report(policy: Policy = EXACT) -> Report:
    rows = rows_by_month(each=120, score=0.2, site="$West_1$")
    return report(some_rows(rows), Asked.of("nodules", drift=True), policy)


@pytest.mark.parametrize("policy", [EXACT, Policy()])
def test_cards_slices_and_drift_are_drawn(policy: Policy) -> None:
    import matplotlib as mpl

    found = a_report(policy)
    with mpl.rc_context({"svg.fonttype": "none"}):
        card = card_plot(found.cards[0]).decode()
        slices = slices_plot([c for c in found.cards if c.slice == "site"]).decode()
        drift = drift_plot(found.drift).decode()
    for words in ("ROC, AUROC 0.", "Precision and recall", "Calibration, Brier", "nodules 1.0", "confirmed"):
        assert words in card
    assert "$West_1$" in slices
    assert "North" in slices
    assert "reference 2026-01-01 to 2026-03-31" in drift
    assert re.search("2026-06", drift)
    for draw in (card_plot(found.cards[0], "png"), drift_plot(found.drift, "png")):
        assert draw.startswith(b"\x89PNG")


def test_what_has_no_numbers_is_drawn_too() -> None:
    rows = some_rows([{"outcome": "pending", "score": None, "threshold": None}] * 3)
    found = report(rows, Asked.of("", drift=True), EXACT)
    assert b"no outcomes" not in card_plot(found.cards[0], "png")
    assert slices_plot(found.cards[1:2]).startswith(b"<?xml")
    assert drift_plot(()).startswith(b"<?xml")


def test_without_matplotlib_a_plot_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    found = a_report()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"imaging-bridge\[plot\]"):
        card_plot(found.cards[0])


def test_what_is_not_there_is_said() -> None:
    rows = some_rows([{}])
    with pytest.raises(InvalidQuery, match="no prediction of this model"):
        report(rows, Asked.of("nodules@9"), EXACT)
    with pytest.raises(InvalidQuery, match="allowed: site, scanner, sex, age"):
        report(rows, Asked.of("nodules", by=("colour",)), EXACT)
    with pytest.raises(InvalidQuery, match="more than 50"):
        report(some_rows([{"model_version": str(n)} for n in range(51)]), Asked.of("nodules"), EXACT)


def test_a_column_with_a_word_of_its_own_for_every_row_is_bounded() -> None:
    rows = [row | {"site": f"Site {n}" if n % 2 else "North"} for n, row in enumerate(rows_by_month(each=60))]
    found = report(some_rows(rows), Asked.of("nodules", by=("site",), drift=True), EXACT)
    sites = [c.value for c in found.cards if c.slice == "site"]
    assert (len(sites), sites[0]) == (25, "North")
    (shift,) = (s for s in found.drift[0].shifts if s.what == "site")
    assert len(shift.bins) == 21
    assert (shift.bins[0][0], shift.bins[-1][0]) == ("North", "others")


def test_a_clock_that_was_wrong_once_is_not_when_it_all_began() -> None:
    rows = rows_by_month(each=30)
    rows += [rows[0] | {"predicted_at": datetime(year, 1, 1, tzinfo=UTC)} for year in (1970, 2093)]
    found = some_rows(rows)
    assert [d.window.first_day for d in drifts(found, drift=True)] == [date(2026, month, 1) for month in (4, 5, 6)]
    (divided,) = drifts(found, since=date(2026, 6, 1))
    assert (divided.reference.first_day, divided.window.last_day) == (date(2026, 1, 1), date(2026, 6, 30))
    assert divided.window.predictions.n == 30
