"""A report as one flat table: a line for each number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cohort.answer import Answer
from cohort.scores.card import Card, Target
from cohort.scores.changes import Change
from cohort.scores.drift import Drift
from cohort.scores.report import Report
from cohort.scores.turnaround import QUANTILES
from cohort.scores.versions import Comparison

COLUMNS = (
    ("model", "VARCHAR"), ("model_version", "VARCHAR"), ("finding_system", "VARCHAR"), ("finding_code", "VARCHAR"),
    ("name", "VARCHAR"), ("slice", "VARCHAR"), ("value", "DOUBLE"), ("low", "DOUBLE"), ("high", "DOUBLE"),
    ("n", "BIGINT"), ("patients", "BIGINT"), ("why", "VARCHAR"),
)  # fmt: skip
"""Name and DuckDB type. `slice` is KIND=VALUE, "" for all rows; of drift the window, of a comparison the other
version."""

Line = tuple[str, str, Any, Any, Any, Any, Any, str]


def flat(report: Report, source: str, elapsed_s: float = 0.0) -> Answer:
    """All numbers of the report; `source` is the file or generation that the rows are from."""
    rows: list[tuple[Any, ...]] = []
    for card in report.cards:
        rows += (_of(card.target, line) for line in _card(card))
    for drift in report.drift:
        rows += (_of(drift.target, line) for line in _drift(drift))
    for comparison in report.comparisons:
        rows += (_of(comparison.first, line) for line in _comparison(comparison))
    return Answer(COLUMNS, tuple(rows), False, source, elapsed_s, report.notes)


def _of(target: Target, line: Line) -> tuple[Any, ...]:
    return (target.model, target.model_version, target.finding_system, target.finding_code, *line)


def _card(card: Card) -> Iterator[Line]:
    where = f"{card.slice}={card.value}" if card.slice else ""
    counts = {"predictions": card.predictions, **card.outcomes, **card.confusion, **card.readers}
    for name, count in counts.items():
        yield name, where, count.n, None, None, count.n, count.patients, ""
    if card.threshold is not None:
        yield "threshold", where, card.threshold, None, None, None, None, ""
    for name, found in card.measures.items():
        yield name, where, found.value, found.low, found.high, found.n, found.patients, found.why
    for b in card.calibration:
        name = f"calibration {b.low:.1f} to {b.high:.1f}"
        o = b.observed
        yield f"{name}: mean score", where, b.mean_score, None, None, o.n, o.patients, ""
        yield f"{name}: observed", where, o.value, o.low, o.high, o.n, o.patients, o.why
    for t in card.turnaround:
        for quantile in QUANTILES:
            told = t.predictions.n, t.predictions.patients, ""
            yield f"{t.name} {quantile}", where, getattr(t, quantile), None, None, *told


def _drift(drift: Drift) -> Iterator[Line]:
    where = f"window={drift.window.first_day} to {drift.window.last_day}"
    n = drift.window.predictions.n
    for s in drift.shifts:
        yield f"psi {s.what}", where, s.psi, None, s.by_chance, n, s.patients, s.level
    yield from _changes(drift.changes, where)


def _comparison(comparison: Comparison) -> Iterator[Line]:
    where = f"version={comparison.second.model_version}"
    for name, count in comparison.discordant.items():
        yield name, where, count.n, None, None, comparison.predictions.n, count.patients, ""
    p = comparison.mcnemar
    yield "mcnemar p", where, p.value, None, None, p.n, p.patients, p.why
    yield from _changes(comparison.changes, where)


def _changes(changes: tuple[Change, ...], where: str) -> Iterator[Line]:
    for c in changes:
        d = c.difference
        yield f"change of {c.measure}", where, d.value, d.low, d.high, d.n, d.patients, d.why
