"""The one walk over data elements: every length against what is there, nesting and counts against bounds (PS3.5 7).

It takes the wanted values on its way and jumps over the rest. Sequences lie on a stack of its own: nothing recurses.
Two callers: one wants headers only, and has it jump over sequences that are not kept where their length is known; the
other wants to know of the whole object, and has it enter every one.
"""

from __future__ import annotations

from typing import Any

from bridge.errors import InvalidFile
from bridge.sources.element_plans import (
    CHARACTER_SET,
    IMPLICIT,
    REMEMBERED_BYTES,
    UNDEFINED,
    Kind,
    Plan,
    Syntax,
    swallows_elements,
)
from bridge.sources.text import Charset, charset, charset_problem
from bridge.sources.window import NEXT_BYTES, Window
from bridge.translate.headers import MAXIMUM_SEQUENCE_DEPTH, Headers, Value, frames_matter, keyword_of
from bridge.translate.wanted import PER_FRAME

MAXIMUM_ELEMENTS = 200_000
MAXIMUM_PARTS = 100_000
"""Items of sequences and fragments of pixel data, in one object."""

MAXIMUM_NESTING = 32
MAXIMUM_VALUE_BYTES = 65_536
MAXIMUM_SUSPECT_BYTES = 262_144
"""So much of an object is searched for elements that a wrong length has swallowed."""

MAXIMUM_FRAMES_BYTES = 524_288
"""Longer functional groups of single frames are jumped over: of some 500 frames, which tell little more than few."""

MAXIMUM_ODDITIES = 50
"""More of them tell a person nothing new."""

Values = dict[str, tuple[Value, ...]]
Kept = Values | list[Value] | None
"""What is kept of a level: of a data set or an item its values, of a sequence its items; None: nothing."""

OBJECT = -1
"""In place of a tag: the object as a whole."""

_DEFAULT = charset(b"")
_NOTED_BYTES, _CHARACTER_SET_BYTES = 8, 256
_HEAD_BYTES = 8  # of the shortest element: a value that swallowed another one is longer
_KEPT_LEVELS = 2 * MAXIMUM_SEQUENCE_DEPTH  # a sequence is two levels of the walk: its items, and the elements of one


class PastBound(InvalidFile):
    """Deeper, or of more parts, than is read: no accident of a value that only looks like a sequence."""


class Walk:
    """One pass over one object. What it found is there even when it ends in InvalidFile.

    `values` what is kept; `noted` tag → (length or UNDEFINED, first bytes) of top-level elements that tell whether the
    object is whole; `oddities` (tag, problem) of what is wrong but certain in its meaning.
    """

    def __init__(self, whole: bool) -> None:
        self._whole = whole
        self.values: Values = {}
        self.noted: dict[int, tuple[int, bytes]] = {}
        self.oddities: dict[tuple[int, str], None] = {}
        self._elements, self._parts = MAXIMUM_ELEMENTS, MAXIMUM_PARTS  # how many more may come
        self._suspect_bytes = MAXIMUM_SUSPECT_BYTES
        self._levels_around = 0

    def data_set(self, window: Window, position: int, syntax: Syntax) -> None:
        """Reads from `position` to the end of the object. Raises InvalidFile."""
        self._window = window
        self._read(position, window.size, syntax, self.values)

    def odd(self, tag: int, problem: str) -> None:
        """Notes what is wrong with an element but leaves its meaning certain."""
        if problem and len(self.oddities) < MAXIMUM_ODDITIES:
            self.oddities[tag, problem] = None

    def _read(self, position: int, end: int, syntax: Syntax, kept: Kept, in_sequence: bool = False) -> None:
        """Reads one level, a data set or (`in_sequence`) the items of a sequence, and all that lies in it.

        Each turn takes one element, one item or one delimiter; `open_` has the state of the levels around. This is
        the hottest loop of the bridge: its state is local, and one look-up answers for an element.
        """
        window, whole, keeping, skipped = self._window, self._whole, Kind.KEPT, Kind.SKIPPED
        buffer, base, safe, have = window.state()
        plans, key_bytes, u16, u32 = syntax.plans, syntax.key_bytes, syntax.u16, syntax.u32
        open_: list[tuple[int, bool, Any, int, Charset, Syntax, str]] = []
        values: Any = kept
        delimited, last, encodings = False, -1, _DEFAULT
        while True:
            if position < end:
                if position > safe or position < base:
                    buffer, base, safe, have = window.move(position)
                at = position - base
                if in_sequence:
                    mark, length = buffer[at : at + 4], u32(buffer, at + 4)[0]
                    position += 8
                    if mark == syntax.item:
                        open_.append((end, delimited, values, last, encodings, syntax, ""))
                        delimited, in_sequence, last = length == UNDEFINED, False, -1
                        end = self._item_end(position, length, end)
                        values = None if values is None else {}
                        continue
                    if mark != syntax.sequence_end or not delimited:
                        raise self._misplaced(mark, syntax, position, end)
                elif (plan := plans[buffer[at : at + key_bytes]]) is not None:
                    tag, length_at, kind, keyword, plain, problem, _, allowed = plan
                    if length_at == 6:
                        length, undefined = u16(buffer, at + 6)[0], False
                        position += 8
                    else:
                        length = u32(buffer, at + length_at)[0]
                        undefined = length == UNDEFINED
                        position += length_at + 4
                    if tag <= last or problem:
                        self._out_of_order(tag, last, problem)
                    last = tag
                    self._elements -= 1
                    if self._elements < 0:
                        raise PastBound(f"more than {MAXIMUM_ELEMENTS} data elements: refused")
                    if undefined:
                        pass
                    elif position + length > end:
                        raise self._short(tag, length, end - position)
                    elif length & 1:
                        self.odd(tag, "has an odd length")
                    if undefined or (kind is not keeping and kind is not skipped):
                        wanted = keyword != "" and values is not None and len(open_) < _KEPT_LEVELS
                        wanted = wanted and (keyword != PER_FRAME or _frames_wanted(values, length))
                        if not self._opens(kind, wanted, position, length):
                            if tag == CHARACTER_SET:
                                encodings = self._character_set(position, length)
                            position = self._pass_over(plan, position, length, end, syntax, len(open_))
                            buffer, base, safe, have = window.state()
                            continue
                        open_.append((end, delimited, values, last, encodings, syntax, keyword))
                        delimited, in_sequence, values = undefined, True, [] if wanted else None
                        end = end if undefined else position + length
                        if kind is Kind.UNKNOWN:
                            syntax = IMPLICIT  # whatever the data set's own is (PS3.5 6.2.2)
                            plans, key_bytes, u16, u32 = syntax.plans, syntax.key_bytes, syntax.u16, syntax.u32
                        self._check_bounds(len(open_))
                        continue
                    if kind is keeping and length and values is not None:
                        at = position - base
                        inside = position + length <= have
                        raw = buffer[at : at + length] if inside else self._far(keyword, position, length)
                        found = plain(raw) if length <= REMEMBERED_BYTES else None
                        if found is None:
                            found = self._unusual(plan, raw, encodings, syntax)
                        if found:
                            values[keyword] = found
                    elif whole and allowed is not None and length > _HEAD_BYTES and position + length <= have:
                        at = position - base
                        raw = buffer[at : at + length]
                        if raw.translate(None, allowed) and raw.rstrip(b"\0").translate(None, allowed):
                            self._suspect(plan, raw, syntax)
                    position += length
                    continue
                elif delimited and buffer[at : at + 4] == syntax.item_end:
                    position += 8
                else:
                    self._only_padding(position, end, delimited)
                    position = end
            elif delimited:
                raise InvalidFile("truncated: a sequence or an item of undefined length has no end")
            if not open_:
                return
            closed = values
            end, delimited, values, last, encodings, outer, keyword = open_.pop()
            in_sequence = not in_sequence
            if outer is not syntax:
                syntax = outer
                plans, key_bytes, u16, u32 = syntax.plans, syntax.key_bytes, syntax.u16, syntax.u32
            if closed is None or values is None:
                continue
            if in_sequence:
                values.append(in_keyword_order(closed))
            elif closed:
                values[keyword] = tuple(closed)

    def _item_end(self, position: int, length: int, end: int) -> int:
        self._part()
        if length == UNDEFINED:
            return end
        if position + length > end:
            raise InvalidFile("truncated: a sequence item is longer than what is left")
        return position + length

    def _opens(self, kind: Kind, wanted: bool, position: int, length: int) -> bool:
        """Whether an element is entered as a sequence."""
        if kind is Kind.SEQUENCE:
            return length == UNDEFINED or (length > 0 and (wanted or self._whole))
        if kind is not Kind.UNKNOWN or length == 0:
            return False
        return length == UNDEFINED or wanted or (self._levels_around > 0 and self._looks_like_items(position, length))

    def _check_bounds(self, levels: int) -> None:
        if (self._levels_around + levels) > 2 * MAXIMUM_NESTING:
            raise PastBound(f"sequences nested deeper than {MAXIMUM_NESTING}: refused")

    def _part(self) -> None:
        self._parts -= 1
        if self._parts < 0:
            raise PastBound(f"more than {MAXIMUM_PARTS} sequence items and fragments: refused")

    def _pass_over(self, plan: Plan, position: int, length: int, end: int, syntax: Syntax, levels: int) -> int:
        """The position after an element that is neither kept nor entered."""
        if levels == 0 and plan.kind is Kind.NOTED:
            first = self._window.at(position, length) if length <= _NOTED_BYTES else b""
            self.noted.setdefault(plan.tag, (length, first))
        if length == UNDEFINED:
            return self._fragments(position, end, syntax, plan.tag)
        if plan.kind is Kind.UNKNOWN and self._whole and self._looks_like_items(position, length):
            self._try(plan.tag, position, length, levels)
        return position + length

    def _looks_like_items(self, position: int, length: int) -> bool:
        if length < _HEAD_BYTES:
            return False
        at = self._window.head(position)
        mark, item_length = self._window.buffer[at : at + 4], IMPLICIT.u32(self._window.buffer, at + 4)[0]
        return mark == IMPLICIT.item and (item_length == UNDEFINED or item_length + _HEAD_BYTES <= length)

    def _try(self, tag: int, position: int, length: int, levels: int) -> None:
        """Enters a value that looks like a sequence, and all in it that does. If it is none, nothing is wrong."""
        self._levels_around = levels + 1
        before = dict(self.oddities)
        try:
            self._read(position, position + length, IMPLICIT, None, in_sequence=True)
        except PastBound:
            raise
        except InvalidFile:
            self.oddities = before
            self.odd(tag, "begins as a sequence but is not a whole one")
        finally:
            self._levels_around = 0

    def _fragments(self, position: int, end: int, syntax: Syntax, tag: int) -> int:
        """The position after encapsulated pixel data (PS3.5 A.4)."""
        window = self._window
        while position + 8 <= end:
            at = window.head(position)
            mark, length = window.buffer[at : at + 4], syntax.u32(window.buffer, at + 4)[0]
            position += 8
            if mark == syntax.sequence_end:
                return position
            if mark != syntax.item or length == UNDEFINED:
                raise self._misplaced(mark, syntax, position, end)
            self._part()
            if length & 1:
                self.odd(tag, "has a fragment of odd length")
            position += length
        raise InvalidFile(f"truncated: {name_of(tag)} has no end")

    def _character_set(self, position: int, length: int) -> Charset:
        raw = self._window.at(position, min(length, _CHARACTER_SET_BYTES))
        self.odd(CHARACTER_SET, charset_problem(raw))
        return charset(raw)

    def _far(self, keyword: str, position: int, length: int) -> bytes:
        """A value that ends behind the window."""
        if length > MAXIMUM_VALUE_BYTES:
            raise InvalidFile(f"{keyword} is longer than {MAXIMUM_VALUE_BYTES} bytes: refused")
        return self._window.at(position, length)

    def _unusual(self, plan: Plan, raw: bytes, encodings: Charset, syntax: Syntax) -> tuple[Value, ...]:
        values, problem = plan.read(raw, encodings)
        if problem:
            self.odd(plan.tag, problem)
            self._check_length(plan, raw, syntax)
        return values

    def _suspect(self, plan: Plan, raw: bytes, syntax: Syntax) -> None:
        """A value that is not kept, with bytes that it should not have."""
        if plan.allowed:
            self.odd(plan.tag, "has characters that its value representation does not allow")
        self._check_length(plan, raw, syntax)

    def _check_length(self, plan: Plan, raw: bytes, syntax: Syntax) -> None:
        self._suspect_bytes -= len(raw)
        if self._suspect_bytes > 0 and swallows_elements(raw, syntax):
            raise InvalidFile(f"damaged: the data elements after {name_of(plan.tag)} lie in it: its length is wrong")

    def _out_of_order(self, tag: int, last: int, problem: str) -> None:
        self.odd(tag, problem)
        if tag <= last:
            self.odd(tag, "occurs twice" if tag == last else "is out of order")

    def _only_padding(self, position: int, end: int, delimited: bool) -> None:
        """Some writers pad the end with zeros; anything else that begins no element is damage."""
        start, window = position, self._window
        while position < end and not delimited:
            length = min(NEXT_BYTES, end - position)
            if window.at(position, length).strip(b"\0"):
                break
            position += length
        if position < end:
            raise InvalidFile(f"truncated or damaged: what lies at offset {start} is not a data element")
        self.odd(OBJECT, "ends in zeros that are no data element")

    @staticmethod
    def _short(tag: int, length: int, there: int) -> InvalidFile:
        return InvalidFile(f"truncated: {name_of(tag)} declares {length} bytes, {max(there, 0)} are there")

    @staticmethod
    def _misplaced(mark: bytes, syntax: Syntax, position: int, end: int) -> InvalidFile:
        if position > end:
            return InvalidFile("truncated: a sequence ends within the head of an item")
        group, element = (syntax.u16(mark, at)[0] for at in (0, 2))
        return InvalidFile(f"damaged: {name_of(group << 16 | element)} stands where a sequence item must begin")


def _frames_wanted(values: Values, length: int) -> bool:
    return (length == UNDEFINED or length <= MAXIMUM_FRAMES_BYTES) and frames_matter(values)


def in_keyword_order(values: Values) -> Headers:
    """The same headers whatever the order of the tags."""
    return Headers(dict(sorted(values.items())))


def name_of(tag: int) -> str:
    """A tag and its keyword, for messages."""
    number = f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
    return f"{number} {keyword_of(tag)}".removesuffix(f" {number}")
