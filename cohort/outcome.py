"""An outcome definition, read and checked: what `cohort.outcome_document` makes of a document. Standard library only.

It says of the predictions of one finding which later facts show that the finding was there (confirmed) or was not
(refuted). Days are whole days; both ends of a window are included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from cohort.question import Event, Parameter


class Outcome(StrEnum):
    """What became of a prediction. CONFIRMED and REFUTED speak of the finding, whatever the model said of it."""

    CONFIRMED = "confirmed"
    REFUTED = "refuted"
    CENSORED = "censored"
    PENDING = "pending"


class Precedence(StrEnum):
    """Which evidence counts where several is found: that of the rule listed first (of it the earliest), or the earliest
    or latest of all (of one day that of the rule listed first)."""

    LISTED = "listed"
    EARLIEST = "earliest"
    LATEST = "latest"


@dataclass(frozen=True)
class Agreement:
    """The number of the fact (`column`) and the one predicted differ by at most `within`, in the same unit: confirmed;
    by more: refuted."""

    column: str
    within: float


@dataclass(frozen=True)
class Evidence:
    """One rule: facts that decide a prediction.

    Result  `event` the facts, None: the patient's death; they are the patient's, of reports and findings those of the
            study (with `event.of` the patient's too); `outcome` what they show; where there is an `agreement` it says;
            `before_days`, `after_days`: so long before the index date and after it
    """

    label: str
    outcome: Outcome
    event: Event | None
    before_days: int
    after_days: int
    agreement: Agreement | None = None


@dataclass(frozen=True)
class Definition:
    """An outcome definition with the values of its parameters in place.

    Result  `finding` the predictions; `index` study or prediction: whose day is the index date; `threshold` from which
            score on the class is positive; `certain_of_answer` whether a confidence speaks of the answer given (so that
            an absence of which a program is sure has a low score) or of the finding; `positive` coded answers that
            count as present; `follow_up_days` for so long a patient must be known to have been seen for
            `without_evidence` to be the outcome; `reader` rules about reports and findings of readers: what they say
            is there or not
    """

    name: str
    title: str
    description: str
    parameters: tuple[Parameter, ...]
    finding: Event
    index: str
    threshold: float
    certain_of_answer: bool
    positive: tuple[tuple[str, str], ...]
    within_days: int
    evidence: tuple[Evidence, ...]
    precedence: Precedence
    without_evidence: Outcome
    follow_up_days: int
    reader: tuple[Evidence, ...]
    document: Mapping[str, Any] = field(repr=False, compare=False, default_factory=dict)

    @property
    def events(self) -> tuple[Event, ...]:
        """All that it says of findings and facts."""
        rules = (*self.evidence, *self.reader)
        return (self.finding, *(rule.event for rule in rules if rule.event is not None))
