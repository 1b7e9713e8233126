"""What people see of drift and of two versions beside each other under the policy."""

from __future__ import annotations

from dataclasses import replace

from cohort.privacy import Policy
from cohort.scores.changes import Change, clear
from cohort.scores.coarse import FEW, Coarse
from cohort.scores.drift import Drift, Shift, level
from cohort.scores.intervals import Estimate, absent
from cohort.scores.judged import Count
from cohort.scores.versions import Comparison, mcnemar


def drift(exact: Drift, policy: Policy) -> Drift | None:
    """As it may be shown, None where a window is of fewer patients than the threshold."""
    if policy.small_cells == 1:
        return exact
    windows = exact.reference, exact.window
    coarse = Coarse.of(policy, exact.reference.predictions)
    if not all(coarse.enough(w.predictions.patients) for w in windows):
        return None
    reference, window = (replace(w, predictions=coarse.count(w.predictions)) for w in windows)
    return replace(
        exact,
        reference=reference,
        window=window,
        shifts=tuple(_shift(s, coarse) for s in exact.shifts),
        changes=tuple(_change(c, coarse) for c in exact.changes),
    )


def comparison(exact: Comparison, policy: Policy) -> Comparison | None:
    """As it may be shown, None where the shared studies are of fewer patients than the threshold."""
    if policy.small_cells == 1:
        return exact
    coarse = Coarse.of(policy, exact.predictions)
    if not coarse.enough(exact.predictions.patients):
        return None
    discordant = {name: coarse.count(count) for name, count in exact.discordant.items()}
    return replace(
        exact,
        predictions=coarse.count(exact.predictions),
        outcomes_differ=coarse.count(exact.outcomes_differ),
        discordant=discordant,
        mcnemar=_mcnemar(exact, coarse),
        changes=tuple(_change(c, coarse) for c in exact.changes),
    )


def _shift(exact: Shift, coarse: Coarse) -> Shift:
    """Words of few patients in both windows are left out: they may be nobody's, or somebody's."""
    bins = tuple(
        (name, coarse.count(first), coarse.count(second))
        for name, first, second in exact.bins
        if coarse.enough(first.patients) or coarse.enough(second.patients)
    )
    psi, by_chance = (
        coarse.rounded(Estimate(number, None, None, 0, exact.patients)).value for number in (exact.psi, exact.by_chance)
    )
    told = "" if psi is None or by_chance is None else level(psi, by_chance)
    return Shift(exact.what, psi, by_chance, told, None, bins)


def _change(exact: Change, coarse: Coarse) -> Change:
    difference = coarse.rounded(exact.difference)
    first, second = (
        coarse.rounded(Estimate(number, None, None, 0, exact.difference.patients)).value
        for number in (exact.first, exact.second)
    )
    return Change(exact.measure, first, second, difference, clear(difference))


def _mcnemar(exact: Comparison, coarse: Coarse) -> Estimate:
    """Of the middle of what the shown counts leave open, so that it tells no more than they do."""
    first, second = exact.discordant.values()
    if coarse.count(first).n is None and coarse.count(second).n is None:
        return absent(FEW)
    found = mcnemar(*(Count(sum(coarse.span(count)) // 2, 0) for count in (first, second)))
    return replace(found, patients=None, n=(coarse.count(first).n or 0) + (coarse.count(second).n or 0))
