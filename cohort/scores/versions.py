"""Two versions of a model beside each other, on the studies that both have judged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from cohort.scores.card import Target
from cohort.scores.changes import Change, changes
from cohort.scores.intervals import Estimate, absent
from cohort.scores.judged import Count, Judged, counted
from cohort.scores.rows import CONFIRMED, REFUTED, Flags, Integers, Rows


@dataclass(frozen=True)
class Comparison:
    """Two versions on the same studies.

    `predictions` counts the pairs; `outcomes_differ` those left out because the two rows do not agree on the outcome.
    `discordant` counts the pairs where one version alone was right; `mcnemar` is the two-sided exact p-value of these
    (McNemar: of two versions that are right equally often, half of them would be each one's).
    """

    first: Target
    second: Target
    predictions: Count
    outcomes_differ: Count
    discordant: dict[str, Count]
    mcnemar: Estimate
    changes: tuple[Change, ...]


def compared(first: tuple[Target, Rows], second: tuple[Target, Rows]) -> Comparison:
    """The second version beside the first. Of several predictions of one version about one study and patient the last
    counts; the rows are those of one table (their patients and studies are numbered alike)."""
    left, right = (_last(rows) for _, rows in (first, second))
    left, right = left.at(_shared(left, right)), right.at(_shared(right, left))
    same = left.outcome == right.outcome
    differing = counted(left, ~same)
    left, right = left.at(same), right.at(same)
    people, patient = np.unique(left.patient.codes, return_inverse=True)
    both = ~np.isnan(left.score) & ~np.isnan(right.score)
    before, after = (_judged(rows, patient, len(people), both) for rows in (left, right))
    right_once = before.predicted == before.truth, after.predicted == after.truth
    discordant = {
        "first_alone_right": before.count(right_once[0] & ~right_once[1]),
        "second_alone_right": before.count(right_once[1] & ~right_once[0]),
    }
    return Comparison(
        first=first[0],
        second=second[0],
        predictions=before.count(),
        outcomes_differ=differing,
        discordant=discordant,
        mcnemar=mcnemar(discordant["first_alone_right"], discordant["second_alone_right"]),
        changes=changes(before, after),
    )


def mcnemar(first: Count, second: Count) -> Estimate:
    """The two-sided exact p-value of discordant pairs."""
    one, other = first.n or 0, second.n or 0
    patients = (first.patients or 0) + (second.patients or 0)
    if not one + other:
        return absent("no discordant pairs", 0, 0)
    return Estimate(float(binomtest(one, one + other, 0.5).pvalue), None, None, one + other, patients, "a p-value")


def _last(rows: Rows) -> Rows:
    """Of the rows with a known outcome the last for each study and patient, in the order of these."""
    rows = rows.at(np.isin(rows.outcome, (REFUTED, CONFIRMED)))
    order = np.lexsort((rows.predicted_at, rows.patient.codes, rows.study.codes))
    keys = np.stack([rows.study.codes[order], rows.patient.codes[order]], axis=1)
    return rows.at(order[np.append((keys[1:] != keys[:-1]).any(axis=1), True)[: len(order)]])


def _shared(rows: Rows, others: Rows) -> Flags:
    """Which of the rows have a study and patient that the others have too."""
    size = max(len(rows.patient.names), 1)
    keys, wanted = (r.study.codes * size + r.patient.codes for r in (rows, others))
    return np.isin(keys, wanted)


def _judged(rows: Rows, patient: Integers, people: int, scored: Flags) -> Judged:
    """Scores are compared where both versions gave one."""
    return Judged(rows.outcome == CONFIRMED, rows.predicted, np.where(scored, rows.score, np.nan), patient, people)
