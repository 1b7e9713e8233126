"""Whose connection it is. Every error of a connection says so, and has the type that the loops act on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from bridge.errors import ConfigError, SinkUnavailable, SourceUnavailable, Unavailable


class Side(Enum):
    SOURCE = "source"
    SINK = "sink"
    ARCHIVE = "archive"
    MODEL = "model"


@dataclass(frozen=True)
class Owner:
    """One configured source, sink, archive or model, by its name.

    >>> str(Owner.sink("ehr").unavailable("no answer"))
    'sink ehr: no answer'
    """

    side: Side
    name: str

    @classmethod
    def source(cls, name: str) -> Owner:
        return cls(Side.SOURCE, name)

    @classmethod
    def sink(cls, name: str) -> Owner:
        return cls(Side.SINK, name)

    @classmethod
    def archive(cls, name: str) -> Owner:
        return cls(Side.ARCHIVE, name)

    @classmethod
    def model(cls, name: str) -> Owner:
        return cls(Side.MODEL, name)

    def __str__(self) -> str:
        return f"{self.side.value} {self.name}"

    def unavailable(self, problem: str, retry_after_s: float | None = None) -> Unavailable:
        """SourceUnavailable or SinkUnavailable."""
        kind = SourceUnavailable if self.side is Side.SOURCE else SinkUnavailable
        return kind(f"{self}: {problem}", retry_after_s)

    def misconfigured(self, problem: str) -> ConfigError:
        return ConfigError(f"{self}: {problem}")
