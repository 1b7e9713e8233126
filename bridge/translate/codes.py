"""DICOM codes → FHIR codings, by code tables that are handed in as values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pydicom.sr._snomed_dict import mapping as _snomed

from bridge.model import Resource
from bridge.translate.headers import Headers

DCM = "http://dicom.nema.org/resources/ontology/DCM"
SCT = "http://snomed.info/sct"
_CODE = re.compile(r"\S+( \S+)*")
"""What FHIR's type code can hold."""
_RETIRED_SNOMED = frozenset({"SRT", "SNM3", "99SDM"})


@dataclass(frozen=True)
class Code:
    """One code of a table: its system, its code, what it means."""

    system: str
    code: str
    display: str


@dataclass(frozen=True)
class CodeTables:
    """The reviewed tables of `mappings/codes`.

    Result  `modality` CS value → (meaning, is an acquisition modality: CID 29); `body_part` Body Part Examined
            (normalised) → SNOMED CT (PS3.16 Annex L); `coding_scheme` designator → FHIR system URI.
    """

    modality: Mapping[str, tuple[str, bool]]
    body_part: Mapping[str, Code]
    coding_scheme: Mapping[str, str]


LATERALITY: Mapping[str, Code] = {
    "R": Code(SCT, "24028007", "Right"),
    "L": Code(SCT, "7771000", "Left"),
    "B": Code(SCT, "51440002", "Bilateral"),
}
"""PS3.3 C.7.3.1 Laterality, C.7.6.1 ImageLaterality → CID 244."""


def coding(code: Code) -> Resource:
    """A code of a table as FHIR Coding."""
    return {"system": code.system, "code": code.code, "display": code.display}


def modality_coding(value: str, tables: CodeTables) -> Resource:
    """A Modality CS value as Coding; one the table does not know keeps its code and has no display."""
    known = tables.modality.get(value)
    return {"system": DCM, "code": value} | ({"display": known[0]} if known else {})


def body_part(value: str, tables: CodeTables) -> Resource | None:
    """Body Part Examined as Coding (PS3.16 Annex L); display alone when the table does not know it; None if empty."""
    if not value:
        return None
    known = tables.body_part.get(normal_body_part(value))
    return coding(known) if known else {"display": value}


def normal_body_part(value: str) -> str:
    """Upper case without spaces, hyphens and underscores, as the table is keyed."""
    return re.sub(r"[\s_-]", "", value).upper()


def code_coding(item: Headers, tables: CodeTables) -> Resource | None:
    """A Code Sequence Macro item as Coding (PS3.3 8.8); None when it has no code or its scheme is not known.

    A scheme is never invented: an unknown designator is looked up in the item's Coding Scheme Identification
    Sequence, else only its meaning survives (see `concept`). Retired SNOMED-RT codes become SNOMED CT.
    """
    code = item.text("CodeValue") or item.text("LongCodeValue") or item.text("URNCodeValue")
    if not code:
        return None
    designator = item.text("CodingSchemeDesignator")
    system = tables.coding_scheme.get(designator, "")
    if designator in _RETIRED_SNOMED:
        code, system = _snomed["SRT"].get(code, ""), SCT
    if not system and (uid := item.item("CodingSchemeIdentificationSequence").text("CodingSchemeUID")):
        system = f"urn:oid:{uid}"
    if not _CODE.fullmatch(code) or not system or not system.isprintable():
        return None
    version, meaning = item.text("CodingSchemeVersion"), item.text("CodeMeaning")
    found: Resource = {"system": system, "code": code}
    if version and designator not in _RETIRED_SNOMED:
        found["version"] = version
    if meaning:
        found["display"] = meaning
    return found


def concept(item: Headers, tables: CodeTables) -> Resource | None:
    """A Code Sequence Macro item as CodeableConcept, equivalent codes added; None when nothing of it is usable."""
    codings = [code_coding(i, tables) for i in (item, *item.items_of("EquivalentCodeSequence"))]
    found: Resource = {}
    if known := [c for c in codings if c is not None]:
        found["coding"] = known
    if meaning := item.text("CodeMeaning"):
        found["text"] = meaning
    return found or None
