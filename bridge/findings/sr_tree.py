"""The content tree of a DICOM SR document, item by item. Source: PS3.3 C.17.3, C.18."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sr._snomed_dict import mapping as _snomed

from bridge.errors import Refusal, RefusedResult

_RETIRED_SNOMED = frozenset({"SRT", "SNM3", "99SDM"})
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
Json = dict[str, Any]
MOST_ITEMS = 20_000
"""Content items of one document."""


class ContentItem:
    """One content item. Concept names are `CODE DESIGNATOR` here, such as `121071 DCM`; "" where there is none."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    @property
    def value_type(self) -> str:
        return text(self._dataset, "ValueType")

    @property
    def relationship(self) -> str:
        """How the item above it relates to it, such as CONTAINS."""
        return text(self._dataset, "RelationshipType")

    @property
    def name_code(self) -> Json | None:
        return coded(self._dataset, "ConceptNameCodeSequence")

    @property
    def name(self) -> str:
        found = self.name_code
        return f"{found['code']} {found['scheme']}" if found else ""

    def children(self, *names: str, value_type: str = "") -> Iterator[ContentItem]:
        """The items below it that have one of these concept names (any, if none is given) and value type."""
        for child in self._dataset.get("ContentSequence") or ():
            item = ContentItem(child)
            if (not names or item.name in names) and value_type in ("", item.value_type):
                yield item

    def child(self, *names: str, value_type: str = "") -> ContentItem | None:
        return next(self.children(*names, value_type=value_type), None)

    @property
    def code(self) -> Json | None:
        """The value of a CODE item."""
        return coded(self._dataset, "ConceptCodeSequence")

    @property
    def words(self) -> str:
        """The value of a TEXT item."""
        return _CONTROL.sub(" ", str(self._dataset.get("TextValue") or "")).strip()

    @property
    def person_name(self) -> str:
        """The value of a PNAME item, as DICOM writes it."""
        return text(self._dataset, "PersonName")

    @property
    def uid(self) -> str:
        """The value of a UIDREF item."""
        return text(self._dataset, "UID")

    @property
    def measured(self) -> Json | None:
        """`value` and `unit` (a code) of a NUM item; None when it has no value. Raises RefusedResult for no number."""
        for measured in self._dataset.get("MeasuredValueSequence") or ():
            value = measured.get("NumericValue")
            if value not in (None, ""):
                unit = coded(measured, "MeasurementUnitsCodeSequence") or {"scheme": "", "code": ""}
                return {"value": _finite(value), "unit": unit}
        return None

    @property
    def instance(self) -> tuple[str, list[int], list[int]]:
        """(SOP Instance UID, frames, segments) that an IMAGE item refers to; "" when it refers to none."""
        for reference in self._dataset.get("ReferencedSOPSequence") or ():
            frames, segments = (_integers(reference, f"Referenced{kind}Number") for kind in ("Frame", "Segment"))
            return text(reference, "ReferencedSOPInstanceUID"), frames, segments
        return "", [], []

    def points(self, dimensions: int) -> list[list[float]]:
        """The coordinates of a SCOORD (2) or SCOORD3D (3) item, point by point."""
        data = self._dataset.get("GraphicData")
        numbers = [float(n) for n in (data if isinstance(data, list | tuple) or _many(data) else [])]
        return [numbers[n : n + dimensions] for n in range(0, len(numbers), dimensions)]

    @property
    def graphic_type(self) -> str:
        return text(self._dataset, "GraphicType")

    @property
    def frame_of_reference_uid(self) -> str:
        return text(self._dataset, "ReferencedFrameOfReferenceUID")


def _finite(value: object) -> float:
    try:
        found = float(str(value))
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise RefusedResult((Refusal("NumericValue", "is not a number"),))
    return found


def text(dataset: Dataset, keyword: str) -> str:
    """The first value as text on one line, without control characters; "" when absent or empty."""
    value = dataset.get(keyword)
    if _many(value):
        value = value[0] if len(value) else ""
    return " ".join(_CONTROL.sub(" ", str(value if value is not None else "")).split())


def coded(dataset: Dataset, keyword: str) -> Json | None:
    """The first item of a code sequence (PS3.3 8.8) as scheme, code and display; retired SNOMED codes as SNOMED CT."""
    for item in dataset.get(keyword) or ():
        code = text(item, "CodeValue") or text(item, "LongCodeValue") or text(item, "URNCodeValue")
        scheme = text(item, "CodingSchemeDesignator")
        if scheme in _RETIRED_SNOMED and code in _snomed["SRT"]:
            scheme, code = "SCT", _snomed["SRT"][code]
        return {"scheme": scheme, "code": code, "display": _CONTROL.sub(" ", text(item, "CodeMeaning"))[:200]}
    return None


def evidence(dataset: Dataset) -> dict[str, str]:
    """SOP Instance UID → Series Instance UID of everything the document says it refers to (PS3.3 C.17.2)."""
    return {instance: series for series, instance in evidence_of(dataset)}


def references(document: Dataset) -> set[str]:
    """SOP Instance UIDs of all that a document refers to: its evidence, its predecessors, items of its content."""
    found = {instance for _, instance in evidence_of(document)} | predecessors(document)
    waiting = [document]
    for _ in range(MOST_ITEMS):
        if not waiting:
            break
        item = waiting.pop()
        if item is not document:
            found |= {text(one, "ReferencedSOPInstanceUID") for one in item.get("ReferencedSOPSequence") or ()}
        waiting += item.get("ContentSequence") or ()
    return found - {""}


def predecessors(document: Dataset) -> set[str]:
    """SOP Instance UIDs of the documents that a document was made of (PS3.3 C.17.2)."""
    return {instance for _, instance in evidence_of(document, "", ("PredecessorDocumentsSequence",))} - {""}


_EVIDENCE = ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence")


def evidence_of(
    dataset: Dataset, study_instance_uid: str = "", keywords: Sequence[str] = _EVIDENCE
) -> Iterator[tuple[str, str]]:
    """(Series, SOP Instance UID) of the same, of one study alone where it is named."""
    for keyword in keywords:
        for study in dataset.get(keyword) or ():
            if study_instance_uid in ("", text(study, "StudyInstanceUID")):
                for series in study.get("ReferencedSeriesSequence") or ():
                    for instance in series.get("ReferencedSOPSequence") or ():
                        yield text(series, "SeriesInstanceUID"), text(instance, "ReferencedSOPInstanceUID")


def check_tree(document: Dataset) -> None:
    """Raises RefusedResult for a content tree that is too large, or in which an item leads back to itself.

    From    PS3.3 C.17.3.2.4: references by ReferencedContentItemIdentifier make no loops
    """
    below: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    referring = False
    waiting: list[tuple[tuple[int, ...], Dataset]] = [((1,), document)]
    while waiting:
        place, item = waiting.pop()
        below[place] = []
        if reference := tuple(_numbers(item, "ReferencedContentItemIdentifier")):
            below[place].append(reference)
            referring = True
        for n, child in enumerate(item.get("ContentSequence") or (), 1):
            below[place].append((*place, n))
            waiting.append(((*place, n), child))
        if len(below) + len(waiting) > MOST_ITEMS:
            raise RefusedResult((Refusal("ContentSequence", f"has more than {MOST_ITEMS} items"),))
    if referring and _has_loop(below):
        raise RefusedResult((Refusal("ReferencedContentItemIdentifier", "leads from an item back to itself"),))


def _has_loop(below: Mapping[tuple[int, ...], Sequence[tuple[int, ...]]]) -> bool:
    """Whether what leads to nothing further can be taken away until nothing is left (Kahn)."""
    incoming = Counter(target for targets in below.values() for target in targets if target in below)
    free = [place for place in below if not incoming[place]]
    taken = 0
    while free:
        place = free.pop()
        taken += 1
        for target in below[place]:
            incoming[target] -= 1
            if target in below and incoming[target] == 0:
                free.append(target)
    return taken < len(below)


def _numbers(dataset: Dataset, keyword: str) -> list[int]:
    value = dataset.get(keyword)
    if value is None or value == "":
        return []
    return [int(v) for v in value] if _many(value) else [int(value)]


def _integers(dataset: Dataset, keyword: str) -> list[int]:
    return sorted(set(_numbers(dataset, keyword)))


def _many(value: object) -> bool:
    return type(value).__name__ == "MultiValue" or isinstance(value, list | tuple)
