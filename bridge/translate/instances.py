"""One instance → FHIR R4 ImagingStudy.series.instance."""

from __future__ import annotations

from collections.abc import Iterable

from bridge.model import Resource
from bridge.translate.headers import Headers
from bridge.translate.merge import Remarks
from bridge.translate.uids import sop_class_coding

NUMBER_OF_FRAMES = "https://imaging-bridge.example/StructureDefinition/imagingstudy-instance-number-of-frames"
"""An extension of ours with a valueUnsignedInt: FHIR R4 and R5 have no place for NumberOfFrames."""

UNSIGNED_INT_MAX = 2**31 - 1


def instances(found: Iterable[Headers], remarks: Remarks) -> list[Resource]:
    """Every instance in the order of InstanceNumber, those without one last, then of UID."""
    return [_instance(headers, remarks) for headers in sorted(found, key=_place)]


def _place(headers: Headers) -> tuple[bool, int, str]:
    number = headers.integer("InstanceNumber")
    return number is None, number or 0, headers.text("SOPInstanceUID")


def _instance(headers: Headers, remarks: Remarks) -> Resource:
    """From PS3.3 C.12.1 SOP Common, C.7.6.6 NumberOfFrames (more than one). To FHIR R4 ImagingStudy.series.instance."""
    made: Resource = {}
    if "NumberOfFrames" in headers and (frames := unsigned_int(headers, "NumberOfFrames", remarks) or 0) > 1:
        made["extension"] = [{"url": NUMBER_OF_FRAMES, "valueUnsignedInt": frames}]
    made["uid"] = headers.text("SOPInstanceUID")
    made["sopClass"] = sop_class_coding(headers.text("SOPClassUID"))
    if (number := unsigned_int(headers, "InstanceNumber", remarks)) is not None:
        made["number"] = number
    if title := _title(headers):
        made["title"] = title
    return made


def _title(headers: Headers) -> str:
    """Of encapsulated documents their title; SR and KO: what the document is; presentation states and other objects
    with a label: it; images: their type."""
    return (
        ("DocumentTitle" in headers and text_of(headers, "DocumentTitle"))
        or ("ConceptNameCodeSequence" in headers and text_of(headers.item("ConceptNameCodeSequence"), "CodeMeaning"))
        or ("ContentLabel" in headers and text_of(headers, "ContentLabel"))
        or "\\".join(map(str, headers.values_of("ImageType"))).strip("\\")
    )


def unsigned_int(headers: Headers, keyword: str, remarks: Remarks) -> int | None:
    """A number that FHIR unsignedInt can hold; None with a remark when it is none."""
    if keyword not in headers:
        return None
    number = headers.integer(keyword)
    if number is None or not 0 <= number <= UNSIGNED_INT_MAX:
        remarks.add(keyword, "is not a whole number from 0 to 2147483647; left out")
        return None
    return number


def text_of(headers: Headers, keyword: str) -> str:
    """A text in one line, as FHIR string wants it."""
    return " ".join(headers.text(keyword).split())
