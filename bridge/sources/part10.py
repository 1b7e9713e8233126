"""Reads a DICOM object: its file meta information, then its data set by the one walk (PS3.10 7, PS3.5 7).

Objects come as Part 10 files, deflated or not, in either byte order, and as bare data sets, as old systems wrote them.
What the walk reads is bounded, and every length is held against what is there, so that a truncated object is seen.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bridge.errors import InvalidFile, SourceUnavailable
from bridge.sources.element_plans import BIG, EXPLICIT, IMPLICIT, UNDEFINED, VRS, Syntax
from bridge.sources.elements import OBJECT, Walk, in_keyword_order
from bridge.sources.window import HEAD_BYTES, NEXT_BYTES, Window
from bridge.translate.headers import Headers
from bridge.translate.values import is_ae_title
from bridge.translate.wanted import FILE_META

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
DEFLATED_LITTLE = "1.2.840.10008.1.2.1.99"

MAXIMUM_INFLATED_BYTES = 512 * 1024 * 1024
MAXIMUM_INFLATION = 50

MEDIA_CLASS, MEDIA_INSTANCE, TRANSFER_SYNTAX = 0x00020002, 0x00020003, 0x00020010

_INFLATED_ALWAYS = 65_536  # so much may come of however little: small headers deflate well
_META_VALUE_BYTES = 128
_GROUP_LENGTH = 0x00020000
_META_TAGS = frozenset({_GROUP_LENGTH, MEDIA_CLASS, MEDIA_INSTANCE, TRANSFER_SYNTAX, *FILE_META})
NO_DICOM = "not a DICOM file: no DICM marker, and it does not begin as a data set"


class Reading:
    """What was read of one object, even when reading it failed.

    `meta` tag → value of the file meta information, as it stands there; `walk` what the data set gave;
    `failure` why it could not be read to its end, or "".
    """

    def __init__(self, whole: bool) -> None:
        self.meta: dict[int, bytes] = {}
        self.walk = Walk(whole)
        self.failure = ""

    def meta_text(self, tag: int) -> str:
        """A UID, or an AE title, of the file meta information; "" when absent."""
        return self.meta.get(tag, b"").decode("ascii", "replace").strip(" \0")

    def headers(self) -> Headers:
        """The kept attributes, those of the file meta among them. A DICOMDIR has its class from there."""
        values = dict(self.walk.values)
        for tag, keyword in (*FILE_META.items(), (MEDIA_CLASS, "SOPClassUID")):
            text = self.meta_text(tag)
            if text and keyword not in values and (keyword.endswith("UID") or is_ae_title(text)):
                values[keyword] = (text,)
        return Headers.of_instance(values)

    def read(self, window: Window) -> None:
        """Reads the object to its end, or to where it cannot be read on: then `failure` says why."""
        try:
            self._read(window)
        except InvalidFile as error:
            self.failure = str(error)

    def _read(self, window: Window) -> None:
        if window.size == 0:
            raise InvalidFile("the file is empty")
        bare = window.buffer[128:132] != b"DICM"
        if bare and not _begins_as_data_set(window.buffer):
            raise InvalidFile(NO_DICOM)
        position = self._file_meta(window, 0 if bare else 132)
        if self.meta_text(TRANSFER_SYNTAX) == DEFLATED_LITTLE:
            window, position = self._inflated(window, position), 0
        self.walk.data_set(window, position, self._syntax(window, position))
        if bare:
            self.walk.odd(OBJECT, "has no preamble and no DICM marker")
            if not self.meta and not {"SOPClassUID", "StudyInstanceUID", "Modality"} & self.walk.values.keys():
                raise InvalidFile(NO_DICOM)

    def _file_meta(self, window: Window, position: int) -> int:
        """Group 0002, always explicit little endian; its end is where another group begins, whatever it declares."""
        declared_end = -1
        while position < window.size:
            at = window.head(position)
            head = window.buffer[at : at + HEAD_BYTES]
            if head[:2] != b"\x02\0":
                break
            plan = EXPLICIT.plans[head[:6]]
            length_at = plan.length_at if plan else 0
            length = int.from_bytes(head[length_at : 8 if length_at == 6 else 12], "little")
            if plan is None or length_at == 4 or length == UNDEFINED:
                raise InvalidFile("damaged: an element of the file meta has no value representation or length")
            position += 8 if length_at == 6 else 12
            if position + length > window.size:
                raise InvalidFile("truncated: the file ends within its file meta information")
            if plan.tag in _META_TAGS:
                self.meta[plan.tag] = window.at(position, min(length, _META_VALUE_BYTES))
            position += length
            if plan.tag == _GROUP_LENGTH:
                declared_end = position + int.from_bytes(self.meta[_GROUP_LENGTH], "little")
        if declared_end not in (-1, position):
            self.walk.odd(_GROUP_LENGTH, "is not the length of the file meta information")
        return position

    def _syntax(self, window: Window, position: int) -> Syntax:
        """The encoding that the first element shows, and the transfer syntax should say."""
        said = self.meta_text(TRANSFER_SYNTAX)
        if not said:
            self.walk.odd(TRANSFER_SYNTAX, "is missing in the file meta information")
        if window.size - position < 8:
            return EXPLICIT
        at = window.head(position)
        explicit = window.buffer[at + 4 : at + 6] in VRS
        if said == EXPLICIT_BIG or (not said and explicit and window.buffer[at : at + 2] == b"\0\x08"):
            self.walk.odd(OBJECT, "is in big endian, a retired transfer syntax")
            return BIG
        if said and explicit == (said == IMPLICIT_LITTLE):
            self.walk.odd(TRANSFER_SYNTAX, "is not how the data set is encoded")
        return EXPLICIT if explicit else IMPLICIT

    def _inflated(self, window: Window, position: int) -> Window:
        """What a deflated data set inflates to (PS3.5 A.5), in memory; watched while it grows."""
        most = min(MAXIMUM_INFLATED_BYTES, MAXIMUM_INFLATION * (window.size - position) + _INFLATED_ALWAYS)
        inflater, content = zlib.decompressobj(-zlib.MAX_WBITS), bytearray()
        while position < window.size and not inflater.eof:
            piece = window.at(position, min(NEXT_BYTES, window.size - position))
            try:
                content += inflater.decompress(piece, most + 1 - len(content))
            except zlib.error:
                raise InvalidFile("damaged: the deflated data set cannot be inflated") from None
            if len(content) > most:
                raise InvalidFile(f"the deflated data set inflates to more than {most} bytes: refused")
            position += len(piece)
        if not inflater.eof:
            raise InvalidFile("truncated: the deflated data set has no end")
        if inflater.unused_data.strip(b"\0") or position < window.size:
            self.walk.odd(OBJECT, "has bytes after its deflated data set")
        return Window.over(content)


def read_headers(path: Path) -> Headers:
    """The kept attributes of one file, TransferSyntaxUID of its file meta among them.

    A DICOMDIR has its class as SOPClassUID. UIDs are not judged here, and what is odd is not told: see `preflight`.

    Raises  InvalidFile         not DICOM, truncated, damaged, or past a bound; never with a value
            SourceUnavailable   the file cannot be read (FileNotFoundError passes)
    """
    reading = read_object(path, whole=False)
    if reading.failure:
        raise InvalidFile(reading.failure)
    return reading.headers()


def headers_of(read: Callable[[int, int], bytes], size: int) -> Headers:
    """The kept attributes of `size` bytes that `read(length, offset)` gives, as `read_headers` finds them in a file."""
    reading = Reading(whole=False)
    reading.read(Window(read, size))
    if reading.failure:
        raise InvalidFile(reading.failure)
    return reading.headers()


def read_data_set(content: bytes) -> Headers:
    """The kept attributes of a bare data set in memory, implicit VR little endian, as a query is answered with.

    Raises InvalidFile when it is damaged, or past a bound; never with a value.
    """
    walk = Walk(whole=False)
    walk.data_set(Window.over(content), 0, IMPLICIT)
    return in_keyword_order(walk.values)


def read_object(path: Path, whole: bool) -> Reading:
    """One object; `whole`: every sequence of it is looked into, kept or not.

    Raises  SourceUnavailable   the file cannot be read (FileNotFoundError passes); never for what is in it
    """
    reading = Reading(whole)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a named pipe would block
        try:
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode):
                reading.read(Window(partial(os.pread, descriptor), status.st_size))
            else:
                reading.failure = "not a regular file"
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except PermissionError:
        reading.failure = "the file may not be read: check its permissions"
    except OSError as error:
        raise SourceUnavailable(f"a file cannot be read: {error.strerror}") from None
    return reading


def _begins_as_data_set(start: bytes) -> bool:
    """Whether it is one without preamble: group 0002 or 0008 first, in either byte order."""
    if start[:2] == b"\x02\0":
        return True
    return start[:2] == b"\x08\0" or (start[:2] == b"\0\x08" and start[4:6] in VRS)
