"""Identifiers of queries and of their answers, in implicit VR little endian, which everybody speaks (PS3.4 C.4.1)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache

from pydicom.datadict import dictionary_VR, tag_for_keyword

from bridge.errors import InvalidFile
from bridge.sources.part10 import read_data_set
from bridge.translate.headers import Headers

MAXIMUM_DEPTH = 32
_ELEMENT = struct.Struct("<HHI")
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD


def encoded(keys: Mapping[str, str]) -> bytes:
    """An identifier of keys by keyword; an empty value asks for the attribute, a sequence can only be asked for."""
    out = []
    for tag, keyword in sorted((tag_of(keyword), keyword) for keyword in keys):
        value = keys[keyword].encode("ascii")
        if len(value) % 2:
            value += b"\0" if dictionary_VR(tag) == "UI" else b" "
        out.append(_ELEMENT.pack(tag >> 16, tag & 0xFFFF, len(value)) + value)
    return b"".join(out)


@lru_cache(maxsize=512)
def tag_of(keyword: str) -> int:
    """The tag of a keyword. Raises KeyError."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return int(tag)


class Match:
    """One match of a query: its values undecoded, decoded as they are asked for.

    Raises InvalidFile when it is not a data set.
    """

    __slots__ = ("_elements", "content")

    def __init__(self, content: bytes) -> None:
        self.content, self._elements = content, _elements(content)

    def raw(self, keyword: str) -> bytes:
        """The bytes of a value without padding; b"" when absent or empty."""
        return self._elements.get(tag_of(keyword), b"").strip(b" \0")

    def text(self, keyword: str) -> str:
        """A value of the default repertoire: a UID, a code, a date, a number."""
        return self.raw(keyword).decode("ascii", "replace")

    def count(self, keyword: str) -> int | None:
        """A whole number from 0; None when absent or none."""
        text = self.text(keyword)
        return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None

    def headers(self) -> Headers:
        """What the translation wants of it, text decoded by its Specific Character Set. Raises InvalidFile."""
        return read_data_set(self.content)


def _elements(content: bytes) -> dict[int, bytes]:
    """Tag → value of the elements on top; of sequences of undefined length nothing."""
    found: dict[int, bytes] = {}
    position, end, unpack = 0, len(content), _ELEMENT.unpack_from
    while position + 8 <= end:
        group, element, length = unpack(content, position)
        position += 8
        if length == _UNDEFINED:
            position = _sequence_end(content, position)
            continue
        if length > end - position:
            raise InvalidFile("a match ends within an element")
        found[group << 16 | element] = content[position : position + length]
        position += length
    if position != end:
        raise InvalidFile("a match ends within an element")
    return found


def _sequence_end(content: bytes, position: int) -> int:
    """The offset after a sequence of undefined length."""
    open_ = [_SEQUENCE_END]
    while position + 8 <= len(content):
        group, element, length = _ELEMENT.unpack_from(content, position)
        tag = group << 16 | element
        position += 8
        if tag == open_[-1]:
            open_.pop()
            if not open_:
                return position
        elif length == _UNDEFINED:
            open_.append(_ITEM_END if tag == _ITEM else _SEQUENCE_END)
            if len(open_) > MAXIMUM_DEPTH:
                raise InvalidFile(f"a match has sequences nested deeper than {MAXIMUM_DEPTH}")
        else:
            position += length
    raise InvalidFile("a match has a sequence without end")
