"""multipart/related (RFC 2046 5.1, RFC 2387) while it arrives. Pure; bounded memory; a part without end is no part."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email.message import Message

MAXIMUM_PREAMBLE = MAXIMUM_PART_HEADER = 65_536


class Damaged(Exception):
    """The content is not the multipart message that its header announces, or it ended too early."""


@dataclass(frozen=True)
class Piece:
    """Some bytes of a part; `last` says that the part is whole with them."""

    content: bytes
    last: bool


def boundary(content_type: str) -> bytes | None:
    """The boundary of a multipart Content-Type; None for any other type. Raises Damaged when it names none.

    >>> boundary('multipart/related; type="application/dicom"; boundary="a b"')
    b'a b'
    """
    header = Message()
    header["Content-Type"] = " ".join(content_type.split())
    if header.get_content_maintype() != "multipart":
        return None
    found = header.get_boundary()
    if not found or not 0 < len(found) <= 70 or not found.isascii():
        raise Damaged("its Content-Type names no boundary")
    return found.encode()


def pieces(chunks: Iterable[bytes], boundary: bytes) -> Iterator[Piece]:
    """The content of the parts, one after another. Raises Damaged when the message ends before its closing boundary."""
    stream = _Stream(chunks)
    delimiter = b"\r\n--" + boundary
    for _ in stream.until(delimiter, MAXIMUM_PREAMBLE):
        pass
    while not stream.closing():
        head = b"".join(stream.until(b"\r\n\r\n", MAXIMUM_PART_HEADER))
        if head.strip(b" \t") and not head.lstrip(b" \t").startswith(b"\r\n"):
            raise Damaged("a boundary is not followed by a line's end")
        for content in stream.until(delimiter, None):
            yield Piece(content, False)
        yield Piece(b"", True)


def first_part(chunks: Iterable[bytes], boundary: bytes) -> Iterator[bytes]:
    """The content of the first part alone. Raises Damaged when it has no end, or there is no part."""
    empty = True
    for piece in pieces(chunks, boundary):
        empty = False
        if piece.last:
            return
        yield piece.content
    if empty:
        raise Damaged("it has no part")


class _Stream:
    """Bytes that were received and not used yet. They begin as if an empty line stood before the first boundary."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks, self._buffer = iter(chunks), bytearray(b"\r\n")

    def until(self, mark: bytes, most: int | None) -> Iterator[bytes]:
        """What stands before the next mark, which is taken off as well."""
        size, start = 0, 0
        while (at := self._buffer.find(mark, start)) < 0:
            sure = len(self._buffer) - len(mark) + 1
            if most is not None:
                start = max(sure, 0)
                if len(self._buffer) > most:
                    raise Damaged("no boundary, or no end of a part's header, where one must be")
            elif sure > 0:
                size += sure
                yield bytes(memoryview(self._buffer)[:sure])
                del self._buffer[:sure]
            self._more()
        if at:
            yield bytes(memoryview(self._buffer)[:at])
        del self._buffer[: at + len(mark)]

    def closing(self) -> bool:
        """Whether the boundary just taken off is the last one. The line's end after another one is left in place."""
        while len(self._buffer) < 2:
            self._more()
        return self._buffer.startswith(b"--")

    def _more(self) -> None:
        try:
            self._buffer += next(self._chunks)
        except StopIteration:
            raise Damaged("it ended before its closing boundary") from None
