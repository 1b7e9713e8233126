"""What people who ask may see: counts of few patients are hidden, all others are coarse. Pure.

A count of patients is shown as the largest multiple of the threshold that it reaches, or not at all below the
threshold. So no count under the threshold can be computed from two answers: what they show differs by a multiple of the
threshold, and a difference of `d` stands for everything between `d - threshold` and `d + threshold`, both excluded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from bridge.errors import NotAllowed

PATIENTS = "patients"
"""The column that counts distinct patients, in every answer that counts."""


@dataclass(frozen=True)
class Readers:
    """Who may see what became of whose reports: user → identifier of the practitioner that user is; `reviewers` see
    every reader's."""

    accounts: Mapping[str, str] = field(default_factory=dict)
    reviewers: Sequence[str] = ()

    def require(self, who: str, reader: str, what: str) -> None:
        """Raises NotAllowed unless it is that reader, or a reviewer."""
        if who not in self.reviewers and (not who or self.accounts.get(who) != reader):
            raise NotAllowed(
                f"{what} is shown to that reader (readers in [cohort]) and to reviewers (reader_reviewers in [cohort])"
            )


@dataclass(frozen=True)
class Policy:
    """Who sees what, as the settings `[cohort]` have it. The default is the safe one."""

    small_cells: int = 10
    line_level: bool = False
    identifiers: Literal["pseudonyms", "identifiers"] = "pseudonyms"
    dates: Literal["shifted", "kept"] = "shifted"
    free_text: Literal["withheld", "shown"] = "withheld"
    project: str = ""

    @property
    def pseudonymous(self) -> bool:
        return self.identifiers == "pseudonyms"

    def count(self, patients: int) -> int | None:
        """A count of distinct patients as it may be shown, or None: fewer than the threshold, perhaps none.

        >>> [Policy(small_cells=10).count(n) for n in (0, 9, 10, 19, 20)]
        [None, None, 10, 10, 20]
        """
        if self.small_cells > 1 and patients < self.small_cells:
            return None
        return patients // self.small_cells * self.small_cells

    def facts(self, facts: int, patients: int) -> int | None:
        """A count of studies, series or other facts about so many patients: as coarse as the patients they belong to.

        >>> Policy(small_cells=10).facts(356, 25), Policy(small_cells=10).facts(30, 9)
        (300, None)
        """
        if self.small_cells > 1 and patients < self.small_cells:
            return None
        step = self.step(facts, patients)
        return facts // step * step

    def table_rows(self, rows: int) -> int:
        """How many rows a table is said to have: exact where rows may be seen."""
        return rows if self.line_level else self.count(rows) or 0

    def step(self, facts: int, patients: int) -> int:
        """What counts of facts are a multiple of: the threshold times the facts that one patient has on average."""
        return 1 if self.small_cells == 1 else self.small_cells * max(1, -(-facts // max(patients, 1)))

    def coarse(self, query: str, groups: Sequence[str], facts: Sequence[str]) -> str:
        """SQL: the rows of a query that counts, as they may be shown.

        `query` has the columns `groups`, `facts` and `patients`. A group of fewer patients than the threshold is left
        out: an absent group may be empty or not.
        """
        k = self.small_cells
        shown = [f'"{name}"' for name in groups]
        for name in facts:
            step = "1" if k == 1 else f'({k} * (("{name}" + {PATIENTS} - 1) // {PATIENTS}))'
            shown.append(f'"{name}" // {step} * {step} AS "{name}"')
        shown.append(f"{PATIENTS} // {k} * {k} AS {PATIENTS}")
        return f"SELECT {', '.join(shown)} FROM ({query}) WHERE {PATIENTS} >= {k} ORDER BY ALL"

    def require_rows(self, what: str) -> None:
        """Raises NotAllowed where rows about single patients may not be seen."""
        if not self.line_level:
            raise NotAllowed(f"{what} shows single patients: that needs line_level = true in [cohort]")

    def require_identifiers(self, what: str) -> None:
        """Raises NotAllowed where patients and studies may not be named as they are stored."""
        self.require_rows(what)
        if self.pseudonymous:
            raise NotAllowed(f'{what} names patients: that needs identifiers = "identifiers" in [cohort]')

    def require_exact(self, what: str) -> None:
        """Raises NotAllowed where anything is rounded, withheld or replaced."""
        if not self.line_level or self.pseudonymous or self.small_cells > 1:
            raise NotAllowed(
                f'{what} answers exactly: that needs line_level = true, identifiers = "identifiers" and '
                "small_cells = 1 in [cohort]"
            )

    def notes_on_counts(self) -> tuple[str, ...]:
        """What a reader of counts must know. It says the same whatever was left out."""
        if self.small_cells == 1:
            return ()
        return (
            f"groups of fewer than {self.small_cells} patients are left out; counts of patients are rounded down to "
            f"multiples of {self.small_cells}, counts of studies and series as coarsely",
        )

    def notes_on_rows(self) -> tuple[str, ...]:
        if not self.pseudonymous:
            return ()
        dates = "dates are shifted" if self.dates == "shifted" else "dates are as stored"
        text = "free text is withheld" if self.free_text == "withheld" else "free text is shown"
        return (f"identifiers are pseudonyms; {dates}; {text}",)
