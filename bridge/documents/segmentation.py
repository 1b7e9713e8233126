"""A Segmentation as an AI result: a finding for each segment that a program made. Source: PS3.3 C.8.20.2, C.8.20.4."""

from __future__ import annotations

from collections.abc import Callable, Container
from datetime import tzinfo

from pydicom.dataset import Dataset

from bridge.documents.document import Document
from bridge.errors import Refusal, RefusedResult
from bridge.findings.contract import read_result
from bridge.findings.model import AiResult
from bridge.findings.sr import produced_at
from bridge.findings.sr_groups import SIDES
from bridge.findings.sr_tree import Json, coded, text

Carried = Callable[[str, int], bool]
"""Whether a report says already what a segment says: by the segment's tracking UID, or by its number."""


def segmentation_result(
    document: Document, schemes: Container[str], zone: tzinfo | None, carried: Carried
) -> AiResult | None:
    """The segments that no report carries, as findings of the run that made them; None when there are none.

    From    SegmentSequence: SegmentedPropertyType, label, AnatomicRegion with its side, tracking, algorithm. Segments
            by hand (SegmentAlgorithmType MANUAL) are no program's
    To      code the property's type, text the label; present where the segment has frames, so that an empty one claims
            nothing
    Raises  RefusedResult, naming the attribute or the field, as SR documents do
    """
    data = document.dataset
    segments = [
        one
        for one in data.get("SegmentSequence") or ()
        if text(one, "SegmentAlgorithmType") != "MANUAL" and not carried(text(one, "TrackingUID"), _number(one))
    ]
    if not segments:
        return None
    with_frames = {
        int(segment.ReferencedSegmentNumber)
        for frame in data.get("PerFrameFunctionalGroupsSequence") or ()
        for segment in frame.get("SegmentIdentificationSequence") or ()
    }
    item = {
        "run_id": document.uid,
        "model": _model(data, segments),
        "study_instance_uid": text(data, "StudyInstanceUID"),
        "produced_at": produced_at(data, zone),
        "findings": [_finding(document, one, with_frames) for one in segments],
    }
    return read_result(item, schemes)


def _finding(document: Document, segment: Dataset, with_frames: Container[int]) -> Json:
    number = _number(segment)
    uid = document.name
    place = {"series_instance_uid": uid.series_instance_uid, "sop_instance_uid": uid.sop_instance_uid, "number": number}
    location: Json = {"segments": [place]}
    for region in list(segment.get("AnatomicRegionSequence") or ())[:1]:
        location["body_site"] = coded(segment, "AnatomicRegionSequence")
        side = coded(region, "AnatomicRegionModifierSequence")
        if side and side["code"] in SIDES:
            location["laterality"] = SIDES[side["code"]]
    made: Json = {
        "id": str(number),
        "code": coded(segment, "SegmentedPropertyTypeCodeSequence"),
        "location": location,
        "text": text(segment, "SegmentLabel") or f"Segment {number}",
        "tracking_uid": text(segment, "TrackingUID"),
        "tracking_identifier": text(segment, "TrackingID")[:200],
    }
    if number in with_frames:
        made["presence"] = "present"
    return {name: value for name, value in made.items() if value}


def _model(data: Dataset, segments: list[Dataset]) -> Json:
    """The one program that made the segments: by its identification, else by its name and the equipment's version."""
    named = {_program(data, one) for one in segments}
    if len(named) > 1:
        raise _refused("SegmentSequence", "names several programs or versions: one result is of one program")
    name, version = named.pop()
    if not name or not version:
        raise _refused(
            "SegmentSequence", "names no program with a version: SegmentationAlgorithmIdentificationSequence"
        )
    return {"name": name, "version": version, "vendor": text(data, "Manufacturer")[:200]}


def _program(data: Dataset, segment: Dataset) -> tuple[str, str]:
    name, version = text(segment, "SegmentAlgorithmName"), text(data, "SoftwareVersions")
    for identified in list(segment.get("SegmentationAlgorithmIdentificationSequence") or ())[:1]:
        name = text(identified, "AlgorithmName") or name
        version = text(identified, "AlgorithmVersion") or version
    return name[:200], version[:200]


def _number(segment: Dataset) -> int:
    said = text(segment, "SegmentNumber")
    if not said.isdigit():
        raise _refused("SegmentNumber", "is no number: the segment cannot be named")
    return int(said)


def _refused(field: str, reason: str) -> RefusedResult:
    return RefusedResult((Refusal(field, reason),))
