"""Who looks on while the loops work: counts and times, never what the work is about."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from typing import Protocol


class Step(StrEnum):
    """What the loops do, one thing at a time."""

    POLL = "poll"
    SWEEP = "sweep"
    VERIFY = "verify"
    STUDY = "study"
    READ = "read"
    TRANSLATE = "translate"
    DELIVER = "deliver"
    PUBLISH = "publish"


class Ended(StrEnum):
    """Why a process that read a document was ended over it, or ended itself."""

    TIME = "time"
    MEMORY = "memory"
    CRASH = "crash"


class Observer(Protocol):
    """Told of each thing as it happens. Names are those of the configuration; times are seconds. Raises nothing."""

    def step(self, step: Step, peer: str) -> AbstractContextManager[None]:
        """Around one step; `peer` is the source or sink that it is done with, "" for none."""
        ...

    def hinted(self, source: str, found_by: Step, studies: int) -> None:
        """So many studies may have changed; found by POLL, or by comparing (SWEEP, VERIFY) what no change told of."""
        ...

    def translated(self, changed: bool, waited_s: float) -> None:
        """A study is up to date in the FHIR API, so long after its first mark; `changed`: with a new version."""
        ...

    def delivered(self, sink: str, changed: bool, waited_s: float) -> None:
        """A sink has a study, so long after its first mark; not `changed`: it had it already."""
        ...

    def failed(self, queue: str, parked: bool) -> None:
        """Work of a queue failed: it is parked, or tried again."""
        ...


class Nobody:
    """Looks on at nothing."""

    def step(self, step: Step, peer: str) -> AbstractContextManager[None]:
        return nullcontext()

    def hinted(self, source: str, found_by: Step, studies: int) -> None:
        return None

    def translated(self, changed: bool, waited_s: float) -> None:
        return None

    def delivered(self, sink: str, changed: bool, waited_s: float) -> None:
        return None

    def failed(self, queue: str, parked: bool) -> None:
        return None
