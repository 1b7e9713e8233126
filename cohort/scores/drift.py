"""Whether what the model sees, and how well it does, has changed between two windows of time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

import numpy as np
from scipy.stats import chi2

from cohort.scores.asked import REFERENCE_MONTHS, SLICES
from cohort.scores.card import Target
from cohort.scores.changes import Change, changes
from cohort.scores.judged import Count, counted, judged
from cohort.scores.rows import Flags, Integers, Labels, Moments, Rows
from cohort.scores.slices import UNKNOWN, labels

SCORE_BINS = 10
MOST_WORDS = 20
OTHERS = "others"
MODERATE, LARGE = 0.1, 0.25
CHANCE = 0.999
FEWEST_PREDICTIONS = 5


@dataclass(frozen=True)
class Window:
    """Predictions made from a day to a day, both included."""

    first_day: date
    last_day: date
    predictions: Count


@dataclass(frozen=True)
class Shift:
    """How far the distribution of the score, or of an input, is from that of the reference.

    `psi` is the population stability index (natural logarithm; an empty bin counts as half a prediction). `by_chance`
    is what it stays below in CHANCE of windows of so many patients without any change (a chi-square distribution of
    bins - 1 degrees of freedom times 1/m + 1/n; Yurdakul 2018). `level` is none, moderate (from MODERATE) or large
    (from LARGE), and none below `by_chance`. `patients` are those of the smaller window.
    """

    what: str
    psi: float | None
    by_chance: float | None
    level: str
    patients: int | None
    bins: tuple[tuple[str, Count, Count], ...]


@dataclass(frozen=True)
class Drift:
    """A window beside the reference, for one model version and finding."""

    target: Target
    reference: Window
    window: Window
    shifts: tuple[Shift, ...]
    changes: tuple[Change, ...]


def monthly(target: Target, rows: Rows, reference_months: int = REFERENCE_MONTHS) -> Iterator[Drift]:
    """Each month after the first `reference_months` beside these, by the UTC day of the prediction."""
    known = _months(rows)
    if not len(known):
        return
    end = known[0] + np.timedelta64(reference_months, "M")
    reference = _window(rows, known[0], end)
    for month in known[known >= end]:
        yield drift(target, reference, _window(rows, month, month + np.timedelta64(1, "M")))


def since(target: Target, rows: Rows, day: date) -> Iterator[Drift]:
    """What was predicted from a day on beside all before it; nothing where either is empty."""
    known = _months(rows)
    if not len(known) or not known[0] <= np.datetime64(day, "M") <= known[-1]:
        return
    reference = _window(rows, known[0], np.datetime64(day))
    window = _window(rows, np.datetime64(day), known[-1] + np.timedelta64(1, "M"))
    if len(reference[1]) and len(window[1]):
        yield drift(target, reference, window)


def _months(rows: Rows) -> Moments:
    """The months that have FEWEST_PREDICTIONS, in order: a clock that was wrong once is not when it all began."""
    months = rows.predicted_at.astype("datetime64[M]")
    known, counts = np.unique(months[~np.isnat(months)], return_counts=True)
    return known[counts >= FEWEST_PREDICTIONS]


def drift(target: Target, reference: tuple[Window, Rows], window: tuple[Window, Rows]) -> Drift:
    """The shifts of the score and of the inputs, and the change of every measure with its interval."""
    (first, before), (second, after) = reference, window
    inputs = [("modality", before.modality, after.modality)]
    inputs += [(by, labels(before, by), labels(after, by)) for by in SLICES]
    shifts = [_words_shift(name, old, new, before, after) for name, old, new in inputs]
    if _scores(before).any() and _scores(after).any():
        shifts.insert(0, _score_shift(before, after))
    people = np.union1d(before.patient.codes, after.patient.codes)
    return Drift(target, first, second, tuple(shifts), changes(judged(before, people), judged(after, people)))


def _window(rows: Rows, start: np.datetime64, end: np.datetime64) -> tuple[Window, Rows]:
    """From a day, included, to a day, not included."""
    within = rows.at((rows.predicted_at >= start) & (rows.predicted_at < end))
    first, after = (moment.astype("datetime64[D]") for moment in (start, end))
    last = after - np.timedelta64(1, "D")
    return Window(first.astype(date), last.astype(date), counted(within)), within


def _scores(rows: Rows) -> Flags:
    return ~np.isnan(rows.score)


def _score_shift(reference: Rows, window: Rows) -> Shift:
    """Over bins that hold a tenth each of the reference's scores, their limits rounded to two significant digits."""
    first, second = reference.at(_scores(reference)), window.at(_scores(window))
    tenths = np.quantile(first.score, np.linspace(0, 1, SCORE_BINS + 1)[1:-1])
    limits = np.unique([limit for tenth in tenths if 0 < (limit := float(f"{tenth:.2g}")) < 1])
    names = [f"{low:g} to {high:g}" for low, high in zip((0.0, *limits), (*limits, 1.0), strict=True)]
    places = [np.searchsorted(limits, rows.score, side="right") for rows in (first, second)]
    return _shift("score", names, places[0], places[1], first, second)


def _words_shift(name: str, first: Labels, second: Labels, reference: Rows, window: Rows) -> Shift:
    """Over the words themselves; all but the MOST_WORDS most frequent ones of the reference are one."""
    words = sorted({*first.names, *second.names})
    place_of = {word: place for place, word in enumerate(words)}
    codes = [np.array([place_of[w] for w in column.names], dtype=np.int64)[column.codes] for column in (first, second)]
    frequent = np.argsort(-np.bincount(codes[0], minlength=len(words)), kind="stable")[:MOST_WORDS]
    place = np.full(len(words), len(frequent))
    place[frequent] = np.arange(len(frequent))
    names = [words[n] or UNKNOWN for n in frequent] + [OTHERS] * (len(words) > len(frequent))
    return _shift(name, names, place[codes[0]], place[codes[1]], reference, window)


def _shift(what: str, names: list[str], first: Integers, second: Integers, reference: Rows, window: Rows) -> Shift:
    bins = tuple(
        (name, counted(reference, first == place), counted(window, second == place)) for place, name in enumerate(names)
    )
    psi = stability_index([b[1].n or 0 for b in bins], [b[2].n or 0 for b in bins])
    people = [counted(rows).patients or 1 for rows in (reference, window)]
    limit = float(chi2.ppf(CHANCE, len(bins) - 1)) * sum(1 / n for n in people) if len(bins) > 1 else 0.0
    return Shift(what, psi, limit, level(psi, limit), min(people), bins)


def stability_index(reference: list[int], window: list[int]) -> float:
    """The population stability index of two counts over the same bins.

    >>> round(stability_index([50, 50], [40, 60]), 6)
    0.040547
    """
    p, q = (np.maximum(np.array(counts, dtype=float), 0.5) for counts in (reference, window))
    p, q = p / max(sum(reference), 1), q / max(sum(window), 1)
    return float(np.sum((q - p) * np.log(q / p)))


def level(psi: float, by_chance: float) -> str:
    """In a word."""
    if psi < MODERATE or psi <= by_chance:
        return "none"
    return "large" if psi >= LARGE else "moderate"
