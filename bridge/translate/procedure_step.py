"""A study that is only announced: performed procedure steps that name it, as if they were instances. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from bridge.translate.headers import Headers, Value


class ProcedureStepStatus(StrEnum):
    """PS3.3 C.4.14 PerformedProcedureStepStatus."""

    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"


@dataclass(frozen=True)
class ProcedureStep:
    """A Modality Performed Procedure Step as its newest N-CREATE and N-SET left it (PS3.4 F.7)."""

    sop_instance_uid: str
    status: ProcedureStepStatus
    headers: Headers

    def as_json(self) -> dict[str, Any]:
        """Plain JSON of the same content; `from_json` is its inverse."""
        return {
            "sop_instance_uid": self.sop_instance_uid,
            "status": self.status.value,
            "headers": self.headers.as_json(),
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> ProcedureStep:
        """The step written by `as_json`."""
        status = ProcedureStepStatus(plain["status"])
        return cls(plain["sop_instance_uid"], status, Headers.from_json(plain["headers"]))

    def items_of(self, study_instance_uid: str) -> tuple[Headers, ...]:
        """What the step says of one study: its items of ScheduledStepAttributesSequence."""
        items = self.headers.items_of("ScheduledStepAttributesSequence")
        return tuple(item for item in items if item.text("StudyInstanceUID") == study_instance_uid)


def merged_steps(
    study_instance_uid: str, by_source: Mapping[str, Sequence[ProcedureStep]], order: Sequence[str]
) -> tuple[ProcedureStep, ...]:
    """Every step that names the study once, by UID: a final state before IN PROGRESS, then the first source's."""
    found: dict[str, ProcedureStep] = {}
    for source in sorted(by_source, key=lambda s: (order.index(s) if s in order else len(order), s)):
        for step in by_source[source]:
            known = found.get(step.sop_instance_uid, step)
            if step.items_of(study_instance_uid) and known.status in (step.status, ProcedureStepStatus.IN_PROGRESS):
                found[step.sop_instance_uid] = known if known.status is step.status else step
    return tuple(found[uid] for uid in sorted(found))


def all_discontinued(steps: Iterable[ProcedureStep]) -> bool:
    """Whether there are steps and none of them made, or still makes, images."""
    statuses = {step.status for step in steps}
    return statuses == {ProcedureStepStatus.DISCONTINUED}


def as_instances(study_instance_uid: str, steps: Sequence[ProcedureStep]) -> tuple[Headers, ...]:
    """What steps say of a study, under the keywords instances would say it with; one for each step, earliest first.

    A discontinued step says nothing beside one that is not: it may have been begun for the wrong patient.

    From    PS3.3 C.4.13 to C.4.15: ScheduledStepAttributesSequence, PerformedProcedureStepStartDate and -Time,
            PerformedProcedureStepDescription
    To      RequestAttributesSequence, StudyDate, StudyTime, StudyDescription: of the earliest step that has them
    """
    active = [s for s in steps if s.status is not ProcedureStepStatus.DISCONTINUED] or list(steps)
    active.sort(key=_start)
    shared: dict[str, tuple[Value, ...]] = {}
    for step in active:
        if "StudyDate" not in shared and step.headers.text("PerformedProcedureStepStartDate"):
            shared["StudyDate"] = step.headers["PerformedProcedureStepStartDate"]
            shared["StudyTime"] = step.headers.get("PerformedProcedureStepStartTime", ())
            shared["TimezoneOffsetFromUTC"] = step.headers.get("TimezoneOffsetFromUTC", ())
        if "StudyDescription" not in shared and (description := _description(study_instance_uid, step)):
            shared["StudyDescription"] = (description,)
    return tuple(_as_instance(study_instance_uid, step, shared) for step in active)


def _as_instance(study_instance_uid: str, step: ProcedureStep, shared: Mapping[str, tuple[Value, ...]]) -> Headers:
    own = {k: v for k, v in step.headers.items() if k not in _REPLACED}
    items: tuple[Value, ...] = step.items_of(study_instance_uid)
    said = own | {"RequestAttributesSequence": items} | dict(shared)
    return Headers({keyword: value for keyword, value in said.items() if value})


_REPLACED = frozenset(
    {"ScheduledStepAttributesSequence", "StudyDate", "StudyTime", "TimezoneOffsetFromUTC", "StudyDescription"}
)


def _start(step: ProcedureStep) -> tuple[str, str, str]:
    values = step.headers
    day = values.text("PerformedProcedureStepStartDate") or "9"
    return day, values.text("PerformedProcedureStepStartTime"), step.sop_instance_uid


def _description(study_instance_uid: str, step: ProcedureStep) -> str:
    """The requested procedure's: modalities copy it into StudyDescription. A step's own describes the step."""
    asked = (item.text("RequestedProcedureDescription") for item in step.items_of(study_instance_uid))
    return next(filter(None, asked), "") or step.headers.text("PerformedProcedureStepDescription")
