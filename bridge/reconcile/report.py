"""What a reconciliation found."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

SHOWN = 1000
"""Differences of one comparison that are named; all are counted."""


class Level(StrEnum):
    """Where two parties differ: one lacks the study, or it has other series, instances or contents."""

    STUDY = "study"
    SERIES = "series"
    INSTANCE = "instance"
    CONTENT = "content"


class Standing(StrEnum):
    """What is known of a difference."""

    WAITING = "waiting"
    """Work that will settle it is marked already."""

    PARKED = "parked"
    """A person has to decide (`bridge parked list`)."""

    DIFFERENT = "different"
    """Nothing is under way."""

    MARKED = "marked"
    """As `different`; marked now, to be put right."""


@dataclass(frozen=True)
class Difference:
    """One thing that two parties do not have alike. `key`: Study Instance UID, or type/id of a resource of several
    studies; `problem` names no value."""

    key: str
    level: Level
    problem: str
    standing: Standing = Standing.DIFFERENT


@dataclass
class Comparison:
    """Two parties. `compared` counts what both were asked for, by level; `error`: why it could not be finished."""

    left: str
    right: str
    compared: Counter[str] = field(default_factory=Counter)
    standings: Counter[str] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)
    error: str = ""

    def add(self, difference: Difference) -> None:
        self.standings[difference.standing.value] += 1
        if len(self.differences) < SHOWN:
            self.differences.append(difference)

    @property
    def agrees(self) -> bool:
        """Whether nothing differs but what is being put right already."""
        return not self.error and not any(n for s, n in self.standings.items() if s != Standing.WAITING.value)

    def as_json(self) -> dict[str, Any]:
        told = {"left": self.left, "right": self.right, "agrees": self.agrees, "compared": dict(self.compared)}
        standings = {standing.value: self.standings[standing.value] for standing in Standing}
        shown = [asdict(d) for d in self.differences]
        return told | standings | {"differences": shown} | ({"error": self.error} if self.error else {})


@dataclass(frozen=True)
class Report:
    """All comparisons of one reconciliation. Times are seconds since the epoch."""

    started_at: float
    finished_at: float
    comparisons: tuple[Comparison, ...]

    @property
    def agrees(self) -> bool:
        return all(one.agrees for one in self.comparisons)

    def as_json(self) -> dict[str, Any]:
        told = {"agrees": self.agrees, "started_at": self.started_at, "finished_at": self.finished_at}
        return told | {"comparisons": [one.as_json() for one in self.comparisons]}
