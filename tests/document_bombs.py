"""Elements that are small in a file and dear to read: to stand in a document behind what identifies it."""

from __future__ import annotations

from tests.raw_elements import SEQUENCE_END, UNDEFINED, element, item


def many_items(number: int) -> bytes:
    """So many empty items of content: 8 bytes each, and some 20 µs and 600 bytes when they are read."""
    return element(0x0040A730, b"SQ", item() * number, UNDEFINED) + SEQUENCE_END


def many_values(number: int) -> bytes:
    """One element of so many values: a byte each, and some 25 when they are looked at."""
    return element(0x0040A160, b"UC", b"\\" * number)
