"""What a reader's own report says of an AI result, as reviews of it; whatever door the report came in by.

Only explicit references count: what a report says in words, or of something like a finding, decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import AwareDatetime, Field, TypeAdapter, ValidationError

from bridge.findings.comparison import answers, as_read, refuted, same_code, together
from bridge.findings.model import MOST_FINDINGS, AiResult, Finding, Presence, Text
from bridge.findings.names import finding_names, lesion_name, measurement_names
from bridge.findings.review import Decision, Reader, Review

MOST_NAMES = 20_000
"""References of one report that are looked at."""

Names = Annotated[tuple[str, ...], Field(max_length=MOST_NAMES)]


@dataclass(frozen=True)
class Said:
    """One thing a report says. `of`: what it names (`bridge.findings.names`); `finding` None: it stands as it is.

    `same` whether it speaks of what it names as that itself, by its identifier or as what replaces it; `in_error`
    whether it takes that back.
    """

    of: Names
    finding: Finding | None = None
    same: bool = False
    in_error: bool = False


@dataclass(frozen=True)
class ReadersReport:
    """A report that its reader has signed. `names`: the results that it refers to as a whole."""

    reader: Reader
    signed_at: AwareDatetime
    names: Names
    said: Annotated[tuple[Said, ...], Field(max_length=MOST_FINDINGS)] = ()
    conclusion: Text = ""


_ADAPTER: TypeAdapter[ReadersReport | None] = TypeAdapter(ReadersReport | None)


def report_as_json(report: ReadersReport | None) -> bytes:
    """What a report says, in its JSON form; None: it is not signed, or withdrawn, and says nothing."""
    return _ADAPTER.dump_json(report)


def kept_report(content: bytes) -> ReadersReport | None:
    """The same from what `report_as_json` made; None also for what another version kept and this cannot read."""
    try:
        return _ADAPTER.validate_json(content)
    except ValidationError:
        return None


def reviews_by(report: ReadersReport, result: AiResult, names: frozenset[str]) -> tuple[Review, ...]:
    """The reviews of a result that a report is; `result` as it stands before it, `names` of it as a whole.

    Result  reject when the report refuses every finding of the result; amend when it refuses some, or says otherwise
            of one; accept when it agrees. A result that it refers to as a whole, or by each of its findings, it signs:
            then an amendment is accepted with it. () when it names nothing of the result, agrees with some findings
            alone, or contradicts itself
    """
    whole = not names.isdisjoint(report.names)
    said = {f.id: _about(f, result, report.said) for f in result.findings}
    if any(_contradictory(some) for some in said.values()):
        return ()
    read = {f.id: _read(f, said[f.id]) for f in result.findings}
    if result.findings and all(_against(f, said[f.id]) for f in result.findings):
        return (Review(Decision.REJECT, report.reader, report.signed_at),)
    made: list[Review] = []
    refused = tuple(f.id for f in result.findings if read[f.id] is None)
    changed = tuple(now for f in result.findings if (now := read[f.id]) is not None and now != f)
    if refused or changed:
        conclusion = report.conclusion if result.conclusion else None
        made.append(Review(Decision.AMEND, report.reader, report.signed_at, changed, conclusion, refused))
    if whole or (said and all(said.values())):
        made.append(Review(Decision.ACCEPT, report.reader, report.signed_at))
    return tuple(made)


def _about(finding: Finding, result: AiResult, said: Sequence[Said]) -> list[Said]:
    """What is said of a finding. Where nothing has its code, one that calls it something else."""
    lesion = lesion_name(result.run_id, finding)
    tracked = [f for f in result.findings if lesion_name(result.run_id, f) == lesion]
    names = finding_names(result.run_id, finding), measurement_names(result.run_id, finding)
    found: list[Said] = []
    others: list[Said] = []
    for one in said:
        named, measured = (not some.isdisjoint(one.of) for some in names)
        if one.finding is None or one.in_error:
            found += [one] if named else []
        elif not answers(one.finding):
            measures = _measures(finding, one.finding) and (named or measured or lesion in one.of)
            found += [one] if named or measures else []
        elif same_code(finding.code, one.finding.code):
            found += [one] if named or lesion in one.of else []
        elif named:
            others += [one] if one.same and one.finding.presence in (None, Presence.PRESENT) else []
        elif lesion in one.of and any(same_code(f.code, one.finding.code) for f in tracked):
            found += [one] if one.finding.presence is Presence.ABSENT else []  # and so is all that is said of it
        elif lesion in one.of and one.finding.presence is Presence.PRESENT:
            others += [one] if [f for f in tracked if f.presence is not None] == [finding] else []
    known = any(one.in_error or one.finding is None or answers(one.finding) for one in found)
    return found if known or len(others) != 1 else [*found, *others]


def _measures(finding: Finding, read: Finding) -> bool:
    codes = [m.code for m in finding.measurements] + ([finding.code] if finding.score is not None else [])
    return any(same_code(one.code, code) for one in read.measurements for code in codes)


def _against(finding: Finding, said: Sequence[Said]) -> bool:
    return any(one.in_error or (one.finding is not None and refuted(finding, one.finding)) for one in said)


def _read(finding: Finding, said: Sequence[Said]) -> Finding | None:
    """The finding as the report has it; None when that takes it back. What was rated or measured cannot be absent."""
    found = [one.finding for one in said if one.finding is not None and not one.in_error]
    if any(one.in_error for one in said) or (finding.presence is None and any(refuted(finding, one) for one in found)):
        return None
    if not found:
        return finding
    if any(refuted(finding, one) for one in found):
        return replace(finding, presence=Presence.ABSENT, confidence=None)
    return as_read(finding, together(found))


def _contradictory(said: Sequence[Said]) -> bool:
    """Whether a report says two things of one finding."""
    found = [one.finding for one in said if one.finding is not None and not one.in_error]
    presences = {one.presence for one in found} | {Presence.ABSENT if one.in_error else None for one in said}
    classes = {(c.scheme, c.code) for one in found if (c := one.classification) is not None}
    scores = {s.value for one in found if (s := one.score) is not None}
    return len(presences - {None}) > 1 or len(classes) > 1 or len(scores) > 1
