"""What readers say of an AI result, and how the result stands after all of it."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated

import orjson
from pydantic import AwareDatetime, ConfigDict, Field, TypeAdapter, ValidationError

from bridge.errors import Refusal, RefusedResult
from bridge.findings.contract import MOST_REFUSALS, findings_refused, shape_refused
from bridge.findings.model import MOST_FINDINGS, AiResult, Finding, FindingId, Name, OptionalName, Presence, Text

MOST_REVIEWS = 100
_STRICT = ConfigDict(extra="forbid", strict=True)


class ReportStatus(StrEnum):
    """FHIR R4 DiagnosticReport.status and Observation.status, those that both have and a result can have."""

    PRELIMINARY = "preliminary"
    FINAL = "final"
    AMENDED = "amended"
    ENTERED_IN_ERROR = "entered-in-error"


class Decision(StrEnum):
    """What a reader does with a result."""

    ACCEPT = "accept"
    AMEND = "amend"
    REJECT = "reject"


@dataclass(frozen=True)
class Reader:
    """Who reviewed it: a name, and the id by which an EHR knows the practitioner."""

    __pydantic_config__ = _STRICT
    name: Name
    identifier_system: OptionalName = ""
    identifier_value: OptionalName = ""


@dataclass(frozen=True)
class Review:
    """One review. An amendment replaces the findings with the same ids, takes back those it refuses by their ids, and
    replaces the conclusion where it gives one."""

    __pydantic_config__ = _STRICT
    decision: Decision
    reader: Reader
    reviewed_at: AwareDatetime
    findings: Annotated[tuple[Finding, ...], Field(max_length=MOST_FINDINGS)] = ()
    conclusion: Text | None = None
    refused: Annotated[tuple[FindingId, ...], Field(max_length=MOST_FINDINGS)] = ()


@dataclass(frozen=True)
class Standing:
    """A result as it stands: what it says now, what the program said (`made`), who has signed it (None: nobody), the
    ids of findings that a reader refused."""

    result: AiResult
    made: AiResult
    status: ReportStatus
    signed_by: Reader | None
    reviews: tuple[Review, ...]
    refused: frozenset[str] = frozenset()

    def takes_back(self, finding: Finding) -> bool:
        """Whether a reader refused the finding, so that nothing of it holds."""
        return finding.id in self.refused

    def takes_back_measurements(self, finding: Finding) -> bool:
        """Whether what was measured of it cannot hold: a reader refused it, or says that it is absent."""
        if self.takes_back(finding):
            return True
        made = next((f for f in self.made.findings if f.id == finding.id), finding)
        return finding.presence is Presence.ABSENT and made.presence is not Presence.ABSENT


_ADAPTER: TypeAdapter[Review] = TypeAdapter(Review)


def review_as_json(review: Review) -> bytes:
    """The review in its JSON form: the same review, the same bytes. `refused` stands there only where there is any, so
    that a program that does not know it reads all others."""
    return _ADAPTER.dump_json(review, exclude=None if review.refused else {"refused"})


def kept_review(content: bytes) -> Review:
    """A review from what `review_as_json` made of it."""
    return _ADAPTER.validate_json(content)


def read_review(item: object, schemes: Container[str]) -> Review:
    """A review from its JSON form. Raises RefusedResult, with a field and a reason for everything that is wrong."""
    try:
        review = _ADAPTER.validate_json(orjson.dumps(item))
    except ValidationError as error:
        raise RefusedResult(tuple(shape_refused(error))[:MOST_REFUSALS]) from None
    except (TypeError, ValueError, RecursionError):
        raise RefusedResult((Refusal("", "is not JSON that can be read"),)) from None
    if wrong := tuple(findings_refused(review.findings, schemes))[:MOST_REFUSALS]:
        raise RefusedResult(wrong)
    return review


def standing(result: AiResult, reviews: Sequence[Review]) -> Standing:
    """The result after its reviews, in the order they came.

    To      preliminary → final when a reader accepts it; an amendment leaves preliminary what nobody has signed and
            makes amended what was final; rejected → entered-in-error
    """
    status, signed = ReportStatus.PRELIMINARY if result.preliminary else ReportStatus.FINAL, None
    now, refused = result, frozenset[str]()
    for review in reviews:
        if review.decision is Decision.REJECT:
            status, signed = ReportStatus.ENTERED_IN_ERROR, None
        elif review.decision is Decision.AMEND:
            now = _amended(now, review)
            refused = refused.difference(f.id for f in review.findings).union(review.refused)
            if status is not ReportStatus.PRELIMINARY:
                status, signed = ReportStatus.AMENDED, review.reader
        else:
            status = ReportStatus.FINAL if status is ReportStatus.PRELIMINARY else status
            signed = review.reader
    return Standing(now, result, status, signed, tuple(reviews), refused)


def check_review(review: Review, so_far: Standing) -> None:
    """Raises RefusedResult when the review does not fit how the result stands, naming the field and the reason."""
    refusals = []
    if so_far.status is ReportStatus.ENTERED_IN_ERROR:
        refusals.append(Refusal("decision", "comes too late: the result was rejected; send a new run"))
    if len(so_far.reviews) >= MOST_REVIEWS:
        refusals.append(Refusal("decision", f"is one too many: a result has at most {MOST_REVIEWS} reviews"))
    gives = bool(review.findings or review.refused) or review.conclusion is not None
    if gives != (review.decision is Decision.AMEND):
        refusals.append(
            Refusal("decision", "amend has findings, refused or a conclusion; accept and reject have none of them")
        )
    refusals += _refusing(review, so_far.result)
    refusals += [r for n, f in enumerate(review.findings) if (r := _unfit(f, n, so_far.result)) is not None]
    if refusals:
        raise RefusedResult(tuple(refusals))


def _unfit(finding: Finding, n: int, result: AiResult) -> Refusal | None:
    """Each measurement is an Observation of its own that stays: it may get another value, not another meaning."""
    before = next((f for f in result.findings if f.id == finding.id), None)
    if before is None:
        return Refusal(f"findings[{n}].id", "is no finding of the result: what a reader adds is the reader's report")
    if [(m.code, m.derivation) for m in finding.measurements] != [(m.code, m.derivation) for m in before.measurements]:
        return Refusal(f"findings[{n}].measurements", "must measure what those of the finding did, in their order")
    return None


def _refusing(review: Review, result: AiResult) -> Iterator[Refusal]:
    known, again = {f.id for f in result.findings}, {f.id for f in review.findings}
    for n, one in enumerate(review.refused):
        if one not in known:
            yield Refusal(f"refused[{n}]", "is no finding of the result")
        elif one in again:
            yield Refusal(f"refused[{n}]", "is amended as well: one or the other")
    if review.decision is Decision.AMEND and known and known <= set(review.refused):
        yield Refusal("refused", "has all findings of the result: reject it")


def _amended(result: AiResult, review: Review) -> AiResult:
    changed = {f.id: f for f in review.findings}
    findings = tuple(changed.get(f.id, f) for f in result.findings)
    conclusion = result.conclusion if review.conclusion is None else review.conclusion
    return replace(result, findings=findings, conclusion=conclusion)
