"""Bounded windows over the bytes of one object: a file, or what a deflated one inflates to."""

from __future__ import annotations

from collections.abc import Callable

from bridge.errors import InvalidFile

FIRST_BYTES, NEXT_BYTES, FRAGMENT_BYTES = 16_384, 65_536, 4_096
"""Most headers end within the first window; fragments are mostly longer than a window, so only their heads are read."""

HEAD_BYTES = 12
"""The longest head of a data element."""

_PAD = bytes(HEAD_BYTES)


class Window:
    """`buffer` holds the bytes from `base` to `have`. An element's head at `safe` or before lies wholly in it.

    The last window is padded with zeros, so that a head may always be taken; whoever takes it must see for himself
    that it lies before the end.
    """

    __slots__ = ("_read", "base", "buffer", "have", "safe", "size")

    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        self._read, self.size = read, size
        self.base = self.have = 0
        self.buffer = b""
        self.move(0, FIRST_BYTES)

    @classmethod
    def over(cls, content: bytes | bytearray) -> Window:
        """Windows over what lies in memory."""
        view = memoryview(content)
        return cls(lambda length, offset: bytes(view[offset : offset + length]), len(content))

    def move(self, position: int, length: int = NEXT_BYTES) -> tuple[bytes, int, int, int]:
        """(buffer, base, safe, have) of the window that begins at a position."""
        self.buffer = self.at(position, min(length, self.size - position))
        self.base, self.have = position, position + len(self.buffer)
        self.safe = self.have - HEAD_BYTES
        if self.have == self.size:
            self.buffer += _PAD
            self.safe = self.size
        return self.state()

    def state(self) -> tuple[bytes, int, int, int]:
        """(buffer, base, safe, have) as they are."""
        return self.buffer, self.base, self.safe, self.have

    def at(self, position: int, length: int) -> bytes:
        """Bytes that must be there. Raises InvalidFile when the file has become shorter meanwhile."""
        start = position - self.base
        if start >= 0 and position + length <= self.have:
            return self.buffer[start : start + length]
        found = self._read(length, position)
        if len(found) != length:
            raise InvalidFile(f"truncated: the file ended at offset {position + len(found)} while it was read")
        return found

    def head(self, position: int) -> int:
        """The index in `buffer` of an element's head, the window moved if need be: for what is read once or rarely."""
        if not self.base <= position <= self.safe:
            self.move(position, FRAGMENT_BYTES)
        return position - self.base
