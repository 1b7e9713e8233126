"""Everything asked of a table of predictions in one: cards, slices, drift, versions; as it may be shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

import numpy as np

from bridge.errors import InvalidQuery
from cohort.privacy import Policy
from cohort.scores import shown_changes
from cohort.scores.asked import Asked
from cohort.scores.card import Card, Target, card
from cohort.scores.drift import Drift, monthly, since
from cohort.scores.rows import Rows
from cohort.scores.shown import in_order, left_out, shown
from cohort.scores.slices import MOST_VALUES, slices, targets
from cohort.scores.versions import Comparison, compared

MOST_TARGETS = 50


@dataclass(frozen=True)
class Report:
    """Cards of whole model versions and then of slices, drift and comparisons, as the policy has them. `left_out` says
    how many rows could not be used, and why; `notes` what a reader must know."""

    cards: tuple[Card, ...]
    drift: tuple[Drift, ...]
    comparisons: tuple[Comparison, ...]
    left_out: Mapping[str, int | None]
    notes: tuple[str, ...]


def report(rows: Rows, asked: Asked, policy: Policy) -> Report:
    """The report of these rows.

    Raises  InvalidQuery where there is no such model, or more than MOST_TARGETS versions and findings
    """
    found = list(islice(targets(_wanted(rows, asked)), MOST_TARGETS + 1))
    if not found:
        raise InvalidQuery("scores: there is no prediction of this model and version")
    if len(found) > MOST_TARGETS:
        raise InvalidQuery(f"scores: more than {MOST_TARGETS} versions and findings; name a MODEL@VERSION")
    cards = [c for target, own in found for c in _cards(target, own, asked, policy)]
    drifts = (d for target, own in found for d in _drifts(target, own, asked))
    pairs = _pairs(found) if asked.versions else ()
    return Report(
        cards=tuple(cards),
        drift=tuple(d for exact in drifts if (d := shown_changes.drift(exact, policy))),
        comparisons=tuple(c for one, other in pairs if (c := shown_changes.comparison(compared(one, other), policy))),
        left_out=left_out(rows.left_out, policy),
        notes=(*policy.notes_on_counts(), *_notes(policy)),
    )


def _wanted(rows: Rows, asked: Asked) -> Rows:
    wanted = np.ones(len(rows), dtype=bool)
    for column, name in ((rows.model, asked.model), (rows.model_version, asked.version)):
        if name:
            wanted &= column.codes == (column.names.index(name) if name in column.names else -1)
    return rows.at(wanted)


def _cards(target: Target, rows: Rows, asked: Asked, policy: Policy) -> Iterator[Card]:
    whole = shown(card(target, rows, fixed_curve=policy.small_cells > 1), policy)
    if whole is None:
        return
    yield whole
    for by in asked.by:
        exact = (card(target, own, by, value, among=len(rows)) for value, own in slices(rows, by))
        yield from in_order(c for one in exact if (c := shown(one, policy)))


def _drifts(target: Target, rows: Rows, asked: Asked) -> Iterator[Drift]:
    if asked.drift:
        yield from monthly(target, rows)
    if asked.since is not None:
        yield from since(target, rows, asked.since)


def _pairs(found: Sequence[tuple[Target, Rows]]) -> Iterator[tuple[tuple[Target, Rows], tuple[Target, Rows]]]:
    """Each version and the next one, of one model and finding, in the order of their first predictions."""
    by_finding: dict[tuple[str, str, str], list[tuple[Target, Rows]]] = {}
    for target, rows in found:
        by_finding.setdefault((target.model, target.finding_system, target.finding_code), []).append((target, rows))
    for versions in by_finding.values():
        versions.sort(key=lambda one: (_began(one[1]), one[0].model_version))
        yield from pairwise(versions)


def _began(rows: Rows) -> int:
    known = rows.predicted_at[~np.isnat(rows.predicted_at)]
    return int(known.min().astype("datetime64[us]").astype(np.int64)) if len(known) else 0


def _notes(policy: Policy) -> tuple[str, ...]:
    always = f"intervals are of 95%; of each kind of slice the {MOST_VALUES} of most patients are shown"
    if policy.small_cells == 1:
        return (always,)
    return (always, "rates are computed of the coarse counts; other numbers are rounded as coarsely")
