"""What to do with a data element, known from the first bytes of its head: its tag and value representation.

One look-up for each element answers all that its head can tell; what it answers for the tags of the dictionary, and for
private ones once they were seen, is remembered.
"""

from __future__ import annotations

import re
import struct
from enum import IntEnum
from functools import lru_cache, partial
from typing import NamedTuple

from pydicom.datadict import DicomDictionary  # type: ignore[attr-defined]

from bridge.sources.element_values import Plain, Reader, plain_reader, read_value
from bridge.translate.wanted import WANTED_TAGS

UNDEFINED = 0xFFFFFFFF
CHARACTER_SET, TRANSFER_SYNTAX = 0x00080005, 0x00020010
SAMPLES_PER_PIXEL, PIXEL_DATA, ENCAPSULATED_DOCUMENT = 0x00280002, 0x7FE00010, 0x00420011
OTHER_PIXELS = 0x7FE00008, 0x7FE00009, 0x00287FE0
"""FloatPixelData, DoubleFloatPixelData, PixelDataProviderURL: an image has one of them, or PixelData."""

NOTED = frozenset({CHARACTER_SET, SAMPLES_PER_PIXEL, PIXEL_DATA, *OTHER_PIXELS, ENCAPSULATED_DOCUMENT})
"""Not kept, but they tell how the rest is to be read, or whether the object is whole."""

LONG_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
SHORT_VRS = frozenset(
    {"AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "PN", "SH", "SL", "SS", "ST", "TM"}
    | {"UI", "UL", "US"}
)
VRS = {vr.encode(): vr for vr in LONG_VRS | SHORT_VRS}
_ANY_TEXT = bytes([9, 10, 12, 13, 27, *range(32, 127), *range(128, 256)])
_ASCII_TEXT = bytes(range(32, 127))
_ALLOWED = (
    dict.fromkeys(("LO", "LT", "PN", "SH", "ST"), _ANY_TEXT)
    | dict.fromkeys(("AE", "AS", "CS", "DA", "DT", "TM"), _ASCII_TEXT)
    | {"DS": b"0123456789+-.eE \\", "IS": b"0123456789+- \\", "UI": b"0123456789.\\"}
    | dict.fromkeys(("FD", "FL", "SL", "SS", "UL", "US"), b"")
)
"""Value representations of at most 65,534 bytes: in a longer one anything may lie."""

REMEMBERED = 50_000
"""A bound: whoever sends private tags at random makes reading slower, not larger."""


REMEMBERED_VALUES, REMEMBERED_BYTES = 4, 128
"""A slice says mostly what the slice before it said: of each kept attribute so many values are remembered, none longer
than that. Looking one up takes a third of reading it, and instances share it."""


class Kind(IntEnum):
    """What an element is to the walk."""

    SKIPPED = 0
    KEPT = 1
    SEQUENCE = 2
    UNKNOWN = 3
    """Of value representation UN, or implicit and not in the dictionary: it may be a sequence, then an implicit one."""
    NOTED = 4


class Plan(NamedTuple):
    """`length_at` where in the head the length stands; `keyword` "": the element is not kept; `plain` is for values of
    at most REMEMBERED_BYTES."""

    tag: int
    length_at: int
    kind: Kind
    keyword: str
    plain: Plain
    problem: str
    read: Reader
    allowed: bytes | None
    """The bytes its text may have; none of them for numbers in binary; None: it may have any."""


class Plans(dict[bytes, Plan | None]):
    """First bytes of a head → plan; None for what begins no data element (delimiters, padding, damage)."""

    def __init__(self, order: str, explicit: bool) -> None:
        super().__init__()
        self._order, self._explicit = order, explicit
        self._tag = struct.Struct(order + "HH")

    def __missing__(self, key: bytes) -> Plan | None:
        made = self._made(key) if len(key) == (6 if self._explicit else 4) else None
        if len(self) < REMEMBERED:
            self[key] = made
        return made

    def _made(self, key: bytes) -> Plan | None:
        group, element = self._tag.unpack_from(key)
        tag = group << 16 | element
        if group == 0xFFFE or tag == 0:
            return None
        vr = "" if not self._explicit or key[4:] == b"\0\0" else VRS.get(key[4:])
        if vr is None:
            return None
        keyword, dictionary_vr = WANTED_TAGS.get(tag, ("", "UN")) if group > 2 else ("", "UN")
        kind = _kind(tag, vr, keyword, dictionary_vr)
        if kind in (Kind.SEQUENCE, Kind.UNKNOWN) and dictionary_vr != "SQ":
            keyword = ""
        read = partial(read_value, vr, dictionary_vr, self._order)
        usual = vr in ("", dictionary_vr)
        plain = plain_reader(dictionary_vr, self._order) if usual else _never
        if usual and kind is Kind.KEPT:
            plain = lru_cache(REMEMBERED_VALUES)(plain)
        length_at = 4 if not vr else 8 if vr in LONG_VRS else 6
        allowed = _ALLOWED.get(vr or dictionary_vr)
        return Plan(tag, length_at, kind, keyword, plain, self._problem(tag, vr), read, allowed)

    def _problem(self, tag: int, vr: str) -> str:
        if tag >> 16 in (0, 2):
            return "of group 0000 or 0002 stands in the data set: ignored"
        if self._explicit and not vr:
            return "has no value representation"
        expected = _dictionary_vrs(tag)
        if not vr or not expected or vr in expected:
            return ""
        return f"has value representation {vr} instead of {' or '.join(expected)}"


def _kind(tag: int, vr: str, keyword: str, dictionary_vr: str) -> Kind:
    if tag in NOTED:
        return Kind.NOTED
    if vr == "SQ":
        return Kind.SEQUENCE
    if keyword and dictionary_vr != "SQ":
        return Kind.KEPT
    if vr == "UN":
        return Kind.UNKNOWN
    if vr:
        return Kind.SKIPPED
    expected = _dictionary_vrs(tag)
    return (
        Kind.UNKNOWN if not expected or expected == ("UN",) else Kind.SEQUENCE if expected == ("SQ",) else Kind.SKIPPED
    )


def _dictionary_vrs(tag: int) -> tuple[str, ...]:
    if tag & 0xFFFF == 0:
        return ("UL",)
    if tag >> 16 & 1:
        return ("LO",) if 0x10 <= tag & 0xFFFF <= 0xFF else ()
    entry = DicomDictionary.get(tag)
    return tuple(entry[0].split(" or ")) if entry else ()


def _never(_raw: bytes) -> None:
    return None


class Syntax:
    """How data elements are encoded: byte order, explicit or implicit value representation."""

    __slots__ = ("explicit", "item", "item_end", "key_bytes", "plans", "sequence_end", "u16", "u32")

    def __init__(self, order: str, explicit: bool) -> None:
        self.plans, self.key_bytes = Plans(order, explicit), 6 if explicit else 4
        self.explicit = explicit
        self.u16, self.u32 = struct.Struct(order + "H").unpack_from, struct.Struct(order + "I").unpack_from
        self.item, self.item_end, self.sequence_end = (
            struct.pack(order + "HH", 0xFFFE, element) for element in (0xE000, 0xE00D, 0xE0DD)
        )


EXPLICIT, IMPLICIT, BIG = Syntax("<", True), Syntax("<", False), Syntax(">", True)

_VR_IN_A_VALUE = re.compile(rb"(?=%s)" % b"|".join(sorted(VRS)))


def swallows_elements(value: bytes, syntax: Syntax) -> bool:
    """Whether whole data elements, up to its end, lie in a value: then a wrong length has swallowed them.

    Only what stands with explicit value representations can be recognised. From the back, so that every place is
    looked at once.
    """
    if not syntax.explicit:
        return False
    leads_to_end = {len(value)}
    starts = [found.start() - 4 for found in _VR_IN_A_VALUE.finditer(value, 4)]
    for start in reversed(starts):
        if _next_element(value, start, syntax) in leads_to_end:
            leads_to_end.add(start)
    return len(leads_to_end) > 1


def _next_element(value: bytes, at: int, syntax: Syntax) -> int:
    plan = syntax.plans[value[at : at + 6]]
    if plan is None or len(value) < at + (8 if plan.length_at == 6 else 12):
        return -1
    if plan.length_at == 6:
        return at + 8 + int(syntax.u16(value, at + 6)[0])
    return at + 12 + int(syntax.u32(value, at + 8)[0])
