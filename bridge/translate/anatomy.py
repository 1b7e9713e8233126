"""Which part and side of the body a series shows (PS3.3 C.7.3.1, C.7.6.16.2.8 Frame Anatomy, C.8.20.2 Segment)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from bridge.model import Resource
from bridge.translate.codes import LATERALITY, Schemes, body_part, code_coding, coding, normal_body_part, own_coding
from bridge.translate.headers import Headers, Value
from bridge.translate.merge import Remarks, distinct
from bridge.translate.site import Site
from bridge.translate.wanted import PER_FRAME

_GROUPS = ("SharedFunctionalGroupsSequence", PER_FRAME)
_REGION = "AnatomicRegionSequence"
_SIDES = {code.code: side for side, code in LATERALITY.items()}


def body_site(
    instances: Sequence[Headers], values: Headers, site: Site, schemes: Schemes, remarks: Remarks
) -> Resource | None:
    """FHIR R4 ImagingStudy.series.bodySite: one region, of the first of these that names exactly one.

    From    AnatomicRegionSequence of the images; of their frames (FrameAnatomySequence); of the segments of a
            segmentation; then BodyPartExamined by the site's map or PS3.16 Annex L
    """
    for regions in (values.values_of(_REGION), *_frames_and_segments(instances)):
        (item,) = regions if len(regions) == 1 else (None,)
        if isinstance(item, Headers) and (known := code_coding(item, site.tables, schemes)):
            return known
    term = " ".join(values.text("BodyPartExamined").split())
    found = body_part(term, site.tables)
    if term and normal_body_part(term) not in site.tables.body_part and (found is None or "code" not in found):
        kept = "left out" if found is None else "kept as display"
        remarks.add("BodyPartExamined", f"is not a defined term (PS3.16 Annex L); {kept}")
    return found


def _frames_and_segments(instances: Sequence[Headers]) -> Iterator[tuple[Value, ...]]:
    yield _only(instances, _anatomies, lambda anatomy: anatomy.values_of(_REGION))
    yield _only(instances, lambda h: h.items_of("SegmentSequence"), lambda segment: segment.values_of(_REGION))


def _only(
    instances: Sequence[Headers],
    parts: Callable[[Headers], Sequence[Headers]],
    value: Callable[[Headers], tuple[Value, ...]],
) -> tuple[Value, ...]:
    """The value that all parts of all instances have that have one; () when they differ."""
    found: list[tuple[Value, ...]] = []
    for headers in distinct(instances, *_GROUPS, "SegmentSequence"):
        for part in parts(headers):
            one = value(part)
            if one and one not in found:
                found.append(one)
                if len(found) > 1:
                    return ()
    return found[0] if found else ()


def _anatomies(headers: Headers) -> list[Headers]:
    return [a for keyword in _GROUPS for group in headers.items_of(keyword) for a in group.items_of(_ANATOMY)]


_ANATOMY = "FrameAnatomySequence"


def laterality(
    instances: Sequence[Headers], values: Headers, site: Site, schemes: Schemes, remarks: Remarks
) -> Resource | None:
    """FHIR R4 ImagingStudy.series.laterality (CID 244), of the first of these that says it; unpaired (U): None.

    From    Laterality; ImageLaterality, FrameLaterality, MeasurementLaterality where all instances have the same;
            a side as AnatomicRegionModifierSequence
    """
    for keyword, side in _sides(instances, values):
        if side in LATERALITY:
            return coding(LATERALITY[side])
        if side == "U":
            return None
        if side:
            remarks.add(keyword, "is none of R, L, B, U; left out")
    for region in values.items_of(_REGION):
        for modifier in region.items_of("AnatomicRegionModifierSequence"):
            known = own_coding(modifier, site.tables, schemes)
            if known and (side := _SIDES.get(known["code"], "")) and known["system"] == LATERALITY[side].system:
                return coding(LATERALITY[side])
    return None


def _sides(instances: Sequence[Headers], values: Headers) -> Iterator[tuple[str, str]]:
    yield "Laterality", values.text("Laterality").upper()
    yield "ImageLaterality", _same(instances, "ImageLaterality")
    frames = _only(instances, _anatomies, lambda anatomy: anatomy.values_of("FrameLaterality"))
    yield "FrameLaterality", str(frames[0]).strip().upper() if frames else ""
    yield "MeasurementLaterality", _same(instances, "MeasurementLaterality")


def _same(instances: Sequence[Headers], keyword: str) -> str:
    sides = {headers.text(keyword).upper() for headers in distinct(instances, keyword)}
    return sides.pop() if len(sides) == 1 else ""
