"""Predictions apart: by model version and finding, by site, scanner, sex and age."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cohort.scores.asked import SLICES
from cohort.scores.card import Target
from cohort.scores.rows import Labels, Rows

MOST_VALUES = 25
"""Slices of one kind, those of most patients."""

UNKNOWN = "unknown"


def targets(rows: Rows) -> Iterator[tuple[Target, Rows]]:
    """Each model version and finding with its rows, in order of their names."""
    whole = joined((rows.model, rows.model_version, rows.finding_system, rows.finding_code))
    for code in sorted(range(len(whole.names)), key=whole.names.__getitem__):
        yield Target(*whole.names[code].split("\x1f")), rows.at(whole.codes == code)


def slices(rows: Rows, by: str) -> Iterator[tuple[str, Rows]]:
    """The values of one of SLICES with their rows, those of most patients first, then by name."""
    whole = labels(rows, by)
    pairs = np.unique(whole.codes * max(len(rows.patient.names), 1) + rows.patient.codes)
    patients = np.bincount(pairs // max(len(rows.patient.names), 1), minlength=len(whole.names))
    most = sorted(range(len(whole.names)), key=lambda code: (-int(patients[code]), whole.names[code]))
    for code in most[:MOST_VALUES]:
        yield whole.names[code], rows.at(whole.codes == code)


def labels(rows: Rows, by: str) -> Labels:
    """Each row's value of one of SLICES; UNKNOWN where it has none."""
    whole = joined(tuple(getattr(rows, column) for column in SLICES[by]))
    shown = [" ".join(name.split("\x1f")).strip() or UNKNOWN for name in whole.names]
    names = sorted(set(shown))
    place = {name: n for n, name in enumerate(names)}
    return Labels(np.array([place[name] for name in shown], dtype=np.int64)[whole.codes], tuple(names))


def joined(columns: tuple[Labels, ...]) -> Labels:
    """Several columns as one, of the combinations that occur; the words are separated by U+001F."""
    codes = np.zeros(len(columns[0].codes), dtype=np.int64)
    for column in columns:
        _, codes = np.unique(codes * max(len(column.names), 1) + column.codes, return_inverse=True)
    _, first = np.unique(codes, return_index=True)
    names = tuple("\x1f".join(c.names[c.codes[n]].replace("\x1f", " ") for c in columns) for n in first)
    return Labels(codes, names)
