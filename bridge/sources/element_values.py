"""The bytes of one data element's value → the values that `Headers` keep (PS3.5 6.2).

Most values are plain: ASCII, printable, a number as it should be. A `plain` reader takes only those, quickly, and gives
None for anything else, which `read_value` then takes by the general rules, and says what is odd about it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any

from bridge.sources.text import Charset, charset, decoded, with_controls_marked, without_controls
from bridge.translate.headers import Value
from bridge.translate.values import (
    FLOAT_VRS,
    INTEGER_VRS,
    LEADING_SPACE_MATTERS,
    PersonName,
    normal_values,
    split_text,
)

Values = tuple[Value, ...]
Plain = Callable[[bytes], Values | None]
Reader = Callable[[bytes, Charset], tuple[Values, str]]

BINARY = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "UV": "Q", "SV": "q"}
_CHARSET_VRS = frozenset({"SH", "LO", "ST", "LT", "UC", "UT", "PN"})
_EXACT = INTEGER_VRS | FLOAT_VRS | {"UI"}
_DEFAULT = charset(b"")
_LONGEST_PLAIN_INTEGER = 15
_NOT_A_TEXT = frozenset({"SQ", "AT", "OB", "OD", "OF", "OL", "OV", "OW"})


def plain_reader(vr: str, order: str) -> Plain:
    """The quick reader of a value representation in a byte order (`<` or `>`)."""
    if vr in BINARY:
        return _plain_binary(vr, order)
    return _PLAIN.get(vr, _plain_text)


def read_value(vr: str, dictionary_vr: str, order: str, raw: bytes, encodings: Charset) -> tuple[Values, str]:
    """(values, what is odd about them or ""). `vr` is what the element says, "" or UN when it says nothing."""
    binary = vr if vr in BINARY else dictionary_vr if vr in ("", "UN") and dictionary_vr in BINARY else ""
    if binary:
        return _numbers(raw, BINARY[binary], order, dictionary_vr)
    if vr in _NOT_A_TEXT:
        return (), "has a value representation that it cannot have: left out"
    text = decoded(raw, encodings if dictionary_vr in _CHARSET_VRS else _DEFAULT).rstrip("\0 ")
    clean = with_controls_marked if dictionary_vr in _EXACT else without_controls
    values = normal_values(dictionary_vr, split_text(dictionary_vr, clean(text)))
    return values, _oddity(dictionary_vr, text, values)


def _oddity(vr: str, text: str, values: Values) -> str:
    if vr in INTEGER_VRS | FLOAT_VRS:
        return "is not a number" if any(isinstance(v, str) and v for v in values) else ""
    if (with_controls_marked if vr in _EXACT else without_controls)(text) != text:
        return "has control characters"
    return "has bytes outside its character set" if "\N{REPLACEMENT CHARACTER}" in text else ""


def _numbers(raw: bytes, code: str, order: str, dictionary_vr: str) -> tuple[Values, str]:
    size = struct.calcsize("=" + code)
    count = len(raw) // size
    found: list[Any] = list(struct.unpack_from(f"{order}{count}{code}", raw))
    return normal_values(dictionary_vr, found), "has a length that its value representation cannot have" if len(
        raw
    ) % size else ""


def _plain_text(raw: bytes) -> Values | None:
    if raw.isascii():
        text = str(raw, "ascii").strip(" \0")
        if text.isprintable():
            if "\\" not in text:
                return (text,) if text else ()
            return normal_values("CS", text.split("\\"))
    return None


def _plain_name(raw: bytes) -> Values | None:
    if raw.isascii() and b"=" not in raw and b"\\" not in raw:
        text = str(raw, "ascii").strip(" \0")
        if text.isprintable():
            name = text.rstrip("^ ")
            return (PersonName(name),) if name else ()
    return None


def _plain_integer(raw: bytes) -> Values | None:
    if len(raw) > _LONGEST_PLAIN_INTEGER or raw.translate(None, b"0123456789+- "):
        return None
    try:
        return (int(raw),)
    except ValueError:
        return None


def _plain_decimal(raw: bytes) -> Values | None:
    if raw.translate(None, b"0123456789+-.eE \\"):
        return None
    try:
        found = tuple(map(float, raw.split(b"\\")))
    except ValueError:
        return None
    return found if math.isfinite(sum(found)) else None


def _plain_binary(vr: str, order: str) -> Plain:
    """One number; it is taken as it is, but for a float that is none."""
    one = struct.Struct(order + BINARY[vr])
    size, unpack = one.size, one.unpack

    def integer(raw: bytes) -> Values | None:
        return unpack(raw) if len(raw) == size else None

    def decimal(raw: bytes) -> Values | None:
        found = unpack(raw) if len(raw) == size else (math.nan,)
        return found if math.isfinite(found[0]) else None

    return decimal if vr in FLOAT_VRS else integer


def _never(_raw: bytes) -> Values | None:
    return None


_PLAIN: dict[str, Plain] = {
    "PN": _plain_name,
    "IS": _plain_integer,
    "DS": _plain_decimal,
    **dict.fromkeys([*LEADING_SPACE_MATTERS, "UR"], _never),
}
