"""Whether the images that a result speaks of are in its study."""

from __future__ import annotations

from collections.abc import Iterator

from bridge.errors import Refusal
from bridge.findings.model import AiResult, Finding, ImageReference
from bridge.model import Resource


def misplaced(result: AiResult, imaging_study: Resource) -> tuple[Refusal, ...]:
    """Every reference of a result to a series or an instance that its study does not have; () when all fit.

    From    FHIR R4 ImagingStudy.series.uid, series.instance.uid. A series that lists no instances, since the study has
            too many, is taken to have those that are named
    """
    content = {
        series["uid"]: {i["uid"] for i in series["instance"]} if "instance" in series else None
        for series in imaging_study.get("series", ())
    }
    return tuple(
        refusal
        for n, finding in enumerate(result.findings)
        for at, image in _references(finding, f"findings[{n}]")
        if (refusal := _refusal(image, at, content)) is not None
    )


def _references(finding: Finding, at: str) -> Iterator[tuple[str, ImageReference]]:
    yield from ((f"{at}.images[{n}]", image) for n, image in enumerate(finding.images))
    where = finding.location
    yield from ((f"{at}.location.planar_regions[{n}].image", r.image) for n, r in enumerate(where.planar_regions))
    for n, segment in enumerate(where.segments):
        yield f"{at}.location.segments[{n}]", ImageReference(segment.series_instance_uid, segment.sop_instance_uid)


def _refusal(image: ImageReference, at: str, content: dict[str, set[str] | None]) -> Refusal | None:
    if image.series_instance_uid not in content:
        return Refusal(f"{at}.series_instance_uid", "is no series of the study")
    instances = content[image.series_instance_uid]
    if image.sop_instance_uid and instances is not None and image.sop_instance_uid not in instances:
        return Refusal(f"{at}.sop_instance_uid", "is no instance of this series of the study")
    return None
