"""The values of DICOM attributes in the one form that headers have, whatever they were read from (PS3.5 6.2)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

INTEGER_VRS = frozenset({"IS", "US", "SS", "UL", "SL", "UV", "SV"})
FLOAT_VRS = frozenset({"DS", "FL", "FD"})
SINGLE_TEXT_VRS = frozenset({"ST", "LT", "UT", "UR"})
LEADING_SPACE_MATTERS = frozenset({"ST", "LT", "UT"})

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


class PersonName(NamedTuple):
    """A PN value by component group, each `Family^Given^Middle^Prefix^Suffix` (PS3.5 6.2.1)."""

    alphabetic: str = ""
    ideographic: str = ""
    phonetic: str = ""

    @classmethod
    def parse(cls, text: str) -> PersonName:
        """The name from its decoded text, groups divided by `=`; trailing delimiters and padding dropped."""
        groups = [trim_name(group) for group in text.split("=")[:3]]
        return cls(*groups)

    def __bool__(self) -> bool:
        return any(self)


PlainValue = str | int | float | PersonName


def normal_values(vr: str, raw: list[Any]) -> tuple[PlainValue, ...]:
    """Values of one attribute in the form that `Headers` have; () when all are empty.

    An empty value inside a multi-valued attribute keeps its place as "" so that positions stay true.
    """
    if vr == "PN":
        return tuple(name for name in (PersonName.parse(str(v)) for v in raw) if name)
    value_of = _VALUE_OF.get(vr, _text)
    if len(raw) == 1:
        value = value_of(raw[0])
        return () if value == "" else (value,)
    values = [value_of(v) for v in raw]
    while values and values[-1] == "":
        values.pop()
    return tuple(values)


def is_ae_title(text: str) -> bool:
    """Whether text is of the characters an AE title may have (PS3.5 6.2)."""
    return text.isascii() and text.isprintable()


def split_text(vr: str, text: str) -> list[str]:
    """The values of a decoded text attribute: divided at `\\` except where the VR forbids it (PS3.5 6.4)."""
    return [text] if vr in SINGLE_TEXT_VRS else text.split("\\")


def _without_controls(text: str) -> str:
    return text if text.isprintable() else text.translate(_CONTROLS)


_CONTROLS = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0))) | {c: c for c in map(ord, "\t\n\r")} | {ord("\f"): "\n"}
"""FHIR R4 string: no code point below 32 but these three. A form feed parts lines."""


def trim_name(group: str) -> str:
    """One component group of a name without trailing delimiters and padding."""
    return _without_controls(group).strip(" ").rstrip("^ ")


def _integer(value: Any) -> PlainValue:
    if isinstance(value, int):
        return int(value) if abs(value) < 2**63 else str(value)
    number = _float(value)
    return int(number) if isinstance(number, float) and abs(number) < 2**63 and number == int(number) else _exact(value)


def _float(value: Any) -> PlainValue:
    """The number, finite and written as DICOM writes it: Python would take `1_0`, line ends and other digits too."""
    if isinstance(value, int | float):
        return float(value) if math.isfinite(value) else _exact(value)
    text = _exact(value)
    number = float(text) if _NUMBER.fullmatch(text) else math.nan
    return number if math.isfinite(number) else text


def _text(value: Any) -> str:
    return _without_controls(str(value)).strip(" ")


def _prose(value: Any) -> str:
    return _without_controls(str(value)).rstrip(" ")


def _exact(value: Any) -> str:
    """A UID or a number with what it should not have: without it, it could be another one."""
    return str(value).strip(" \0")


_VALUE_OF: Mapping[str, Callable[[Any], PlainValue]] = (
    dict.fromkeys(INTEGER_VRS, _integer)
    | dict.fromkeys(FLOAT_VRS, _float)
    | dict.fromkeys(LEADING_SPACE_MATTERS, _prose)
    | {"UI": _exact}
)
"""Value representation → one value in its form; of every other one the text, trimmed."""
