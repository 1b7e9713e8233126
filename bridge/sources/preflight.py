"""Judges every object before it is taken in: whole, within bounds, with the identity it needs (PS3.5 7, PS3.10 7)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from bridge.errors import InvalidDicomValue, InvalidFile
from bridge.sources.part10 import read_headers
from bridge.translate.headers import EMPTY, Headers
from bridge.translate.uids import checked_uid

IDENTITY = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
"""What an object must say of itself to have a place in a study."""


class Verdict(StrEnum):
    """What to do with an object. None of them drops it."""

    ACCEPT = "accept"
    FINDINGS = "findings"
    """Accepted; it is odd, but its meaning is certain."""
    QUARANTINE = "quarantine"
    """Cannot be trusted: truncated, damaged, past a bound, or without identity. Kept, for a person to look at."""


@dataclass(frozen=True)
class Finding:
    """One thing wrong with an object; never a value of it."""

    keyword: str
    """The attribute: its keyword, `(gggg,eeee)` when it has none, "" when the object as a whole is meant."""
    problem: str
    quarantine: bool = False


@dataclass(frozen=True)
class Scan:
    """What one pass over an object gave. Of a quarantined object `headers` are what was read of it: evidence only."""

    headers: Headers
    verdict: Verdict
    findings: tuple[Finding, ...]

    @property
    def reason(self) -> str:
        """Why it is quarantined; "" when it is not."""
        return next((f"{f.keyword} {f.problem}".strip() for f in self.findings if f.quarantine), "")


def preflight(path: Path) -> Scan:
    """The headers of one object and whether it can be taken in.

    Raises  SourceUnavailable   the file cannot be read (FileNotFoundError passes); never for what is in it
    """
    try:
        headers = read_headers(path)
    except InvalidFile as error:
        return _scan(EMPTY, [Finding("", str(error), quarantine=True)])
    return _scan(headers, _identity(headers))


def _scan(headers: Headers, findings: list[Finding]) -> Scan:
    if any(f.quarantine for f in findings):
        return Scan(headers, Verdict.QUARANTINE, tuple(findings))
    return Scan(headers, Verdict.FINDINGS if findings else Verdict.ACCEPT, tuple(findings))


def _identity(headers: Headers) -> list[Finding]:
    findings = []
    for keyword in IDENTITY:
        try:
            checked_uid(headers.text(keyword), keyword)
        except InvalidDicomValue as error:
            findings.append(Finding(keyword, str(error).removeprefix(f"{keyword} "), quarantine=True))
    return findings
