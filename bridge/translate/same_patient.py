"""Whether the Patient of an EHR and the patient that images name can be the same person. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Mapping

from bridge.model import Resource

ELEMENTS = ("birthDate", "gender", "family")


def disagreements(images: Resource, record: Resource, elements: Collection[str] = ELEMENTS) -> list[str]:
    """The elements in which two Patients contradict each other; what one of them does not state is no contradiction.

    A partial birth date agrees with every date within it; genders other than male and female agree with all; family
    names agree when any of one agrees with any of the other, whatever the script's case, accents and punctuation.

    >>> disagreements({"birthDate": "1971-03"}, {"birthDate": "1971-03-04", "gender": "male"})
    []
    >>> disagreements({"birthDate": "1971"}, {"birthDate": "1970-12-31"})
    ['birthDate']
    """
    return [e for e in ELEMENTS if e in elements and not _AGREE[e](images, record)]


def _births(one: Resource, other: Resource) -> bool:
    a, b = str(one.get("birthDate", "")), str(other.get("birthDate", ""))
    return a.startswith(b) or b.startswith(a)


def _genders(one: Resource, other: Resource) -> bool:
    stated = {one.get("gender"), other.get("gender")}
    return stated != {"male", "female"}


def _families(one: Resource, other: Resource) -> bool:
    a, b = _family_names(one), _family_names(other)
    if not a or not b or a & b:
        return True
    return not any(_same_script(x, y) for x in a for y in b)


def _family_names(patient: Resource) -> set[str]:
    names = patient.get("name", [])
    named = [n for n in names if isinstance(n, dict)] if isinstance(names, list) else []
    return {_plain(str(n.get("family", ""))) for n in named} - {""}


def _plain(name: str) -> str:
    """Letters alone, without case and accents: `Müller-Lüdenscheidt` and `MULLER LUDENSCHEIDT` are one name."""
    text = unicodedata.normalize("NFKD", name.replace("ß", "ss")).casefold()
    return "".join(c for c in text if c.isalpha())


def _same_script(one: str, other: str) -> bool:
    """Only names of one script can contradict each other: 山田 and Yamada may be the same name."""
    return one.isascii() == other.isascii()


_AGREE: Mapping[str, Callable[[Resource, Resource], bool]] = {
    "birthDate": _births,
    "gender": _genders,
    "family": _families,
}
