"""Data elements byte by byte, for objects that no library would write."""

from __future__ import annotations

import struct
import zlib

UNDEFINED = 0xFFFFFFFF
EXPLICIT, IMPLICIT, DEFLATED = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99"
CT, SECONDARY_CAPTURE, REPORT = (f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("2", "7", "88.11"))
LONG = (b"OB", b"OW", b"SQ", b"UC", b"UN", b"UT")


def element(tag: int, vr: bytes, value: bytes = b"", length: int | None = None) -> bytes:
    """One element, explicit little endian; `length` when it is to lie, or to be undefined."""
    said = len(value) if length is None else length
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    return head + (struct.pack("<HI", 0, said) if vr in LONG else struct.pack("<H", said)) + value


def implicit(tag: int, value: bytes = b"", length: int | None = None) -> bytes:
    """One element, or item or delimiter, without value representation."""
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value) if length is None else length) + value


def item(value: bytes = b"", length: int | None = None) -> bytes:
    """One sequence item or fragment."""
    return implicit(0xFFFEE000, value, length)


ITEM_END, SEQUENCE_END = implicit(0xFFFEE00D), implicit(0xFFFEE0DD)


def text(value: str) -> bytes:
    """A value padded to an even length."""
    return value.encode() + b" " * (len(value) % 2)


def identity(sop_class: str = REPORT, study: str = "1.2.3", charset: str = "ISO_IR 192") -> bytes:
    """What a data set must begin with to have a place in a study."""
    return (
        element(0x00080005, b"CS", text(charset))
        + element(0x00080016, b"UI", text(sop_class))
        + element(0x00080018, b"UI", text("1.2.3.4.5"))
        + element(0x0020000D, b"UI", text(study))
        + element(0x0020000E, b"UI", text("1.2.3.4"))
    )


def part10(data_set: bytes, transfer_syntax: str = EXPLICIT, sop_class: str = REPORT) -> bytes:
    """The file of a data set; its bytes are deflated where the transfer syntax says so."""
    meta = (
        element(0x00020002, b"UI", text(sop_class))
        + element(0x00020003, b"UI", text("1.2.3.4.5"))
        + element(0x00020010, b"UI", text(transfer_syntax))
    )
    if transfer_syntax == DEFLATED:
        squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)
        data_set = squeezer.compress(data_set) + squeezer.flush()
    return bytes(128) + b"DICM" + element(0x00020000, b"UL", struct.pack("<I", len(meta))) + meta + data_set


def image(pixels: bytes, transfer_syntax: str = EXPLICIT, *, frames: int = 1, undefined: bool = False) -> bytes:
    """The file of an image of 4 by 4 pixels of 16 bits."""
    numbers = {0x00280002: 1, 0x00280010: 4, 0x00280011: 4, 0x00280100: 16}
    said = b"".join(element(tag, b"US", struct.pack("<H", value)) for tag, value in numbers.items())
    frames_said = element(0x00280008, b"IS", text(str(frames)))
    said = said[:10] + frames_said + said[10:]
    length = UNDEFINED if undefined else None
    data_set = identity(SECONDARY_CAPTURE) + said + element(0x7FE00010, b"OW", pixels, length)
    return part10(data_set, transfer_syntax, SECONDARY_CAPTURE)
