"""Every error that bridge and cohort raise. The loops decide from the type alone.

Messages name the attribute, the setting or the place, and what to do; never a patient's value.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass


class ProjectError(Exception):
    """The root of all errors of this project."""


class ConfigError(ProjectError):
    """The configuration cannot be used: stop and tell the operator the key, what was found, what is allowed."""


class RejectedInput(ProjectError):
    """This input will never be accepted as it is: park it with its evidence, go on, do not retry."""


class InvalidDicomValue(RejectedInput):
    """An attribute that must be there is absent or malformed.

    Result  `keyword` is the DICOM keyword (PS3.6); the value itself is never part of the message.
    """

    def __init__(self, keyword: str, problem: str) -> None:
        super().__init__(f"{keyword} {problem}")
        self.keyword = keyword


class InvalidFile(RejectedInput):
    """The file is not a readable DICOM file (not DICOM, truncated, damaged)."""


class ReadingEnded(InvalidFile):
    """Reading the file took more than it may, of time or of memory, or ended the process that read it."""


class InvalidResource(RejectedInput):
    """Foreign FHIR that cannot be read (malformed JSON, no resourceType, no id)."""


class RefusedByServer(RejectedInput):
    """A receiving server refused the content (4xx): the same content would be refused again."""


@dataclass(frozen=True)
class Refusal:
    """Why one field of what a client sent cannot be taken. `field` as `findings[0].code`, "" for the whole."""

    field: str
    reason: str


class RefusedResult(RejectedInput):
    """An AI result that cannot be taken as it is. Result: `refusals`, every field that is wrong; never a value."""

    def __init__(self, refusals: tuple[Refusal, ...]) -> None:
        super().__init__("; ".join(f"{r.field} {r.reason}".strip() for r in refusals[:5]))
        self.refusals = refusals


class Unavailable(ProjectError):
    """A peer cannot be reached or cannot answer now: retry with backoff, checkpoint unmoved.

    Result  `retry_after_s` is what the peer asked for (`Retry-After`), in seconds, or None.
    """

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class SourceUnavailable(Unavailable):
    """An archive cannot be reached or cannot answer now."""


class SinkUnavailable(Unavailable):
    """A receiver of our output cannot be reached or cannot answer now."""


class Conflict(ProjectError):
    """Somebody else changed the same thing meanwhile: read again and try again, this alone; park it if that goes on."""


class StateUnavailable(Unavailable):
    """The state's database cannot answer now (locked, disk full, server away)."""


class InvalidQuery(ProjectError):
    """A query that cannot be answered as asked: HTTP 400."""


class NotAllowed(InvalidQuery):
    """A query that the settings do not let people ask: HTTP 403."""


def place(error: BaseException) -> str:
    """Where a bug showed itself, as `file.py:line`: it is recorded by type and place, its message may quote a value."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename.rpartition('/')[2]}:{frame.lineno}"
