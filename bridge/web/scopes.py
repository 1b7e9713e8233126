"""SMART scopes, version 1 and 2: what of that which was asked for was not given. Pure."""

from __future__ import annotations

import re

_VERSION_1 = {"read": "rs", "write": "cud", "*": "cruds"}
_RESOURCE_SCOPE = re.compile(r"(?P<context>[a-z]+)/(?P<kind>\w+|\*)\.(?P<may>c?r?u?d?s?|read|write|\*)(?P<only>\?.*)?")


def not_given(asked: str, given: str) -> tuple[str, ...]:
    """The scopes of `asked` that `given` does not cover (RFC 6749 3.3; SMART App Launch 2.2, scopes).

    Result  in the order of `asked`; empty when everything was given, in whatever words

    >>> not_given("system/Patient.rs system/ImagingStudy.cruds", "system/*.rs")
    ('system/ImagingStudy.cruds',)
    >>> not_given("system/Patient.rs", "system/*.read")
    ()
    """
    granted = given.split()
    return tuple(scope for scope in dict.fromkeys(asked.split()) if not _covered(scope, granted))


def _covered(scope: str, granted: list[str]) -> bool:
    wanted = _RESOURCE_SCOPE.fullmatch(scope)
    if scope in granted or wanted is None:
        return scope in granted
    letters: set[str] = set()
    for one in granted:
        found = _RESOURCE_SCOPE.fullmatch(one)
        if found is None or found["context"] != wanted["context"]:
            continue
        if found["kind"] in ("*", wanted["kind"]) and found["only"] in (None, wanted["only"]):
            letters.update(_letters(found["may"]))
    return set(_letters(wanted["may"])) <= letters


def _letters(may: str) -> str:
    return _VERSION_1.get(may, may)
