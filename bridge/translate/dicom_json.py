"""DICOM JSON objects of one instance after another → headers (PS3.18 Annex F)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge.translate.headers import (
    JSON_KEYS,
    MAXIMUM_SEQUENCE_DEPTH,
    SHORTENED,
    Headers,
    JsonKey,
    Value,
    json_values,
)
from bridge.translate.values import FLOAT_VRS, INTEGER_VRS

Values = tuple[Value, ...]

_NUMBERS = INTEGER_VRS | FLOAT_VRS
_UNEQUAL: Any = object()
_DEEPEST = 3 * MAXIMUM_SEQUENCE_DEPTH  # an item, its attribute and the list of that one's values: three for a level


class InstanceReader:
    """Reads instances one after another, each as `Headers.from_dicom_json` does.

    A slice says most of what the slice before it said. What is equal is not read again: comparing it takes a fraction
    of the time, and values that instances share are in memory once.
    """

    def __init__(self) -> None:
        self._keys: tuple[str, ...] = ()
        self._wanted: list[tuple[str, JsonKey]] = []
        self._keywords: list[str] = []
        self._in_short = False
        self._before: list[Any] = []
        """Of each wanted key the attribute of the last instance that had it, or something that equals nothing."""
        self._values: list[Values] = []
        self._seen: dict[str, tuple[Any, Values]] = {}

    def headers(self, attributes: Mapping[str, Any]) -> Headers:
        """The kept attributes of the next instance."""
        keys = tuple(attributes)
        if keys != self._keys:
            self._turn_to(keys)
        before, values = self._before, self._values
        for place, (key, known) in enumerate(self._wanted):
            attribute = attributes[key]
            if attribute != before[place]:
                values[place] = json_values(known, attribute)
                before[place] = attribute if _means_one_thing(attribute, known.vr in _NUMBERS) else _UNEQUAL
        kept = {keyword: found for keyword, found in zip(self._keywords, values, strict=True) if found}
        return Headers.of_instance(kept) if self._in_short else Headers(kept)

    def _turn_to(self, keys: tuple[str, ...]) -> None:
        """Makes ready for instances with these keys, in the order of keywords."""
        for (key, _), attribute, values in zip(self._wanted, self._before, self._values, strict=True):
            self._seen[key] = (attribute, values)
        wanted = [(key, known) for key in keys if (known := JSON_KEYS[key]) is not None]
        self._keys, self._wanted = keys, sorted(wanted, key=lambda one: one[1].keyword)
        self._keywords = [known.keyword for _, known in self._wanted]
        self._in_short = not SHORTENED.isdisjoint(self._keywords)
        seen = [self._seen.get(key, (_UNEQUAL, ())) for key, _ in self._wanted]
        self._before, self._values = [attribute for attribute, _ in seen], [values for _, values in seen]


def _means_one_thing(attribute: Any, numeric: bool) -> bool:
    """Whether all that is equal to it reads the same: 1 and True are equal to 1.0 but another text, -0.0 to 0."""
    raw = attribute.get("Value") if isinstance(attribute, dict) else None
    only = raw[0] if type(raw) is list and len(raw) == 1 else raw
    return type(only) is str or _certain(only, numeric, _DEEPEST)


def _certain(value: Any, numeric: bool, levels: int) -> bool:
    if isinstance(value, dict):
        return levels > 0 and all(_certain(inner, False, levels - 1) for inner in value.values())
    if isinstance(value, list):
        return levels > 0 and all(_certain(inner, numeric, levels - 1) for inner in value)
    return value is None or type(value) is str or (numeric and bool(value))
