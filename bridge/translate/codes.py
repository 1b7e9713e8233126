"""DICOM codes → FHIR codings, by code tables that are handed in as values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import quote

from pydicom.sr._snomed_dict import mapping as _snomed

from bridge.model import Resource
from bridge.translate.headers import Headers

DCM = "http://dicom.nema.org/resources/ontology/DCM"
SCT = "http://snomed.info/sct"
BODY_PART_EXAMINED = "https://imaging-bridge.example/CodeSystem/body-part-examined"
"""What concept maps call the terms of BodyPartExamined: they have no system of their own. It is never put out."""

_RETIRED_SNOMED = frozenset({"SRT", "SNM3", "99SDM"})
_CODE = re.compile(r"^\S+( \S+)*$")
_OID = re.compile(r"^[0-2](\.(0|[1-9][0-9]*))+$")

Schemes = Mapping[str, str]
"""Coding scheme designator → system, of what one object says of its own schemes."""

NO_SCHEMES: Schemes = {}


class UnmappedCodes(StrEnum):
    """What becomes of a code whose scheme has no known system, and of a body part that is no defined term."""

    TEXT = "text"
    LOCAL = "local"
    LEAVE_OUT = "leave_out"


@dataclass(frozen=True)
class Code:
    """One code of a table: its system, its code, what it means."""

    system: str
    code: str
    display: str


@dataclass(frozen=True)
class CodeTables:
    """The reviewed tables of `mappings/codes`, and what a site adds.

    Result  `modality` CS value → (meaning, is an acquisition modality: CID 29); `body_part` Body Part Examined
            (normalised) → SNOMED CT (PS3.16 Annex L); `coding_scheme` designator → FHIR system URI; `concept_map`
            (system, code) → the code to put out for it; `local_system` of codes that are kept without a known one
    """

    modality: Mapping[str, tuple[str, bool]]
    body_part: Mapping[str, Code]
    coding_scheme: Mapping[str, str]
    concept_map: Mapping[tuple[str, str], Code] = field(default_factory=dict)
    unmapped: UnmappedCodes = UnmappedCodes.TEXT
    local_system: str = ""

    def local(self, scheme: str, code: str, display: str) -> Resource | None:
        """A code without a known system as a Coding of the site's, schemes apart; None where the site wants none."""
        if self.unmapped is not UnmappedCodes.LOCAL or not _CODE.fullmatch(code):
            return None
        system = f"{self.local_system}/{quote(scheme, safe='')}" if scheme else self.local_system
        return {"system": system, "code": code} | ({"display": display} if display else {})


LATERALITY: Mapping[str, Code] = {
    "R": Code(SCT, "24028007", "Right"),
    "L": Code(SCT, "7771000", "Left"),
    "B": Code(SCT, "51440002", "Bilateral"),
}
"""PS3.3 C.7.3.1 Laterality, C.7.6.1 ImageLaterality → CID 244."""


def coding(code: Code) -> Resource:
    """A code of a table as FHIR Coding."""
    return {"system": code.system, "code": code.code} | ({"display": code.display} if code.display else {})


def modality_code(value: str, tables: CodeTables) -> str:
    """The modality to put out for a Modality CS value: itself, unless the site's concept map says another."""
    mapped = tables.concept_map.get((DCM, value))
    return mapped.code if mapped is not None and mapped.system == DCM else value


def modality_coding(value: str, tables: CodeTables) -> Resource:
    """A modality as Coding; a retired one, or one that is not known, keeps its code and has no display."""
    return coding(Code(DCM, value, tables.modality.get(value, ("", False))[0]))


def body_part(value: str, tables: CodeTables) -> Resource | None:
    """Body Part Examined as Coding: by the site's concept map, then PS3.16 Annex L.

    A term that Annex L gives no code has its meaning as display. One that neither knows is its own display, or what
    the site wants of unmapped codes. None if empty.
    """
    if not value:
        return None
    normal = normal_body_part(value)
    known = tables.concept_map.get((BODY_PART_EXAMINED, normal)) or tables.body_part.get(normal)
    if known is not None:
        return coding(known) if known.code else {"display": known.display}
    if tables.unmapped is UnmappedCodes.LEAVE_OUT:
        return None
    return tables.local("BodyPartExamined", value, value) or {"display": value}


def normal_body_part(value: str) -> str:
    """Upper case without spaces, hyphens and underscores, as the tables are keyed."""
    return re.sub(r"[\s_-]", "", value).upper()


def schemes_of(instance: Headers, tables: CodeTables) -> Schemes:
    """The systems of schemes that the tables do not know and an object identifies itself.

    From    PS3.3 C.12.1 CodingSchemeIdentificationSequence: CodingSchemeDesignator, CodingSchemeUID
    """
    found: dict[str, str] = {}
    for item in instance.items_of("CodingSchemeIdentificationSequence"):
        designator, uid = item.text("CodingSchemeDesignator"), item.text("CodingSchemeUID")
        if designator and designator not in tables.coding_scheme and _OID.fullmatch(uid):
            found[designator] = f"urn:oid:{uid}"
    return found


def own_coding(item: Headers, tables: CodeTables, schemes: Schemes = NO_SCHEMES) -> Resource | None:
    """A Code Sequence Macro item as Coding (PS3.3 8.8), before any concept map; None when its system is not known.

    A system is never invented: of an unknown designator the object itself may say the UID (see `schemes_of`), else
    the site's policy decides. Retired SNOMED-RT codes become SNOMED CT.
    """
    code = item.text("CodeValue") or item.text("LongCodeValue") or item.text("URNCodeValue")
    designator, meaning = item.text("CodingSchemeDesignator"), item.text("CodeMeaning")
    version = item.text("CodingSchemeVersion")
    system = tables.coding_scheme.get(designator) or schemes.get(designator, "")
    if designator in _RETIRED_SNOMED:
        translated = _snomed["SRT"].get(code, "")
        system, version, code = (SCT, "", translated) if translated else ("", version, code)
    if not code or not _CODE.fullmatch(code):
        return None
    if not system:
        return tables.local(designator, code, meaning)
    found: Resource = {"system": system, "code": code}
    if version:
        found["version"] = version
    if meaning:
        found["display"] = meaning
    return found


def _mapped(own: Resource, tables: CodeTables) -> Resource | None:
    target = tables.concept_map.get((own["system"], own["code"]))
    return coding(target) if target is not None else None


def code_coding(item: Headers, tables: CodeTables, schemes: Schemes = NO_SCHEMES) -> Resource | None:
    """A Code Sequence Macro item as the one Coding to put out: mapped by the site where it says so."""
    own = own_coding(item, tables, schemes)
    return own and (_mapped(own, tables) or own)


def concept(item: Headers, tables: CodeTables, schemes: Schemes = NO_SCHEMES) -> Resource | None:
    """A Code Sequence Macro item as CodeableConcept; None when nothing of it is usable.

    To      what the site's concept map says first, then the code itself, then equivalent codes, each once; `text`
    """
    found: Resource = {}
    codings: list[Resource] = []
    for one in _codings(item, tables, schemes):
        if one not in codings:
            codings.append(one)
    if codings:
        found["coding"] = codings
    meaning = " ".join(item.text("CodeMeaning").split())
    if meaning and (codings or tables.unmapped is not UnmappedCodes.LEAVE_OUT):
        found["text"] = meaning
    return found or None


def _codings(item: Headers, tables: CodeTables, schemes: Schemes) -> Iterator[Resource]:
    for one in (item, *item.items_of("EquivalentCodeSequence")):
        own = own_coding(one, tables, schemes)
        if own is not None:
            if mapped := _mapped(own, tables):
                yield mapped
            yield own
