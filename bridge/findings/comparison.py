"""A finding of a program beside what a reader says of the same: alike, otherwise, or taken back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from bridge.findings.model import (
    MOST_REGIONS,
    Code,
    Finding,
    Location,
    Measurement,
    PlanarRegion,
    Presence,
    Score,
    SpatialRegion,
)

_RELATIVE = 1e-6
"""Numbers are alike to six digits: DICOM writes them as decimal strings of 16 characters."""


def answers(finding: Finding) -> bool:
    """Whether it says more than measurements and words."""
    return not (finding.presence is None and finding.classification is None and finding.score is None)


def same_code(one: Code, other: Code) -> bool:
    return (one.scheme, one.code) == (other.scheme, other.code)


def refuted(finding: Finding, read: Finding) -> bool:
    """Whether a reader says that what the program claimed is not there."""
    claimed = finding.presence not in (Presence.ABSENT, Presence.UNDETERMINED)
    return read.presence is Presence.ABSENT and claimed


def together(said: Sequence[Finding]) -> Finding:
    """What several items of a report say of one finding, as one: structured reports repeat it for each place."""
    first = next((one for one in said if answers(one)), said[0])
    wheres = [one.location for one in said]
    return replace(
        first,
        presence=next((one.presence for one in said if one.presence is not None), None),
        classification=next((one.classification for one in said if one.classification is not None), None),
        score=next((one.score for one in said if one.score is not None), None),
        measurements=tuple(m for one in said for m in one.measurements),
        location=Location(
            next((w.body_site for w in wheres if w.body_site is not None), None),
            next((w.laterality for w in wheres if w.laterality is not None), None),
            tuple(r for w in wheres for r in w.planar_regions)[:MOST_REGIONS],
            tuple(r for w in wheres for r in w.spatial_regions)[:MOST_REGIONS],
            tuple(s for w in wheres for s in w.segments)[:MOST_REGIONS],
        ),
    )


def as_read(finding: Finding, read: Finding) -> Finding:
    """The finding with what the reader says otherwise: code and answer, values of what it measures, where it is.

    Result  the finding itself when the reader says nothing else. What only the reader says is left out: it is the
            reader's own. How sure the program was goes with its answer
    """
    made = finding
    if answers(read) and not (same_code(finding.code, read.code) and _same_answer(finding, read)):
        made = replace(_answered(finding, read), code=read.code, confidence=None)
    elif (score := _score(finding, read)) is not None:
        made = replace(made, score=score, confidence=None)
    values = tuple(_value(one, read.measurements) for one in finding.measurements)
    return replace(made, measurements=values, location=_location(finding.location, read.location))


def _answered(finding: Finding, read: Finding) -> Finding:
    """With the one answer that says most: a class or a score where it is there."""
    if read.presence in (None, Presence.PRESENT) and (read.classification or read.score):
        score = None if read.classification else read.score
        return replace(finding, presence=None, classification=read.classification, score=score)
    return replace(finding, presence=read.presence, classification=None, score=None)


def _same_answer(finding: Finding, read: Finding) -> bool:
    """Whether the reader's answer is the program's, or adds to it: who says that it is there may rate it as well."""
    if read.presence is not None and read.presence is not Presence.PRESENT:
        return finding.presence is read.presence
    if finding.presence is Presence.PRESENT:
        return True
    if finding.presence is not None:
        return False
    if read.classification is not None and finding.classification is not None:
        return same_code(read.classification, finding.classification)
    if read.score is not None and finding.score is not None:
        return _alike(read.score.value, finding.score.value) and read.score.unit == finding.score.unit
    return read.presence is Presence.PRESENT


def _score(finding: Finding, read: Finding) -> Score | None:
    """Another score: documents and Observations write it as a measurement of what it rates."""
    if finding.score is None:
        return None
    for one in read.measurements:
        if same_code(one.code, finding.code):
            alike = one.unit == finding.score.unit and _alike(one.value, finding.score.value)
            return None if alike else Score(one.value, one.unit)
    return None


def _value(measured: Measurement, read: Sequence[Measurement]) -> Measurement:
    """The measurement with the reader's value; of several that could be meant, the program's stays."""
    found = [one for one in read if same_code(one.code, measured.code) and _same_kind(one, measured)]
    values = {(one.value, one.unit) for one in found}
    if len(values) != 1 or (found[0].unit == measured.unit and _alike(found[0].value, measured.value)):
        return measured
    return replace(measured, value=found[0].value, unit=found[0].unit)


def _same_kind(one: Measurement, other: Measurement) -> bool:
    if one.derivation is None or other.derivation is None:
        return one.derivation is other.derivation
    return same_code(one.derivation, other.derivation)


def _location(where: Location, read: Location) -> Location:
    """Where the reader says it is; of regions and segments those of the kinds that the program named."""
    site, side = where.body_site, where.laterality
    if read.body_site is not None and (site is None or not same_code(site, read.body_site)):
        site, side = read.body_site, read.laterality
    elif read.laterality is not None:
        side = read.laterality
    planar = read.planar_regions if where.planar_regions and read.planar_regions else where.planar_regions
    spatial = read.spatial_regions if where.spatial_regions and read.spatial_regions else where.spatial_regions
    segments = read.segments if where.segments and read.segments else where.segments
    return Location(
        site,
        side,
        where.planar_regions if _same_regions(where.planar_regions, planar) else planar,
        where.spatial_regions if _same_regions(where.spatial_regions, spatial) else spatial,
        where.segments if set(where.segments) == set(segments) else segments,
    )


def _same_regions(
    regions: Sequence[PlanarRegion] | Sequence[SpatialRegion], read: Sequence[PlanarRegion] | Sequence[SpatialRegion]
) -> bool:
    return len(regions) == len(read) and all(any(_same_region(one, other) for other in read) for one in regions)


def _same_region(one: PlanarRegion | SpatialRegion, other: PlanarRegion | SpatialRegion) -> bool:
    if _place(one) != _place(other) or len(one.points) != len(other.points):
        return False
    return all(_alike(a, b) for p, q in zip(one.points, other.points, strict=True) for a, b in zip(p, q, strict=True))


def _place(region: PlanarRegion | SpatialRegion) -> tuple[str, str]:
    if isinstance(region, PlanarRegion):
        return region.image.sop_instance_uid, region.shape.value
    return region.frame_of_reference_uid, region.shape.value


def _alike(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=_RELATIVE, abs_tol=_RELATIVE)
