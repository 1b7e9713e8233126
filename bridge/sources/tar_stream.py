"""Reads tar archives (POSIX ustar and pax, GNU), plain or gzipped, forwards and in bounded memory.

Our own reader because names and attributes of any length, and gzip streams that grow without end, have to be refused
before they are in memory.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from bridge.errors import InvalidFile

BLOCK = 512
MAXIMUM_ATTRIBUTES_BYTES = 1024**2
"""Of a pax header or a long name."""

_READ = 262_144
_NO_END = "truncated: the archive has no end"
_LINKS_AND_DEVICES = {b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device", b"6": "a pipe"}
_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK, _FOLDER, _SPARSE = b"x", b"g", b"L", b"K", b"5", b"S"
_FILES = (b"0", b"\0", b"7")


class Stream(Protocol):
    """Bytes in order. `consumed` counts those of the archive itself."""

    consumed: int

    def read(self, length: int) -> bytes:
        """The next bytes; fewer only at the end."""
        ...

    def skip(self, length: int) -> None:
        """Passes over bytes. Raises InvalidFile when the end comes first."""
        ...


@dataclass
class TarEntry:
    """One file; `problem` says why it cannot be used, "" if it can. What is not read of it is passed over."""

    name: str
    size: int
    problem: str
    consumed: int
    _stream: Stream
    _left: int

    def read(self, length: int) -> bytes:
        """The next bytes, at most so many; b"" at its end. Raises InvalidFile when the archive ends first."""
        wanted = min(length, self._left)
        found = self._stream.read(wanted)
        self._left -= len(found)
        if len(found) < wanted:
            raise InvalidFile("truncated: the archive ends within it")
        return found

    def finish(self) -> None:
        self._stream.skip(self._left + -self.size % BLOCK)
        self._left = 0


def entries(stream: Stream) -> Iterator[TarEntry]:
    """Everything but folders, in order. Raises InvalidFile when the archive is damaged or has no end."""
    attributes: dict[str, str] = {}
    while True:
        consumed, header = stream.consumed, stream.read(BLOCK)
        if len(header) < BLOCK:
            raise InvalidFile(_NO_END)
        if not header.strip(b"\0"):
            return
        kind, size = header[156:157], _number(header[124:136])
        if sum(header) - sum(header[148:156]) + 8 * 32 != _number(header[148:156]):
            raise InvalidFile("damaged: a member's header has a wrong checksum")
        if kind in (_PAX, _LONG_NAME):
            text = _attributes(stream, size)
            attributes |= _pax(text) if kind == _PAX else {"path": _text(text)}
            continue
        if kind in (_PAX_GLOBAL, _LONG_LINK):
            stream.skip(size + -size % BLOCK)
            continue
        name, problem = attributes.get("path") or _name(header), ""
        if kind in _LINKS_AND_DEVICES:
            size, problem = 0, f"{_LINKS_AND_DEVICES[kind]}: refused"
        else:
            size = _pax_size(attributes.get("size"), size)
        if kind == _SPARSE:
            _pass_sparse_map(stream, header)
        if kind == _SPARSE or any(key.startswith("GNU.sparse") for key in attributes):
            problem = "a sparse file: refused"
        elif kind not in (*_FILES, _FOLDER, *_LINKS_AND_DEVICES):
            problem = "a member of unknown type: refused"
        attributes = {}
        entry = TarEntry(name, size, problem, consumed, stream, size)
        if kind != _FOLDER and not name.endswith("/"):
            yield entry
        entry.finish()


def plain_stream(file: BinaryIO, size: int) -> Stream:
    """The bytes of a file of `size` bytes."""
    return _Plain(file, size)


def gzip_stream(file: BinaryIO, maximum_bytes: int) -> Stream:
    """The content of a gzip file, of all its parts. Raises InvalidFile when it is larger than `maximum_bytes`."""
    return _Gzip(file, maximum_bytes)


class _Plain:
    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size, self.consumed = file, size, 0

    def read(self, length: int) -> bytes:
        pieces: list[bytes] = []
        while length and (piece := self._file.read(length)):
            pieces.append(piece)
            length -= len(piece)
            self.consumed += len(piece)
        return b"".join(pieces)

    def skip(self, length: int) -> None:
        self.consumed += length
        if self.consumed > self._size:
            raise InvalidFile(_NO_END)
        self._file.seek(self.consumed)


class _Gzip:
    def __init__(self, file: BinaryIO, maximum_bytes: int) -> None:
        self._file, self._allowed, self.consumed = file, maximum_bytes, 0
        self._maximum, self._inflater = maximum_bytes, zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._packed, self._content, self._at, self._ended = b"", b"", 0, False

    def read(self, length: int) -> bytes:
        pieces: list[bytes] = []
        while length:
            if self._at == len(self._content) and not self._inflate():
                break
            piece = self._content[self._at : self._at + length]
            self._at += len(piece)
            length -= len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def skip(self, length: int) -> None:
        while length:
            if self._at == len(self._content) and not self._inflate():
                raise InvalidFile(_NO_END)
            step = min(length, len(self._content) - self._at)
            self._at += step
            length -= step

    def _inflate(self) -> bool:
        """The next content; False at the end."""
        self._content, self._at = b"", 0
        while not self._content:
            if self._inflater.eof and not self._next_part():
                return False
            if not self._packed and not self._fill():
                raise InvalidFile("truncated: the gzip stream has no end")
            try:
                self._content = self._inflater.decompress(self._packed, _READ)
            except zlib.error:
                raise InvalidFile("damaged: the gzip stream cannot be inflated") from None
            self._packed = self._inflater.unconsumed_tail
        self._allowed -= len(self._content)
        if self._allowed < 0:
            raise InvalidFile(f"it unpacks to more than {self._maximum} bytes: refused")
        return True

    def _next_part(self) -> bool:
        """Whether another gzip part follows; zeros after the last one are padding."""
        self._packed = self._inflater.unused_data.lstrip(b"\0") or self._packed
        while not self._packed:
            if not self._fill():
                return False
            self._packed = self._packed.lstrip(b"\0")
        if not self._packed.startswith(b"\x1f"):
            raise InvalidFile("damaged: something else follows the gzip stream")
        self._inflater = zlib.decompressobj(16 + zlib.MAX_WBITS)
        return True

    def _fill(self) -> bool:
        self._packed = self._file.read(_READ)
        self.consumed += len(self._packed)
        return bool(self._packed)


def _number(field: bytes) -> int:
    """A number of a header: octal text, or GNU's binary form for large ones."""
    try:
        if field[0] == 0x80:
            return int.from_bytes(field[1:], "big")
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        raise InvalidFile("damaged: a member's header has a number that is none") from None


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("utf-8", "backslashreplace")


def _name(header: bytes) -> str:
    prefix = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    name = header[:100].partition(b"\0")[0]
    return _text(prefix + b"/" + name if prefix else name)


def _attributes(stream: Stream, size: int) -> bytes:
    if size > MAXIMUM_ATTRIBUTES_BYTES:
        raise InvalidFile(f"a member's attributes are larger than {MAXIMUM_ATTRIBUTES_BYTES} bytes: refused")
    found = stream.read(size)
    if len(found) < size:
        raise InvalidFile(_NO_END)
    stream.skip(-size % BLOCK)
    return found


def _pax(raw: bytes) -> dict[str, str]:
    """Records `LENGTH KEY=VALUE` and a line feed each (POSIX pax)."""
    found: dict[str, str] = {}
    while raw:
        length_text, space, _ = raw.partition(b" ")
        length = int(length_text) if length_text.isdigit() and len(length_text) < 10 else 0
        key, equals, value = raw[len(length_text) + 1 : length - 1].partition(b"=")
        if not space or not equals or length <= len(length_text) + 1 or length > len(raw):
            raise InvalidFile("damaged: a member's pax attributes")
        found[_text(key)] = _text(value)
        raw = raw[length:]
    return found


def _pax_size(text: str | None, size: int) -> int:
    if text is None:
        return size
    if not text.isascii() or not text.isdigit() or len(text) > 20:
        raise InvalidFile("damaged: a member's pax attributes")
    return int(text)


def _pass_sparse_map(stream: Stream, header: bytes) -> None:
    more = header[482]
    while more:
        block = stream.read(BLOCK)
        if len(block) < BLOCK:
            raise InvalidFile(_NO_END)
        more = block[504]
