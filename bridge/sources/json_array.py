"""A JSON array read item by item while it arrives, so that a large answer never lies in memory as a whole."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

_SPACE = re.compile(r"[ \t\r\n]*")
_NEXT_ITEM = re.compile(r'[ \t\r\n]*,[ \t\r\n]*\{[ \t\r\n]*"[^"\\]{1,64}"')
"""What stands between two objects, up to the first key of the second."""

_GROWTH = 1.5
"""An incomplete item is tried again when the text has grown by this factor: linear work for any item size."""


class NotAnArray(ValueError):
    """The text is not one whole JSON array, or an item of it is longer than allowed. The message quotes nothing."""


def array_items(chunks: Iterable[bytes], longest: int) -> Iterator[Any]:
    """The items of a JSON array in UTF-8, as they arrive; one shorter than the one before may wait for what follows it.

    Lenient where real servers are wrong and the meaning is certain: NaN and Infinity are numbers, bytes that are not
    UTF-8 and lone surrogates become U+FFFD. `longest` is the most characters one item may have.

    Raises  NotAnArray  also when the text ends before the array does: part of a list is never taken for the whole

    >>> list(array_items([b'[{"a": 1}, {"b"', b': [2, 3]}]'], 1000))
    [{'a': 1}, {'b': [2, 3]}]
    """
    reader = _Reader(longest)
    for chunk in chunks:
        yield from reader.feed(chunk)
    yield from reader.feed(b"", final=True)


class _Reader:
    """What has arrived and is not yet read."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._text, self._at, self._try_at = "", 0, 0
        self._inside, self._ended, self._comma = False, False, False
        self._between, self._length = "", 0
        self._scan = json.JSONDecoder().raw_decode
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def feed(self, chunk: bytes, final: bool = False) -> Iterator[Any]:
        self._text += self._decode(chunk, final)
        if len(self._text) >= self._try_at or final:
            yield from self._whole_items(final)
            self._text, self._at = self._text[self._at :], 0
            self._try_at = int(len(self._text) * _GROWTH)
        if len(self._text) > self._longest:
            raise NotAnArray("an item is longer than allowed")
        if final and not self._ended:
            raise NotAnArray("the text ends before the array does" if self._inside else "not a JSON array")

    def _whole_items(self, final: bool) -> Iterator[Any]:
        while (character := self._next()) is not None:
            if self._ended:
                raise NotAnArray("something follows the array")
            if not self._inside:
                if character != "[":
                    raise NotAnArray("not a JSON array")
                self._inside, self._at = True, self._at + 1
            elif character == "]":
                if self._comma:
                    raise NotAnArray("an item is missing before the end")
                self._ended, self._at = True, self._at + 1
            else:
                found = self._item(final)
                if not found:
                    return
                yield found[0]

    def _next(self) -> str | None:
        match = _SPACE.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return self._text[self._at] if self._at < len(self._text) else None

    def _item(self, final: bool) -> tuple[Any] | None:
        """The item here with the comma after it; None while it, or what follows it, has not arrived.

        What is shorter than the last item is hardly a whole one: more may come before anything else is tried.
        """
        read = self._alike()
        if read is None and (final or len(self._text) - self._at >= self._length):
            read = self._any()
        if read is None:
            return None
        value, end = read
        self._length = end - self._at
        match = _SPACE.match(self._text, end)
        after = match.end() if match else end
        if after == len(self._text):
            return None
        if self._text[after] not in ",]":
            raise NotAnArray("two items without a comma between them")
        self._comma = self._text[after] == ","
        self._at = after + self._comma
        return (value,)

    def _alike(self) -> tuple[Any, int] | None:
        """The item here and its end, if one that begins as the last one did follows it: twice as fast.

        Where such a beginning stands inside the item, what lies before it is no whole item, and is not taken for one.
        """
        end = self._text.find(self._between, self._at) if self._between else -1
        try:
            return (orjson.loads(self._text[self._at : end]), end) if end > 0 else None
        except ValueError:
            return None

    def _any(self) -> tuple[Any, int] | None:
        try:
            value, end = self._scan(self._text, self._at)
        except (ValueError, RecursionError):
            return None
        if self._text.find("\\u", self._at, end) >= 0:
            value = _unicode(value)
        following = _NEXT_ITEM.match(self._text, end)
        self._between = following.group() if following else ""
        return value, end


def _unicode(value: Any) -> Any:
    """The same value, every lone surrogate in it replaced by U+FFFD: it could not be encoded later."""
    text = json.dumps(value, ensure_ascii=False)
    return json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
