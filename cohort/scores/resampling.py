"""The bootstrap: patients are drawn with replacement, each with all of their rows (cluster bootstrap)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from cohort.scores.rows import Floats, Integers

SEED = 20_260_101
MOST_REPLICATES, FEWEST_REPLICATES, FEW_ROWS = 1_000, 100, 5_000
DRAWS = 50_000_000
"""Rows times replicates at most, as long as there are FEWEST_REPLICATES: what bounds the time."""

BLOCK = 2_000_000
"""Rows times replicates that are computed at once: what bounds the memory."""


Statistic = Callable[[Integers], Mapping[str, Floats]]
"""From lines of weights of patients, one value a line for each number, nan where it has none."""


def replicates_for(rows: int, among: int = 0) -> int:
    """How often so many rows are drawn; `among` how many are drawn from by turns, such as slices, each with the same
    number of replicates, but for few rows, which take no time.

    >>> replicates_for(10_000), replicates_for(100_000), replicates_for(1_000_000)
    (1000, 500, 100)
    >>> replicates_for(200_000, 1_000_000), replicates_for(500, 1_000_000)
    (100, 1000)
    """
    if rows <= FEW_ROWS:
        return MOST_REPLICATES
    return max(FEWEST_REPLICATES, min(MOST_REPLICATES, DRAWS // max(rows, among)))


def drawn(people: int, replicates: int, block: int, seed: int = SEED) -> Iterator[Integers]:
    """How often each of the patients 0 … people - 1 was drawn.

    Shape   (at most `block`, people), until there are `replicates` lines; the same for the same seed
    """
    random = np.random.default_rng(seed)
    for start in range(0, replicates, block):
        lines = min(block, replicates - start)
        draws = np.stack([random.integers(people, size=people) for _ in range(lines)])
        draws += people * np.arange(lines)[:, None]
        yield np.bincount(draws.ravel(), minlength=lines * people).reshape(lines, people)


def bootstrap(statistic: Statistic, people: int, rows: int, among: int = 0) -> dict[str, Floats]:
    """Each number's replicates. The draws are the same for every call about so many people and rows."""
    lines = max(1, BLOCK // max(rows, people, 1))
    blocks = [statistic(weights) for weights in drawn(people, replicates_for(rows, among), lines)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
