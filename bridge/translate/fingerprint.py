"""One value for everything that decides what headers become, so that a change of it is noticed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Set
from dataclasses import fields, is_dataclass

RULES = 2
"""To be raised when a change of the program makes other resources of the same headers."""


def fingerprint(*parts: object) -> str:
    """SHA-256 over values of dataclasses, mappings, sets and sequences; the same in every process. Hexadecimal.

    >>> fingerprint({"a": 1, "b": frozenset("xy")}) == fingerprint({"b": frozenset("yx"), "a": 1})
    True
    """
    return hashlib.sha256(_text((RULES, *parts)).encode()).hexdigest()


def _text(value: object) -> str:
    if is_dataclass(value) and not isinstance(value, type):
        return type(value).__name__ + _text([(f.name, getattr(value, f.name)) for f in fields(value)])
    if isinstance(value, Mapping):
        return "{" + ",".join(sorted(f"{_text(k)}:{_text(v)}" for k, v in value.items())) + "}"
    if isinstance(value, Set):
        return "{" + ",".join(sorted(map(_text, value))) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_text, value)) + "]"
    return repr(value)
