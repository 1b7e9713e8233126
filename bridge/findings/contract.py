"""The JSON form of an AI result: read strictly, refused field by field, described by a JSON Schema."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Sequence
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError

from bridge.errors import Refusal, RefusedResult
from bridge.findings.model import (
    RUN_ID,
    AiResult,
    Code,
    Finding,
    ImageReference,
    Location,
    PlanarRegion,
    PlanarShape,
    Scale,
    SpatialRegion,
    SpatialShape,
)

MOST_RESULTS = 100
"""Results of one request."""

MOST_REFUSALS = 50
_ADAPTER: TypeAdapter[AiResult] = TypeAdapter(AiResult)
_FEWEST_POINTS = {PlanarShape.POLYLINE: 2, SpatialShape.POLYLINE: 2, SpatialShape.POLYGON: 3}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")
_POINTS = {
    PlanarShape.POINT: 1, PlanarShape.CIRCLE: 2, PlanarShape.ELLIPSE: 4,
    SpatialShape.POINT: 1, SpatialShape.ELLIPSE: 4, SpatialShape.ELLIPSOID: 6,
}  # fmt: skip
Refusals = Iterator[Refusal]


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of one result."""
    described = _ADAPTER.json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | described


def as_json(result: AiResult) -> bytes:
    """The result in its JSON form: the same result, the same bytes."""
    return _ADAPTER.dump_json(result)


def kept(content: bytes) -> AiResult:
    """A result from what `as_json` made of it."""
    return _ADAPTER.validate_json(content)


def read_result(item: object, schemes: Container[str]) -> AiResult:
    """One result from its JSON form. `schemes`: the code scheme designators that have a code system here.

    Raises  RefusedResult, with a field and a reason for everything that is wrong; never a value
    """
    try:
        result = _ADAPTER.validate_json(orjson.dumps(item))
    except ValidationError as error:
        raise RefusedResult(tuple(shape_refused(error))[:MOST_REFUSALS]) from None
    except (TypeError, ValueError, RecursionError):
        raise RefusedResult((Refusal("", "is not JSON that can be read"),)) from None
    if wrong := tuple(findings_refused(result.findings, schemes))[:MOST_REFUSALS]:
        raise RefusedResult(wrong)
    return result


def run_id_of(item: object) -> str:
    """The run_id that an item has, for the answer to it; "" when it has none that could be one."""
    found = item.get("run_id") if isinstance(item, dict) else None
    return found if isinstance(found, str) and re.fullmatch(RUN_ID, found) else ""


def findings_refused(findings: Sequence[Finding], schemes: Container[str]) -> Refusals:
    """What is wrong with findings that the schema cannot say."""
    seen: set[str] = set()
    for n, finding in enumerate(findings):
        at = f"findings[{n}]"
        if finding.id in seen:
            yield Refusal(f"{at}.id", "is the id of an earlier finding")
        seen.add(finding.id)
        yield from _finding(finding, at, schemes)


def shape_refused(error: ValidationError) -> Refusals:
    """What is wrong with the shape of what was sent, by field."""
    for one in error.errors(include_url=False, include_context=False, include_input=False):
        yield Refusal(_place(one["loc"]), _REASONS.get(one["type"], one["msg"]))


_REASONS = {
    "missing": "is missing",
    "unexpected_keyword_argument": "is unknown",
    "timezone_aware": "needs a time zone",
    "finite_number": "is not a finite number",
}


def _place(loc: tuple[int | str, ...]) -> str:
    """`findings[0].code.scheme`. A name that could be none of the contract is not repeated."""
    text = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" if _NAME.fullmatch(p) else ".?" for p in loc)
    return text.removeprefix(".")


def _finding(finding: Finding, at: str, schemes: Container[str]) -> Refusals:
    answers = [a for a in (finding.presence, finding.score, finding.classification) if a is not None]
    if len(answers) > 1:
        yield Refusal(at, "has more than one of presence, score, classification: make a finding of each")
    if not answers and not finding.measurements and not finding.text:
        yield Refusal(at, "says nothing: it needs presence, score, classification, measurements or text")
    yield from _codes(finding, at, schemes)
    if (sure := finding.confidence) is not None and sure.scale is Scale.FRACTION and sure.value > 1:
        yield Refusal(f"{at}.confidence.value", "is over 1 on the scale fraction: say percent, or divide")
    for n, image in enumerate(finding.images):
        yield from _image(image, f"{at}.images[{n}]")
    yield from _location(finding.location, f"{at}.location")


def _codes(finding: Finding, at: str, schemes: Container[str]) -> Refusals:
    named: list[tuple[str, Code | None]] = [
        ("code", finding.code),
        ("classification", finding.classification),
        ("location.body_site", finding.location.body_site),
        *((f"measurements[{n}].code", m.code) for n, m in enumerate(finding.measurements)),
        *((f"measurements[{n}].derivation", m.derivation) for n, m in enumerate(finding.measurements)),
    ]
    for name, code in named:
        if code is not None and code.scheme not in schemes:
            yield Refusal(
                f"{at}.{name}.scheme",
                "is no code scheme with a code system here: SCT, LN, RADLEX, DCM and others of PS3.16 Table 8-1 are, "
                "and the site's own under translation.coding_schemes",
            )


def _image(image: ImageReference, at: str) -> Refusals:
    if image.frames and not image.sop_instance_uid:
        yield Refusal(f"{at}.frames", "need the sop_instance_uid they are frames of")
    if list(image.frames) != sorted(set(image.frames)):
        yield Refusal(f"{at}.frames", "must rise, each frame once")


def _location(location: Location, at: str) -> Refusals:
    if location.laterality is not None and location.body_site is None:
        yield Refusal(f"{at}.laterality", "needs the body_site it is the side of")
    for n, planar in enumerate(location.planar_regions):
        here = f"{at}.planar_regions[{n}]"
        if not planar.image.sop_instance_uid:
            yield Refusal(f"{here}.image.sop_instance_uid", "is missing: the shape lies on one image")
        yield from _image(planar.image, f"{here}.image")
        yield from _points(planar, here)
    for n, spatial in enumerate(location.spatial_regions):
        yield from _points(spatial, f"{at}.spatial_regions[{n}]")


def _points(region: PlanarRegion | SpatialRegion, at: str) -> Refusals:
    exactly, fewest = _POINTS.get(region.shape), _FEWEST_POINTS.get(region.shape, 1)
    if exactly is not None and len(region.points) != exactly:
        yield Refusal(f"{at}.points", f"of a {region.shape.value} must be {exactly}")
    elif len(region.points) < fewest:
        yield Refusal(f"{at}.points", f"of a {region.shape.value} must be {fewest} or more")
