"""The results kept for a study, as part of what the study's translation makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from pydantic import ValidationError

from bridge.errors import Refusal, RefusedResult
from bridge.findings.contract import kept
from bridge.findings.placement import misplaced
from bridge.findings.report import resources
from bridge.findings.review import Decision, Review, Standing, kept_review, standing
from bridge.model import ImagingStudyStatus, KeptResult, Remark, Resource, StudyResult
from bridge.translate.codes import CodeTables


def attached(made: StudyResult, results: Sequence[KeptResult], tables: CodeTables) -> StudyResult:
    """A translated study with the resources of its AI results behind its own; each Device once.

    A result waits while its study is only announced or gone; one that speaks of images the study does not have is
    remarked and makes nothing, until they come. What was made before stays as it was.
    """
    study = next((r for r in made.resources if r["resourceType"] == "ImagingStudy"), None)
    if study is None or study["status"] != ImagingStudyStatus.AVAILABLE.value:
        return made
    more: dict[tuple[str, str], Resource] = {}
    left_out = unusable = 0
    for one in results:
        try:
            found = standing_of(one)
        except RefusedResult:
            unusable += 1
            continue
        if misplaced(found.result, study):
            left_out += 1
            continue
        more |= {(r["resourceType"], r["id"]): r for r in resources(found, study, tables)}
    remarks = [Remark("SOPInstanceUID", _LEFT_OUT, left_out)] if left_out else []
    remarks += [Remark("StudyInstanceUID", _UNUSABLE, unusable)] if unusable else []
    return replace(made, resources=(*made.resources, *more.values()), remarks=(*made.remarks, *remarks))


def standing_of(one: KeptResult, until: datetime | None = None) -> Standing:
    """A kept result after its reviews, or those `until` then. Raises RefusedResult for what another version kept and
    this cannot read."""
    try:
        said = [kept_review(review) for review in one.reviews]
        by_report = [kept_review(review) for review in one.reviews_by_report]
        reviews = _in_time([r for r in said if until is None or r.reviewed_at <= until], by_report)
        return standing(kept(one.content), reviews)
    except ValidationError:
        raise RefusedResult((Refusal("", "cannot be read by this version; it is kept"),)) from None


def _in_time(said: Sequence[Review], by_report: Sequence[Review]) -> list[Review]:
    """Reviews with those that reports are among them, by their times. None counts of what was rejected before it."""
    if not by_report:
        return list(said)
    found = sorted([*said, *by_report], key=lambda one: one.reviewed_at)
    rejected = (n for n, one in enumerate(found, 1) if one.decision is Decision.REJECT)
    return found[: next(rejected, len(found))]


_LEFT_OUT = "of an AI result is not in the study; the result is shown when it is"
_UNUSABLE = "has an AI result that this version cannot read; it is kept, and not shown"
