"""Primitive types: the JSON type, the format by FHIR's regex, the range."""

from __future__ import annotations

import re
from xml.etree import ElementTree

_INTEGERS = {"integer": -(2**31), "unsignedInt": 0, "positiveInt": 1}
_LONGEST_STRING = 1_048_576
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")
"""FHIR R4 2.24.0.1 string: no code points below 32 but TAB, LF and CR. The regexes let them pass."""
_XHTML = "{http://www.w3.org/1999/xhtml}"


class Primitive:
    """One primitive type. FHIR's regexes are for whole values, and their classes are those of ASCII."""

    def __init__(self, name: str, regex: str | None) -> None:
        self._name = name
        self._regex = re.compile(regex, re.ASCII) if regex else None

    def problem(self, value: object) -> str:
        """What is wrong with a value of this type; "" if nothing is."""
        if self._name == "boolean":
            return "" if isinstance(value, bool) else "is not true or false"
        if self._name in _INTEGERS:
            fits = isinstance(value, int) and not isinstance(value, bool) and _INTEGERS[self._name] <= value < 2**31
            return "" if fits else f"is not of type {self._name}"
        if self._name == "decimal":
            number = isinstance(value, int | float) and not isinstance(value, bool)
            return "" if number and self._matches(repr(value)) else "is not a decimal"
        if not isinstance(value, str):
            return "is not a string"
        if not value:
            return "is empty (ele-1)"
        if self._name == "xhtml":
            return _xhtml_problem(value)
        if len(value) > _LONGEST_STRING:
            return "is longer than 1 MB"
        if _CONTROLS.search(value):
            return "has control characters"
        return "" if self._matches(value) else f"does not have the format of {self._name}"

    def _matches(self, text: str) -> bool:
        return self._regex is None or self._regex.fullmatch(text) is not None


def _xhtml_problem(text: str) -> str:
    """Narrative.div: well-formed, one XHTML div, with content (txt-1, txt-2)."""
    try:
        div = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return "is not well-formed XHTML"
    if div.tag != f"{_XHTML}div":
        return "is not an XHTML div (txt-1)"
    has_content = "".join(div.itertext()).strip() or div.find(f".//{_XHTML}img") is not None
    return "" if has_content else "has no content (txt-2)"
