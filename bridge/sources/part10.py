"""Reads the kept attributes of a DICOM Part 10 file, and whether the file is whole (PS3.10 7, PS3.5 7).

Its own walk over the data elements: it takes only what `translate.headers` wants, jumps over the rest, and checks
that every element's declared length lies inside the file, so that a truncated file is seen, which pydicom's
reader does not tell. Nothing recurses; depth, counts and value lengths are bounded.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bridge.errors import InvalidFile, SourceUnavailable
from bridge.sources.text import Charset, charset, decode
from bridge.translate.headers import (
    MAXIMUM_SEQUENCE_DEPTH,
    WANTED_TAGS,
    Headers,
    Value,
    keyword_of,
    normal_values,
    split_text,
)

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
DEFLATED_LITTLE = "1.2.840.10008.1.2.1.99"

MAXIMUM_ELEMENTS = 200_000
MAXIMUM_ITEMS = 1_000_000
MAXIMUM_NESTING = 32
MAXIMUM_VALUE_BYTES = 65_536
MAXIMUM_INFLATED_BYTES = 512 * 1024 * 1024
MAXIMUM_INFLATION = 50

_WINDOW = 65_536
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_CHARACTER_SET, _PER_FRAME = 0x00080005, 0x52009230
_LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_SHORT_VRS = frozenset(
    {
        b"AE",
        b"AS",
        b"AT",
        b"CS",
        b"DA",
        b"DS",
        b"DT",
        b"FD",
        b"FL",
        b"IS",
        b"LO",
        b"LT",
        b"PN",
        b"SH",
        b"SL",
        b"SS",
        b"ST",
    }
    | {b"TM", b"UI", b"UL", b"US"}
)
_BINARY = {b"US": "H", b"SS": "h", b"UL": "I", b"SL": "i", b"FL": "f", b"FD": "d", b"UV": "Q", b"SV": "q"}
_DICTIONARY_BINARY = {"US": b"US", "SS": b"SS", "UL": b"UL", "SL": b"SL", "FL": b"FL", "FD": b"FD"}


def read_headers(path: Path) -> Headers:
    """The kept attributes of one file, TransferSyntaxUID of its file meta among them.

    A DICOMDIR has its class as SOPClassUID. UIDs are not judged here.

    Raises  InvalidFile         not DICOM, truncated, damaged, or past a bound; never with a value
            SourceUnavailable   the file cannot be read (FileNotFoundError passes)
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            return _read(_Bytes(lambda length, offset: os.pread(descriptor, length, offset), size))
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except PermissionError:
        raise InvalidFile("the file may not be read: check its permissions") from None
    except OSError as error:
        raise SourceUnavailable(f"a file cannot be read: {error.strerror}") from None


def read_data_set(content: bytes) -> Headers:
    """The kept attributes of a bare data set in memory, implicit VR little endian, as a query is answered with.

    Raises InvalidFile when it is damaged, or past a bound; never with a value.
    """
    data = _Bytes(lambda length, offset: content[offset : offset + length], len(content))
    return Headers(dict(sorted(_data_set(data, 0, data.size, _IMPLICIT).items())))


class _Bytes:
    """Bounded windows over a file or a buffer. `at` raises InvalidFile past the end."""

    __slots__ = ("_read", "base", "size", "window")

    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        self._read, self.size = read, size
        self.base, self.window = 0, read(_WINDOW, 0)

    def seek(self, position: int) -> None:
        self.base, self.window = position, self._read(_WINDOW, position)

    def at(self, position: int, length: int) -> bytes:
        start = position - self.base
        if start < 0 or start + length > len(self.window):
            if position + length > self.size:
                raise InvalidFile(f"truncated: {length} bytes are missing or incomplete at offset {position}")
            if length > _WINDOW:
                return self._read(length, position)
            self.seek(position)
            start = 0
        found = self.window[start : start + length]
        if len(found) != length:
            raise InvalidFile(f"truncated: the file ended at offset {position} while it was read")
        return found


class _Syntax:
    """How data elements are encoded: byte order and explicit or implicit VR."""

    __slots__ = ("explicit", "order", "tag", "u16", "u32")

    def __init__(self, order: str, explicit: bool) -> None:
        self.order, self.explicit = order, explicit
        self.tag, self.u16, self.u32 = (
            struct.Struct(order + "HH"),
            struct.Struct(order + "H"),
            struct.Struct(order + "I"),
        )


_EXPLICIT, _IMPLICIT, _BIG = _Syntax("<", True), _Syntax("<", False), _Syntax(">", True)


def _read(data: _Bytes) -> Headers:
    if data.size == 0:
        raise InvalidFile("the file is empty")
    if data.window[128:132] != b"DICM":
        return _without_preamble(data)
    meta, position = _file_meta(data, 132)
    transfer_syntax = _meta_text(meta, 0x00020010)
    if transfer_syntax == DEFLATED_LITTLE:
        data, position = _inflated(data, position), 0
    syntax = _syntax(data, position, transfer_syntax)
    values = _data_set(data, position, data.size, syntax)
    if transfer_syntax:
        values["TransferSyntaxUID"] = (transfer_syntax,)
    if "SOPClassUID" not in values and (media_class := _meta_text(meta, 0x00020002)):
        values["SOPClassUID"] = (media_class,)
    return Headers(dict(sorted(values.items())))


def _without_preamble(data: _Bytes) -> Headers:
    """A data set that begins at once, as old systems wrote it; taken for DICOM when it begins as one must."""
    start = data.window[:8]
    if len(start) < 8 or (start[1] not in (0,) and start[0] not in (0,)):
        raise InvalidFile("not a DICOM file: no DICM marker, and it does not begin as a data set")
    group = struct.unpack_from("<H", start)[0]
    if group == 2:
        meta, position = _file_meta(data, 0)
        syntax = _syntax(data, position, _meta_text(meta, 0x00020010))
        return Headers(dict(sorted(_data_set(data, position, data.size, syntax).items())))
    if group == 8 or (group == 0x0800 and start[4:6] in _SHORT_VRS | _LONG_VRS):
        syntax = _BIG if group == 0x0800 else _EXPLICIT if start[4:6] in _SHORT_VRS | _LONG_VRS else _IMPLICIT
        values = _data_set(data, 0, data.size, syntax)
        if "SOPClassUID" in values or "StudyInstanceUID" in values or "Modality" in values:
            return Headers(dict(sorted(values.items())))
    raise InvalidFile("not a DICOM file: no DICM marker, and it does not begin as a data set")


def _file_meta(data: _Bytes, position: int) -> tuple[dict[int, bytes], int]:
    """Group 0002, always explicit little endian; its end is where another group begins, whatever it declares."""
    found: dict[int, bytes] = {}
    while position < data.size:
        if data.at(position, 2) != b"\x02\0":
            break
        tag, vr, length, value_at = _element(data, position, _EXPLICIT)
        if (vr not in _SHORT_VRS and vr not in _LONG_VRS) or length == _UNDEFINED:
            raise InvalidFile(f"damaged: file meta element {_name(tag)} has no value representation or length")
        if tag in (0x00020002, 0x00020010):
            found[tag] = data.at(value_at, min(length, 128))
        position = value_at + length
    if position > data.size:
        raise InvalidFile("truncated: the file ends within its file meta information")
    return found, position


def _meta_text(meta: dict[int, bytes], tag: int) -> str:
    return meta.get(tag, b"").decode("ascii", "replace").strip(" \0")


def _syntax(data: _Bytes, position: int, transfer_syntax: str) -> _Syntax:
    """The encoding the transfer syntax says, unless the first element plainly says otherwise."""
    if transfer_syntax == EXPLICIT_BIG:
        return _BIG
    if data.size - position < 8:
        return _EXPLICIT
    looks_explicit = data.at(position + 4, 2) in _SHORT_VRS | _LONG_VRS
    if not transfer_syntax or (transfer_syntax == IMPLICIT_LITTLE) == looks_explicit:
        return _EXPLICIT if looks_explicit else _IMPLICIT
    return _IMPLICIT if transfer_syntax == IMPLICIT_LITTLE else _EXPLICIT


def _inflated(data: _Bytes, position: int) -> _Bytes:
    compressed = data.at(position, data.size - position)
    most = min(MAXIMUM_INFLATED_BYTES, MAXIMUM_INFLATION * len(compressed) + 65_536)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = inflater.decompress(compressed, most)
    except zlib.error:
        raise InvalidFile("damaged: the deflated data set cannot be inflated") from None
    if inflater.unconsumed_tail:
        raise InvalidFile(f"the deflated data set inflates to more than {most} bytes: refused")
    if not inflater.eof:
        raise InvalidFile("truncated: the deflated data set has no end")
    return _Bytes(lambda length, offset: content[offset : offset + length], len(content))


def _element(data: _Bytes, position: int, syntax: _Syntax) -> tuple[int, bytes, int, int]:
    """(tag, VR or b"", length, offset of the value) of the element at a position."""
    head = data.at(position, 8)
    group, element = syntax.tag.unpack_from(head)
    tag = group << 16 | element
    if syntax.explicit and group != 0xFFFE:
        vr = head[4:6]
        if vr in _SHORT_VRS:
            return tag, vr, syntax.u16.unpack_from(head, 6)[0], position + 8
        if vr in _LONG_VRS:
            return tag, vr, syntax.u32.unpack(data.at(position + 8, 4))[0], position + 12
        if vr != b"\0\0":
            raise InvalidFile(f"damaged: element {_name(tag)} has no known value representation")
    return tag, b"", syntax.u32.unpack_from(head, 4)[0], position + 8


def _data_set(
    data: _Bytes, position: int, end: int, syntax: _Syntax, depth: int = 0, inherited: Charset | None = None
) -> dict[str, tuple[Value, ...]]:
    """The wanted values of the elements from `position` to `end` (or to the item's delimiter)."""
    values: dict[str, tuple[Value, ...]] = {}
    encodings = inherited or charset(b"")
    count = 0
    while position < end:
        if end - position < 8 or data.window[position - data.base : position - data.base + 4] == b"\0\0\0\0":
            _only_padding(data, position, end)
            break
        tag, vr, length, value_at = _element(data, position, syntax)
        if tag in (_ITEM_END, _SEQUENCE_END) and depth:
            break
        count += 1
        if count > MAXIMUM_ELEMENTS:
            raise InvalidFile(f"more than {MAXIMUM_ELEMENTS} data elements: refused")
        known = WANTED_TAGS.get(tag)
        if length == _UNDEFINED:
            if known and known[1] == "SQ" and depth < MAXIMUM_SEQUENCE_DEPTH:
                items, position = _items(data, value_at, end, _UNDEFINED, _inner(vr, syntax), depth, encodings)
                if items:
                    values[known[0]] = items
            else:
                position = _skip_undefined(data, value_at, end, _inner(vr, syntax), tag)
            continue
        position = value_at + length
        if position > end:
            raise InvalidFile(f"truncated: {_name(tag)} declares {length} bytes, {end - value_at} are there")
        if tag == _CHARACTER_SET:
            encodings = charset(data.at(value_at, min(length, 256)))
        elif known and length:
            found = _value(data, value_at, length, known, vr, syntax, depth, encodings)
            if found:
                values[known[0]] = found
    return values


def _inner(vr: bytes, syntax: _Syntax) -> _Syntax:
    """Inside an UN element of undefined length everything is implicit little endian (PS3.5 6.2.2)."""
    return _IMPLICIT if vr == b"UN" else syntax


def _only_padding(data: _Bytes, position: int, end: int) -> None:
    """Some writers pad the end with zeros; anything else there is damage."""
    while position < end:
        length = min(_WINDOW, end - position)
        if data.at(position, length).strip(b"\0"):
            raise InvalidFile(f"truncated or damaged: what lies at offset {position} is not a data element")
        position += length


def _value(
    data: _Bytes,
    value_at: int,
    length: int,
    known: tuple[str, str],
    vr: bytes,
    syntax: _Syntax,
    depth: int,
    encodings: Charset,
) -> tuple[Value, ...]:
    keyword, dictionary_vr = known
    if dictionary_vr == "SQ":
        if vr not in (b"SQ", b"UN", b""):
            return ()
        if depth >= MAXIMUM_SEQUENCE_DEPTH:
            return ()
        return _items(data, value_at, value_at + length, length, _inner(vr, syntax), depth, encodings)[0]
    if length > MAXIMUM_VALUE_BYTES:
        raise InvalidFile(f"{keyword} is longer than {MAXIMUM_VALUE_BYTES} bytes: refused")
    raw = data.at(value_at, length)
    binary = vr if vr in _BINARY else _DICTIONARY_BINARY.get(dictionary_vr) if vr in (b"", b"UN") else None
    if binary is not None:
        return _numbers(raw, _BINARY[binary], syntax.order, dictionary_vr)
    if vr in (b"SQ", b"AT") or (vr.startswith(b"O") and vr != b""):
        return ()
    text = decode(raw, encodings if dictionary_vr in _CHARSET_VRS else charset(b""))
    return normal_values(dictionary_vr, split_text(dictionary_vr, text))


_CHARSET_VRS = frozenset({"SH", "LO", "ST", "LT", "UC", "UT", "PN"})


def _numbers(raw: bytes, code: str, order: str, dictionary_vr: str) -> tuple[Value, ...]:
    size = struct.calcsize("=" + code)
    count = len(raw) // size
    found: list[Any] = list(struct.unpack_from(f"{order}{count}{code}", raw))
    return normal_values(dictionary_vr, found)


def _items(
    data: _Bytes, position: int, end: int, length: int, syntax: _Syntax, depth: int, encodings: Charset
) -> tuple[tuple[Value, ...], int]:
    """(items, offset after the sequence). Recursion is bounded by MAXIMUM_SEQUENCE_DEPTH."""
    items: list[Value] = []
    while position < end:
        if len(items) > MAXIMUM_ELEMENTS:
            raise InvalidFile(f"a sequence has more than {MAXIMUM_ELEMENTS} items: refused")
        tag, _, item_length, item_at = _element(data, position, syntax)
        if tag == _SEQUENCE_END:
            return tuple(items), item_at
        if tag != _ITEM:
            raise InvalidFile(f"damaged: {_name(tag)} stands where a sequence item must begin")
        if item_length == _UNDEFINED:
            item_end = _skip_item(data, item_at, end, syntax)
            after = item_end + 8
        else:
            item_end = after = item_at + item_length
            if item_end > end:
                raise InvalidFile("truncated: a sequence item is longer than what is left")
        items.append(Headers(dict(sorted(_data_set(data, item_at, item_end, syntax, depth + 1, encodings).items()))))
        position = after
    if length == _UNDEFINED:
        raise InvalidFile("truncated: a sequence has no end")
    return tuple(items), position


def _skip_item(data: _Bytes, position: int, end: int, syntax: _Syntax) -> int:
    """The offset of the delimiter that ends an item of undefined length."""
    return _skip(data, position, end, [(True, syntax)], _ITEM) - 8


def _skip_undefined(data: _Bytes, position: int, end: int, syntax: _Syntax, tag: int) -> int:
    """The offset after a sequence, or encapsulated pixel data, of undefined length."""
    return _skip(data, position, end, [(False, syntax)], tag)


def _skip(data: _Bytes, position: int, end: int, open_: list[tuple[bool, _Syntax]], tag: int) -> int:
    """Walks what is open (True: an item, False: a sequence) to its delimiter. Keeps a stack, does not recurse."""
    count = 0
    while position < end:
        count += 1
        if count > MAXIMUM_ITEMS:
            raise InvalidFile(f"{_name(tag)} has more than {MAXIMUM_ITEMS} parts: refused")
        in_item, syntax = open_[-1]
        inner, vr, length, value_at = _element(data, position, syntax)
        if inner == (_ITEM_END if in_item else _SEQUENCE_END):
            open_.pop()
            position = value_at
            if not open_:
                return position
            continue
        if in_item == (inner == _ITEM) or inner in (_ITEM_END, _SEQUENCE_END):
            raise InvalidFile(f"damaged: {_name(inner)} stands where it cannot inside {_name(tag)}")
        if length == _UNDEFINED:
            open_.append((not in_item, _inner(vr, syntax)))
            if len(open_) > MAXIMUM_NESTING:
                raise InvalidFile(f"sequences nested deeper than {MAXIMUM_NESTING}: refused")
            position = value_at
        else:
            position = value_at + length
            if position > end:
                break
    raise InvalidFile(f"truncated: {_name(tag)} has no end")


def _name(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X}) {keyword_of(tag)}".removesuffix(
        f" ({tag >> 16:04X},{tag & 0xFFFF:04X})"
    )


def headers_of(read: Callable[[int, int], bytes], size: int) -> Headers:
    """The kept attributes of `size` bytes that `read(length, offset)` gives, as `read_headers` finds them in a file."""
    return _read(_Bytes(read, size))
