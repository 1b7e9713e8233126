"""The predictions whose outcome is known, and what of them the measures need."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cohort.scores.rows import CONFIRMED, REFUTED, Flags, Floats, Integers, Rows

CELLS = ("tp", "fp", "fn", "tn")
"""Cells of the confusion matrix: what the model said at its threshold is true or false, positive or negative."""


@dataclass(frozen=True)
class Count:
    """Predictions, and how many different patients they are about; None where it may not be shown."""

    n: int | None
    patients: int | None


@dataclass(frozen=True)
class Judged:
    """Predictions that an outcome confirmed or refuted.

    Shape   `truth`, `predicted`, `score` (nan where the model gave none) and `patient` have one length; patients are
            the numbers 0 … `people` - 1
    """

    truth: Flags
    predicted: Flags
    score: Floats
    patient: Integers
    people: int

    def __len__(self) -> int:
        return len(self.truth)

    def scored(self) -> Judged:
        """Those to which the model gave a score."""
        has = ~np.isnan(self.score)
        return Judged(self.truth[has], self.predicted[has], self.score[has], self.patient[has], self.people)

    def cell(self, name: str) -> Flags:
        """Which of them are in a cell of CELLS."""
        right = self.predicted == self.truth
        found: Flags = (right if name[0] == "t" else ~right) & (self.predicted if name[1] == "p" else ~self.predicted)
        return found

    def count(self, wanted: Flags | None = None) -> Count:
        """How many they, or those wanted, are."""
        people = self.patient if wanted is None else self.patient[wanted]
        seen = np.zeros(self.people, dtype=bool)
        seen[people] = True
        return Count(len(people), int(np.count_nonzero(seen)))

    def patients(self, wanted: Flags | None = None) -> int:
        """How many different patients they, or those wanted, are about."""
        return self.count(wanted).patients or 0

    def rarer(self) -> int:
        """The patients of the class that has fewer."""
        return min(self.patients(self.truth), self.patients(~self.truth))

    def both_classes(self) -> bool:
        return bool(self.truth.any() and not self.truth.all())


def judged(rows: Rows, among: Integers | None = None) -> Judged:
    """The rows with a known outcome. Patients are numbered within `among`, sorted codes that must hold all of them;
    without it, within the rows."""
    known = np.isin(rows.outcome, (REFUTED, CONFIRMED))
    codes = rows.patient.codes[known]
    people = np.unique(codes) if among is None else among
    return Judged(
        truth=rows.outcome[known] == CONFIRMED,
        predicted=rows.predicted[known],
        score=rows.score[known],
        patient=np.searchsorted(people, codes),
        people=len(people),
    )


def counts(of: Judged) -> dict[str, Count]:
    """Predictions and patients in each of CELLS."""
    return {name: of.count(of.cell(name)) for name in CELLS}


def counted(rows: Rows, wanted: Flags | None = None) -> Count:
    """How many rows, and patients, there are, or of those wanted."""
    codes = rows.patient.codes if wanted is None else rows.patient.codes[wanted]
    seen = np.zeros(len(rows.patient.names), dtype=bool)
    seen[codes] = True
    return Count(len(codes), int(np.count_nonzero(seen)))
