"""Every attribute of an object, kept or not: its place, its length, a digest of its value. For people who ask.

The headers are read first, as for any object. Then its elements are gone through once more and listed; what cannot
be listed to its end is told, and changes nothing about the headers.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from pydicom.datadict import dictionary_VR

from bridge.errors import InvalidFile, SourceUnavailable
from bridge.sources.element_plans import (
    BIG,
    CHARACTER_SET,
    EXPLICIT,
    IMPLICIT,
    OTHER_PIXELS,
    PIXEL_DATA,
    UNDEFINED,
    VRS,
    Kind,
    Plan,
    Syntax,
)
from bridge.sources.element_values import read_value
from bridge.sources.elements import Walk, name_of
from bridge.sources.part10 import Reading
from bridge.sources.text import Charset, charset
from bridge.sources.window import Window
from bridge.translate.headers import MAXIMUM_SEQUENCE_DEPTH, Headers, PersonName, keyword_of
from bridge.translate.occurrences import Occurrence
from bridge.translate.occurrences import Path as AttributePath

COMPARED_BYTES = 4_096
"""Values are compared by their length and so many bytes."""

SHOWN_CHARACTERS = 64
_CREATOR_CHARACTERS = 40
_NUMBERED = ("BITS", "OB", "OD", "OF", "OL", "OV", "OW", "UN", "SQ")


@dataclass(frozen=True)
class Listed:
    """One object: its headers, its attributes by path, and why not all could be listed, or ""."""

    headers: Headers
    attributes: dict[AttributePath, Occurrence]
    problem: str


def listed(path: Path, values: bool) -> Listed:
    """One file's headers and all its attributes; with the beginning of their `values`, if asked for.

    Raises  InvalidFile         not DICOM, truncated, damaged, or past a bound: as the bridge would refuse it
            SourceUnavailable   it cannot be read (FileNotFoundError passes)
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a named pipe would block
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise InvalidFile("not a regular file")
            return _listed(Window(partial(os.pread, descriptor), status.st_size), values)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except PermissionError:
        raise InvalidFile("the file may not be read: check its permissions") from None
    except OSError as error:
        raise SourceUnavailable(f"a file cannot be read: {error.strerror}") from None


def _listed(window: Window, values: bool) -> Listed:
    reading = Reading(whole=False)
    listing = _Listing(values)
    reading.walk = listing
    reading.read(window)
    if reading.failure:
        raise InvalidFile(reading.failure)
    listing.file_meta(window)
    return Listed(reading.headers(), listing.attributes, listing.problem)


class _Listing(Walk):
    """The walk, and a second one that lists."""

    def __init__(self, values: bool) -> None:
        super().__init__(whole=False)
        self._with_values = values
        self.attributes: dict[AttributePath, Occurrence] = {}
        self.problem = ""

    def data_set(self, window: Window, position: int, syntax: Syntax) -> None:
        super().data_set(window, position, syntax)
        self._window_of(window)
        try:
            self._level(position, window.size, syntax, (), (), charset(b""))
        except InvalidFile as error:
            self.problem = str(error)

    def file_meta(self, window: Window) -> None:
        """Lists group 0002, which always is explicit little endian."""
        self._window_of(window)
        start = window.at(0, min(window.size, 132))
        try:
            self._level(132 if start[128:] == b"DICM" else 0, window.size, EXPLICIT, (), (), charset(b""), group=2)
        except InvalidFile as error:
            self.problem = str(error)

    def _window_of(self, window: Window) -> None:
        fresh = Walk(whole=False)
        self._window, self._elements, self._parts = window, fresh._elements, fresh._parts

    def _level(
        self,
        position: int,
        end: int,
        syntax: Syntax,
        path: AttributePath | None,
        tags: tuple[int, ...],
        encodings: Charset,
        group: int = 0,
    ) -> int:
        """Lists a data set or an item; the position after it. `path` None: it is only passed over."""
        window = self._window
        creators: dict[int, str] = {}
        while position < end:
            at = window.head(position)
            plan = syntax.plans[window.buffer[at : at + syntax.key_bytes]]
            if plan is None:
                return position + 8 if window.buffer[at : at + 4] == syntax.item_end else end
            if group and plan.tag >> 16 != group:
                return position
            self._elements -= 1
            if self._elements < 0:
                raise InvalidFile("more data elements than are listed")
            vr = VRS.get(window.buffer[at + 4 : at + 6], "") if syntax.explicit else ""
            position, length = self._head(plan, at, position, syntax)
            if length != UNDEFINED and position + length > end:
                raise self._short(plan.tag, length, end - position)
            if plan.tag == CHARACTER_SET:
                encodings = charset(window.at(position, min(length, COMPARED_BYTES)))
            odd = plan.tag >> 16 & 1
            place = None if odd or path is None or len(path) > MAXIMUM_SEQUENCE_DEPTH else (*path, _named(plan.tag))
            start = position
            if self._enters(plan, vr, length, place):
                inner = IMPLICIT if plan.kind is Kind.UNKNOWN else syntax
                stop = end if length == UNDEFINED else position + length
                position = self._items(position, stop, inner, place, (*tags, plan.tag), encodings)
                vr = "SQ"
            elif length == UNDEFINED:
                position = self._fragments(position, end, syntax, plan.tag)
            else:
                position += length
            if path is None:
                continue
            if odd:
                self._private(plan.tag, start, length, path, tags, creators)
            elif place is not None:
                self._add(place, (*tags, plan.tag), plan, vr, start, position - start, syntax, encodings)
        return end

    def _head(self, plan: Plan, at: int, position: int, syntax: Syntax) -> tuple[int, int]:
        buffer = self._window.buffer
        if plan.length_at == 6:
            return position + 8, int(syntax.u16(buffer, at + 6)[0])
        return position + plan.length_at + 4, int(syntax.u32(buffer, at + plan.length_at)[0])

    def _enters(self, plan: Plan, vr: str, length: int, place: AttributePath | None) -> bool:
        if plan.kind is Kind.SEQUENCE:
            return length == UNDEFINED or (length > 0 and place is not None)
        if plan.kind is not Kind.UNKNOWN:
            return False
        return length == UNDEFINED or (length > 0 and place is not None and plan.keyword != "")

    def _items(
        self,
        position: int,
        end: int,
        syntax: Syntax,
        path: AttributePath | None,
        tags: tuple[int, ...],
        encodings: Charset,
    ) -> int:
        window = self._window
        self._check_bounds(2 * len(tags))
        while position < end:
            at = window.head(position)
            mark, length = window.buffer[at : at + 4], int(syntax.u32(window.buffer, at + 4)[0])
            position += 8
            if mark == syntax.sequence_end:
                return position
            if mark != syntax.item:
                raise self._misplaced(mark, syntax, position, end)
            self._part()
            stop = end if length == UNDEFINED else position + length
            if stop > end:
                raise InvalidFile("truncated: a sequence item is longer than what is left")
            position = self._level(position, stop, syntax, path, tags, encodings)
        return end

    def _add(
        self,
        path: AttributePath,
        tags: tuple[int, ...],
        plan: Plan,
        vr: str,
        position: int,
        length: int,
        syntax: Syntax,
        encodings: Charset,
    ) -> None:
        vr = vr or _dictionary_vr(plan.tag)
        compared = vr != "SQ" and plan.tag not in (PIXEL_DATA, *OTHER_PIXELS)
        raw = self._window.at(position, min(length, COMPARED_BYTES)) if compared else b""
        digest = hash((length, raw)) if compared else None
        known = self.attributes.get(path)
        if known is not None:
            known.length = max(known.length, length)
            known.digest = None if digest is None else hash((known.digest, digest))
            return
        value = ""
        if self._with_values and compared and vr not in _NUMBERED:
            order = ">" if syntax is BIG else "<"
            found, _ = read_value(vr, _dictionary_vr(plan.tag, vr), order, raw, encodings)
            value = shown("\\".join(_text(v) for v in found[:8]))
        self.attributes[path] = Occurrence(tags, vr, length, digest, value)

    def _private(
        self,
        tag: int,
        position: int,
        length: int,
        path: AttributePath,
        tags: tuple[int, ...],
        creators: dict[int, str],
    ) -> None:
        """Counts a private element under its creator (PS3.5 7.8.1)."""
        element = tag & 0xFFFF
        if 0x10 <= element <= 0xFF:
            raw = self._window.at(position, min(length, _CREATOR_CHARACTERS)) if length != UNDEFINED else b""
            creators[tag >> 16 << 8 | element] = shown(raw.decode("ascii", "replace").strip(" \0"))
            return
        creator = creators.get(tag >> 8, "")
        name = f"({tag >> 16:04X},--) {creator or 'no creator'}"
        one = self.attributes.setdefault((*path, name), Occurrence((*tags, tag & 0xFFFF0000), "", 0, None))
        one.private.add(tag)


def shown(text: str) -> str:
    """Text from a file, short and on one line, without anything a terminal would obey."""
    clean = printable(text[: SHOWN_CHARACTERS + 1])
    return clean if len(clean) <= SHOWN_CHARACTERS else clean[: SHOWN_CHARACTERS - 1] + "…"


def printable(text: str) -> str:
    """The text with U+FFFD for what is no printable character."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _text(value: object) -> str:
    return "=".join(value).rstrip("=") if isinstance(value, PersonName) else str(value)


@lru_cache(maxsize=20_000)
def _named(tag: int) -> str:
    """The keyword; with the tag where it stands for several, as for overlays in groups 6000 to 601E."""
    return name_of(tag) if tag >> 24 in (0x50, 0x60) else keyword_of(tag)


@lru_cache(maxsize=20_000)
def _dictionary_vr(tag: int, instead: str = "UN") -> str:
    try:
        return str(dictionary_VR(tag)).split(" or ")[0]
    except KeyError:
        return instead
