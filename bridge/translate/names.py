"""DICOM person names → FHIR HumanName and display text (PS3.5 6.2.1)."""

from __future__ import annotations

from bridge.model import Resource
from bridge.translate.headers import PersonName

REPRESENTATION = "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation"
_GROUPS = (("alphabetic", "ABC"), ("ideographic", "IDE"), ("phonetic", "SYL"))
_NOBODY = {"anonymous", "anonymized", "anon", "unknown", "none", "no name"}


def human_names(name: PersonName) -> list[Resource]:
    """One HumanName for each representation the name has; [] for an empty or anonymous name.

    From    PS3.5 6.2.1 PN: alphabetic, ideographic and phonetic groups
    To      FHIR R4 HumanName; the representation by extension iso21090-EN-representation (ABC, IDE, SYL)

    >>> human_names(PersonName("Yamada^Tarou"))[0]["family"]
    'Yamada'
    """
    found = [(code, getattr(name, group)) for group, code in _GROUPS]
    several = sum(1 for _, text in found if text) > 1
    names = [_human_name(text, code, several or code != "ABC") for code, text in found if text]
    return [n for n in names if n]


def display(name: PersonName) -> str:
    """The name as people write it: given names first for the alphabetic group; "" when there is none.

    >>> display(PersonName("Muster^Eva^^Dr."))
    'Dr. Eva Muster'
    """
    for (_, code), text in zip(_GROUPS, name, strict=True):
        parts = _parts(text)
        if parts:
            return _written(parts, code)
    return ""


def _written(parts: tuple[str, str, str, str, str], representation: str) -> str:
    """Given name first in the alphabetic representation; family name first where scripts do so."""
    family, given, middle, prefix, suffix = parts
    order = (
        (prefix, given, middle, family, suffix) if representation == "ABC" else (prefix, family, given, middle, suffix)
    )
    return " ".join(part for part in order if part)


def _parts(text: str) -> tuple[str, str, str, str, str] | None:
    parts = [" ".join(p.split()) for p in text.split("^")[:5]]
    parts += [""] * (5 - len(parts))
    if not any(parts) or " ".join(p for p in parts if p).casefold() in _NOBODY:
        return None
    return parts[0], parts[1], parts[2], parts[3], parts[4]


def _human_name(text: str, representation: str, tell: bool) -> Resource | None:
    parts = _parts(text)
    if parts is None:
        return None
    family, given, middle, prefix, suffix = parts
    name: Resource = {"use": "usual", "text": _written(parts, representation)}
    if family:
        name["family"] = family
    givens = ([given] if given else []) + middle.split()
    if givens:
        name["given"] = givens
    if prefix:
        name["prefix"] = [prefix]
    if suffix:
        name["suffix"] = [suffix]
    if tell:
        name["extension"] = [{"url": REPRESENTATION, "valueCode": representation}]
    return name
