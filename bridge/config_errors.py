"""What is wrong with the settings, in words: the key, what was found, what is allowed. Part of `bridge.config`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from bridge.connections import AE_TITLE, NAME

BUCKET = r"^(s3://[^\s/?#@]+(/[^\s?#]*)?)?$"
HOST_NAME = r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$"
SYSTEM = r"^([A-Za-z][A-Za-z0-9+.-]*:[!-~]+)?$"

_SECRET = re.compile(r"password|token|secret|oauth|state_url")
_PATTERNS = {
    NAME: "a name of lower-case letters, digits, - and _ (at most 40)",
    AE_TITLE: "an AE title of 1 to 16 characters",
    BUCKET: "s3://BUCKET/PREFIX, or empty",
    HOST_NAME: "a host name or an IPv4 address, without a port",
    SYSTEM: "a URI such as http://hospital.example/mrn or urn:oid:1.2.3",
}

Location = Sequence[str | int]


def explained(error: Any, settings: type[BaseModel]) -> str:
    """One pydantic error of the settings as: key: found …; allowed … ."""
    location, section, choices = _found(error["loc"], settings)
    key, kind, context = key_of(location), error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{key}: unknown setting.{_nearest(location[-1], section)}"
    if kind == "missing":
        return f"{key}: missing. {_allowed(error)}"
    if kind in {"union_tag_invalid", "union_tag_not_found"}:
        found = f"found {context['tag']!r}; " if "tag" in context else "missing; "
        return f"{key}.kind: {found}allowed: {', '.join(sorted(choices))}"
    found = "found a secret" if _SECRET.search(key) else f"found {error['input']!r}"
    if kind == "value_error" and not isinstance(error["input"], str | int | float):
        return f"{key}: {context['error']}"
    return f"{key}: {found}; allowed: {_allowed(error)}"


def key_of(location: Location) -> str:
    """A place in the settings as people write it: sources[0].url."""
    out = ""
    for part in location:
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else str(part)
    return out or "settings"


def _found(
    location: Location, settings: type[BaseModel]
) -> tuple[list[str | int], type[BaseModel], dict[str, type[BaseModel]]]:
    """The place without the kinds that pydantic adds to it, its section, and the sections it may be, by kind."""
    kept: list[str | int] = []
    section, choices = settings, dict[str, type[BaseModel]]()
    for part in location:
        if part in choices:
            section, choices = choices[str(part)], {}
            continue
        kept.append(part)
        if isinstance(part, str) and part in section.model_fields:
            sections = list(_sections(section.model_fields[part].annotation))
            if len(sections) == 1:
                section = sections[0]
            choices = {get_args(s.model_fields["kind"].annotation)[0]: s for s in sections if len(sections) > 1}
    return kept, section, choices


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _sections(part)


def _allowed(error: Any) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "string_pattern_mismatch":
        address = "an http:// or https:// address without query, or a path that starts with /"
        return _PATTERNS.get(context["pattern"], address)
    if kind == "value_error":
        return str(context["error"])
    if kind == "missing":
        return "This setting has no default; give it a value."
    return str(error["msg"]).replace("Input should be ", "")


def _nearest(unknown: str | int, section: type[BaseModel]) -> str:
    close = difflib.get_close_matches(str(unknown), section.model_fields, n=1)
    meant = f" Did you mean {close[0]}?" if close else ""
    return f"{meant} Allowed: {', '.join(sorted(section.model_fields))}"
