"""Judges every object before it is taken in: whole, within bounds, with the identity it needs (PS3.5 7, PS3.10 7)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydicom.uid import UID_dictionary  # type: ignore[attr-defined]

from bridge.errors import InvalidDicomValue
from bridge.sources.element_plans import ENCAPSULATED_DOCUMENT, OTHER_PIXELS, PIXEL_DATA, SAMPLES_PER_PIXEL, UNDEFINED
from bridge.sources.elements import OBJECT
from bridge.sources.part10 import (
    DEFLATED_LITTLE,
    EXPLICIT_BIG,
    IMPLICIT_LITTLE,
    MEDIA_CLASS,
    MEDIA_INSTANCE,
    Reading,
    read_object,
)
from bridge.translate.headers import Headers, keyword_of
from bridge.translate.uids import checked_uid

IDENTITY = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
"""What an object must say of itself to have a place in a study."""

MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"
"""A DICOMDIR: no instance, it needs no identity."""

IMAGES = frozenset(uid for uid, entry in UID_dictionary.items() if "Image Storage" in entry[0]) | {
    "1.2.840.10008.5.1.4.1.1.6.2",  # Enhanced US Volume
    "1.2.840.10008.5.1.4.1.1.30",  # Parametric Map
    "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation
}
"""SOP classes whose objects have pixels (PS3.3 A): one that ends without them was cut between two elements."""

_ENCAPSULATED = "1.2.840.10008.5.1.4.1.1.104."
_NATIVE = frozenset({IMPLICIT_LITTLE, "1.2.840.10008.1.2.1", DEFLATED_LITTLE, EXPLICIT_BIG})
_SUBSAMPLED = {"YBR_FULL_422": 2.0, "YBR_PARTIAL_422": 2.0, "YBR_PARTIAL_420": 1.5}
"""Samples stored of a pixel where chrominance is shared (PS3.3 C.7.6.3.1.2)."""

_LEADING_ZERO = re.compile(r"(^|\.)0[0-9]")


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
    """The headers of one object and whether it can be taken in: one bounded pass over the whole of it.

    Raises  SourceUnavailable   the file cannot be read (FileNotFoundError passes); never for what is in it
    """
    return judged(read_object(path, whole=True))


def judged(reading: Reading) -> Scan:
    """What a reading of the whole object means."""
    headers = reading.headers()
    findings = list(_findings(reading, headers))
    if any(f.quarantine for f in findings):
        return Scan(headers, Verdict.QUARANTINE, tuple(findings))
    return Scan(headers, Verdict.FINDINGS if findings else Verdict.ACCEPT, tuple(findings))


def _findings(reading: Reading, headers: Headers) -> Iterator[Finding]:
    for tag, problem in reading.walk.oddities:
        yield Finding("" if tag == OBJECT else keyword_of(tag), problem)
    if reading.failure:
        yield Finding("", reading.failure, quarantine=True)
    elif headers.text("SOPClassUID") != MEDIA_DIRECTORY:
        yield from _identity(headers)
        if reading.meta:
            yield from _file_meta(reading, headers)
        yield from _content(reading, headers)


def _identity(headers: Headers) -> Iterator[Finding]:
    for keyword in IDENTITY:
        uid = headers.text(keyword)
        try:
            checked_uid(uid, keyword)
        except InvalidDicomValue as error:
            yield Finding(keyword, str(error).removeprefix(f"{keyword} "), quarantine=True)
        if _LEADING_ZERO.search(uid):
            yield Finding(keyword, "has a component with a leading zero")


def _file_meta(reading: Reading, headers: Headers) -> Iterator[Finding]:
    """The file meta information repeats what the data set says, which decides (PS3.10 7.1)."""
    if "SOPClassUID" not in reading.walk.values:
        yield Finding("SOPClassUID", "is missing in the data set: taken from the file meta information")
    for tag, keyword in (MEDIA_CLASS, "SOPClassUID"), (MEDIA_INSTANCE, "SOPInstanceUID"):
        if reading.meta_text(tag) != headers.text(keyword):
            yield Finding(keyword_of(tag), f"is missing, or is not the {keyword} of the data set")


def _content(reading: Reading, headers: Headers) -> Iterator[Finding]:
    """What shows that an object was cut between two elements, or within pixels whose length was put right."""
    noted, sop_class = reading.walk.noted, headers.text("SOPClassUID")
    if sop_class.startswith(_ENCAPSULATED) and not noted.get(ENCAPSULATED_DOCUMENT, (0,))[0]:
        yield Finding("EncapsulatedDocument", "is missing: the object is truncated", quarantine=True)
    if sop_class in IMAGES and not noted.keys() & {PIXEL_DATA, *OTHER_PIXELS}:
        yield Finding("PixelData", "is missing: the image is truncated", quarantine=True)
    if PIXEL_DATA in noted:
        yield from _pixels(reading, headers, noted[PIXEL_DATA][0])


def _pixels(reading: Reading, headers: Headers, length: int) -> Iterator[Finding]:
    transfer_syntax = headers.text("TransferSyntaxUID")
    encapsulated = length == UNDEFINED
    if transfer_syntax and encapsulated == (transfer_syntax in _NATIVE):
        yield Finding("PixelData", "is not encapsulated as the transfer syntax says")
    elif not encapsulated:
        expected = _pixel_bytes(headers, reading.walk.noted.get(SAMPLES_PER_PIXEL, (0, b"\1"))[1])
        if expected is None:
            problem = "has no Rows, Columns or BitsAllocated to compare its length with"
            yield Finding("PixelData", problem, quarantine=headers.text("SOPClassUID") in IMAGES)
        elif length < expected:
            yield Finding("PixelData", "is shorter than Rows, Columns and frames say: truncated", quarantine=True)
        elif length > expected + 1:
            yield Finding("PixelData", "is longer than Rows, Columns and frames say")


def _pixel_bytes(headers: Headers, samples: bytes) -> int | None:
    """How long native pixel data must be (PS3.5 8.1.1, PS3.3 C.7.6.3); None when that is not said."""
    rows, columns, bits = (headers.integer(k) for k in ("Rows", "Columns", "BitsAllocated"))
    frames = headers.integer("NumberOfFrames") or 1
    if not rows or not columns or not bits:
        return None
    each: float = _SUBSAMPLED.get(headers.text("PhotometricInterpretation"), max(1, *samples))
    return math.ceil(rows * columns * frames * bits * each / 8)
