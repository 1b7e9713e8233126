"""Where in the images a finding is, in FHIR R4: extensions whose parts are named as those of R5 ImagingSelection.

R4 has no resource for a part of a study; `bridge.translate.r5_selections` makes R5's of these.
"""

from __future__ import annotations

from collections.abc import Sequence

from bridge.findings.concepts import decimal
from bridge.findings.model import Code, Finding, ImageReference, PlanarRegion, Point2D, Point3D, Segment, SpatialRegion
from bridge.model import Resource
from bridge.translate.codes import DCM
from bridge.translate.r5_selections import SELECTION

IMAGE_REGION = Code(DCM, "111030", "Image Region")
REFERENCED_SEGMENT = Code(DCM, "121191", "Referenced Segment")
SELECTED_IMAGE = Code(DCM, "121112", "Source of Measurement")

SopClasses = dict[str, Resource]


def selections(finding: Finding, imaging_study: Resource) -> list[Resource]:
    """Extensions of Observation.derivedFrom (the study), one for each image, region and segment of the finding."""
    classes = sop_classes(imaging_study)
    where = finding.location
    shown_on = next((image for image in finding.images if image.sop_instance_uid), None)
    return [
        *(image_selection(SELECTED_IMAGE, image, classes) for image in finding.images),
        *(_planar(region, classes) for region in where.planar_regions),
        *(_spatial(region, shown_on, classes) for region in where.spatial_regions),
        *(_segment(segment, classes) for segment in where.segments),
    ]


def series_of(finding: Finding) -> list[str]:
    """The series that a finding speaks of, each once, in its order."""
    where = finding.location
    found = [i.series_instance_uid for i in (*finding.images, *(r.image for r in where.planar_regions))]
    return list(dict.fromkeys([*found, *(s.series_instance_uid for s in where.segments)]))


def sop_classes(imaging_study: Resource) -> SopClasses:
    """SOP Instance UID → sopClass, of the instances that the study lists."""
    return {
        instance["uid"]: instance["sopClass"]
        for series in imaging_study.get("series", ())
        for instance in series.get("instance", ())
        if "sopClass" in instance
    }


def image_selection(code: Code, image: ImageReference, classes: SopClasses) -> Resource:
    """The extension for a series, an image or frames, by a code whose scheme is its system."""
    parts = [_text("subset", str(frame)) for frame in image.frames]
    instance = _instance(image.sop_instance_uid, classes, parts) if image.sop_instance_uid else []
    return _selection(code, image.series_instance_uid, instance)


def _planar(region: PlanarRegion, classes: SopClasses) -> Resource:
    shape = _group("imageRegion2D", [_code("regionType", region.shape.value), _text("coordinate", _all(region.points))])
    frames = [_text("subset", str(frame)) for frame in region.image.frames]
    instance = _instance(region.image.sop_instance_uid, classes, [*frames, shape])
    return _selection(IMAGE_REGION, region.image.series_instance_uid, instance)


def _spatial(region: SpatialRegion, shown_on: ImageReference | None, classes: SopClasses) -> Resource:
    """R5 hangs a region in space on an image: the first that the finding names; without one it has its frame alone."""
    shape = _group("imageRegion3D", [_code("regionType", region.shape.value), _text("coordinate", _all(region.points))])
    frame = _id("frameOfReferenceUid", region.frame_of_reference_uid)
    if shown_on is None:
        return _selection(IMAGE_REGION, "", [frame, shape])
    return _selection(
        IMAGE_REGION, shown_on.series_instance_uid, [frame, *_instance(shown_on.sop_instance_uid, classes, [shape])]
    )


def _segment(segment: Segment, classes: SopClasses) -> Resource:
    instance = _instance(segment.sop_instance_uid, classes, [_text("subset", str(segment.number))])
    return _selection(REFERENCED_SEGMENT, segment.series_instance_uid, instance)


def _selection(code: Code, series: str, parts: Sequence[Resource]) -> Resource:
    coding = {"system": code.scheme, "code": code.code, "display": code.display}
    head = [{"url": "code", "valueCoding": coding}, *([_id("seriesUid", series)] if series else [])]
    return {"url": SELECTION, "extension": [*head, *parts]}


def _instance(uid: str, classes: SopClasses, parts: Sequence[Resource]) -> list[Resource]:
    sop_class = [{"url": "sopClass", "valueCoding": classes[uid]}] if uid in classes else []
    return [_group("instance", [_id("uid", uid), *sop_class, *parts])]


def _all(points: Sequence[Point2D] | Sequence[Point3D]) -> str:
    """`x y x y`: one string, since an extension for each number would be far larger than what it says."""
    return " ".join(repr(decimal(v)) for point in points for v in point)


def _group(url: str, parts: Sequence[Resource]) -> Resource:
    return {"url": url, "extension": list(parts)}


def _id(url: str, value: str) -> Resource:
    return {"url": url, "valueId": value}


def _code(url: str, value: str) -> Resource:
    return {"url": url, "valueCode": value}


def _text(url: str, value: str) -> Resource:
    return {"url": url, "valueString": value}
