"""DICOM text → str: Specific Character Set with code extensions (PS3.5 6.1, PS3.3 C.12.1.1.2)."""

from __future__ import annotations

import re
import warnings
from functools import lru_cache

from pydicom.charset import decode_bytes, default_encoding, python_encoding

Charset = tuple[str, ...]
"""Python codecs in the order of the attribute's values; the first is in force at the start of a value."""

_DELIMITERS = {ord("^"), ord("="), ord("\\"), ord("\r"), ord("\n"), ord("\t"), ord("\f")}
_CONTROL = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]")
_ANY_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_STANDALONE = frozenset({"UTF8", "GB18030", "GBK"})
_TOLERATED = re.compile(r"^ISO[ _-]?(2022)?[ _-]?IR[ _-]?(\d+)$")


@lru_cache(maxsize=256)
def charset(raw: bytes) -> Charset:
    """The codecs of a Specific Character Set value.

    Only DICOM's defined terms count, with the usual misspellings of their punctuation. Anything else, a codec name
    among them, is the default repertoire; bytes outside it become U+FFFD, so that nothing can be smuggled in.
    """
    terms = raw.decode("ascii", "replace").strip(" \0").split("\\")
    codecs = [codec for term in terms if (codec := _codec(term.strip(" \0"))) is not None] or ["ascii"]
    if codecs[0] in _STANDALONE:
        return (codecs[0],)
    return tuple(c for i, c in enumerate(codecs) if i == 0 or c not in _STANDALONE)


def decoded(raw: bytes, encodings: Charset) -> str:
    """The text of a value as it is; delimiters in multi-byte characters are not mistaken."""
    if raw.isascii() and b"\x1b" not in raw:
        return raw.decode("ascii")
    if (b"\x1b" in raw and len(encodings) > 1) or encodings[0].startswith("iso2022"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return decode_bytes(raw, list(encodings), _DELIMITERS)
    return raw.decode(encodings[0], "replace")


def without_controls(text: str) -> str:
    """The text without control characters; those that lay out prose (TAB, LF, FF, CR) stay."""
    return text if text.isprintable() else _CONTROL.sub("", text)


def with_controls_marked(text: str) -> str:
    """The text with U+FFFD for every control character: without them an exact value could be another one."""
    return text if text.isprintable() else _ANY_CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


@lru_cache(maxsize=256)
def charset_problem(raw: bytes) -> str:
    """What is odd about a Specific Character Set value (PS3.3 C.12.1.1.2); "" when it has defined terms only."""
    terms = [term.strip(" \0") for term in raw.decode("ascii", "replace").strip(" \0").split("\\")]
    if any(_codec(term) is None for term in terms):
        return "is not a defined term: the default repertoire is taken"
    if any(term not in python_encoding for term in terms):
        return "is a misspelt defined term"
    if len(terms) > 1 and _STANDALONE.intersection(map(_codec, terms)):
        return "has a term beside others that cannot be combined"
    return ""


def _codec(term: str) -> str | None:
    if not term:
        return "ascii"
    found = python_encoding.get(term)
    if found is None and (match := _TOLERATED.match(term.upper())):
        name = f"ISO 2022 IR {match.group(2)}" if match.group(1) else f"ISO_IR {match.group(2)}"
        found = python_encoding.get(name)
    return "ascii" if found == default_encoding else found
