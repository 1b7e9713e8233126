"""Modality Performed Procedure Steps (PS3.4 F.7): a modality tells what it does before its images are here.

Steps are kept on disk beside the receiver's objects and read again with the study: a message is a hint that the studies
it names may have changed. Hints lie on disk too until the state has them, so that none is lost between the two.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom.dataset import Dataset

from bridge.errors import InvalidDicomValue, Unavailable
from bridge.ports import ChangePage
from bridge.sources.documents import Documents
from bridge.sources.services import (
    CommandField,
    Refused,
    Request,
    Response,
    Status,
    instance_uid,
    mandatory,
    mandatory_uid,
)
from bridge.translate.headers import Headers
from bridge.translate.procedure_step import ProcedureStep, ProcedureStepStatus
from bridge.translate.uids import checked_uid

log = logging.getLogger("bridge.receiver")

PERFORMED_PROCEDURE_STEP = "1.2.840.10008.3.1.2.3.3"
MAXIMUM_STEPS = 20_000
MAXIMUM_STUDIES = 100
"""Studies that one step may name."""

_MAXIMUM_BYTES = 262_144
_DAY_S = 86_400.0
_MAY_NO_LONGER_BE_UPDATED = 0xA710

_MANDATORY = (
    "PerformedProcedureStepID", "PerformedStationAETitle", "PerformedProcedureStepStartDate",
    "PerformedProcedureStepStartTime", "Modality",
)  # fmt: skip
_SETTABLE = "PerformedProcedureStepDescription", "ProcedureCodeSequence"
"""What an N-SET may change of what is kept; it may not change the patient or the scheduled step (Table F.7.2-1)."""


@dataclass(frozen=True)
class _Known:
    """What is remembered of a step without its file."""

    studies: tuple[str, ...]
    updated_at: float


class ProcedureSteps:
    """An MPPS SCP. `store` makes a page of changes durable.

    A step that was not touched for `procedure_step_days` is forgotten: its studies are read again without it.
    """

    sop_classes = frozenset({PERFORMED_PROCEDURE_STEP})

    def __init__(
        self,
        root: Path,
        store: Callable[[ChangePage], None],
        clock: Callable[[], float],
        *,
        procedure_step_days: float = 30.0,
        maximum_steps: int = MAXIMUM_STEPS,
    ) -> None:
        self._steps = Documents(root / "procedure-steps", maximum=maximum_steps, maximum_bytes=_MAXIMUM_BYTES)
        self._hints = Documents(root / "procedure-step-hints", maximum=1_000_000, maximum_bytes=1024)
        self._store, self._clock, self._kept_s = store, clock, procedure_step_days * _DAY_S
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}
        self._by_study: dict[str, set[str]] = {}
        for document in self._steps:
            self._remember(ProcedureStep.from_json(document), float(document["updated_at"]))

    def handle(self, request: Request) -> Response:
        """Answers N-CREATE and N-SET; success once the step and its hints survive a crash."""
        try:
            if request.command_field == CommandField.N_CREATE:
                return self._create(request)
            if request.command_field == CommandField.N_SET:
                return self._set(request)
        except Refused as refused:
            return refused.response
        return Response(Status.UNRECOGNIZED_OPERATION)

    def of_study(self, study_instance_uid: str) -> tuple[ProcedureStep, ...]:
        """The steps that name a study, as they are now. Raises SourceUnavailable when the disk cannot be read."""
        with self._lock:
            found = (self._steps.get(uid) for uid in sorted(self._by_study.get(study_instance_uid, ())))
            return tuple(ProcedureStep.from_json(document) for document in found if document is not None)

    def catch_up(self) -> None:
        """Gives the state the hints that a crash or a busy database left, and forgets old steps."""
        with self._lock:
            oldest = self._clock() - self._kept_s
            for uid in [uid for uid, known in self._known.items() if known.updated_at < oldest]:
                self._forget(uid)
            self._tell(document["study_instance_uid"] for document in list(self._hints))

    def _create(self, request: Request) -> Response:
        uid, data_set = instance_uid(request), request.data_set or Dataset()
        try:
            checked_uid(uid, "AffectedSOPInstanceUID")
        except InvalidDicomValue as error:
            raise Refused(Status.INVALID_ATTRIBUTE_VALUE, str(error)) from None
        if _status(data_set) is not ProcedureStepStatus.IN_PROGRESS:
            problem = "PerformedProcedureStepStatus must be IN PROGRESS"
            raise Refused(Status.INVALID_ATTRIBUTE_VALUE, problem)
        for keyword in _MANDATORY:
            mandatory(data_set, keyword)
        _named_studies(data_set)
        step = ProcedureStep(uid, ProcedureStepStatus.IN_PROGRESS, Headers.from_dataset(data_set))
        with self._lock:
            if uid in self._known:
                raise Refused(Status.DUPLICATE_SOP_INSTANCE, "a step of this SOP Instance UID exists")
            self._keep(step)
        return Response(sop_instance_uid=uid)

    def _set(self, request: Request) -> Response:
        data_set = request.data_set or Dataset()
        with self._lock:
            document = self._steps.get(request.sop_instance_uid)
            if document is None:
                raise Refused(Status.NO_SUCH_SOP_INSTANCE, "no step of this SOP Instance UID is known")
            step = ProcedureStep.from_json(document)
            if step.status is not ProcedureStepStatus.IN_PROGRESS:
                comment = "Performed Procedure Step Object may no longer be updated"  # Table F.7.2-2
                raise Refused(Status.PROCESSING_FAILURE, comment, _MAY_NO_LONGER_BE_UPDATED)
            status = _status(data_set) if "PerformedProcedureStepStatus" in data_set else step.status
            self._keep(replace(step, status=status, headers=_changed(step.headers, data_set)))
        return Response()

    def _keep(self, step: ProcedureStep) -> None:
        """Hints before the step: one too many is harmless."""
        now = self._clock()
        studies = _studies(step)
        self._hint(studies)
        self._steps.put(step.sop_instance_uid, step.as_json() | {"updated_at": now})
        self._remember(step, now)
        self._tell(studies)

    def _forget(self, uid: str) -> None:
        known = self._known[uid]
        self._hint(known.studies)
        self._steps.remove(uid)
        del self._known[uid]
        for study in known.studies:
            self._by_study[study].discard(uid)
            if not self._by_study[study]:
                del self._by_study[study]

    def _remember(self, step: ProcedureStep, now: float) -> None:
        studies = _studies(step)
        self._known[step.sop_instance_uid] = _Known(studies, now)
        for study in studies:
            self._by_study.setdefault(study, set()).add(step.sop_instance_uid)

    def _hint(self, studies: Iterable[str]) -> None:
        for study in studies:
            self._hints.put(study, {"study_instance_uid": study})

    def _tell(self, studies: Iterable[str]) -> None:
        """Marks the studies and drops their hints; a state that cannot answer is told at the next `catch_up`."""
        named = frozenset(studies)
        if not named:
            return
        try:
            self._store(ChangePage(named, "", caught_up=True))
        except Unavailable as error:
            log.warning("procedure steps are kept, their studies are not marked yet: %s", error)
            return
        for study in named:
            self._hints.remove(study)


def _studies(step: ProcedureStep) -> tuple[str, ...]:
    items = step.headers.items_of("ScheduledStepAttributesSequence")
    return tuple(sorted({item.text("StudyInstanceUID") for item in items}))


def _status(data_set: Dataset) -> ProcedureStepStatus:
    value = str(mandatory(data_set, "PerformedProcedureStepStatus")).strip()
    try:
        return ProcedureStepStatus(value)
    except ValueError:
        problem = "PerformedProcedureStepStatus is no defined term"
        raise Refused(Status.INVALID_ATTRIBUTE_VALUE, problem) from None


def _named_studies(data_set: Dataset) -> None:
    """Checks that every scheduled step names a study. Raises Refused."""
    items = mandatory(data_set, "ScheduledStepAttributesSequence")
    if len(items) > MAXIMUM_STUDIES:
        raise Refused(Status.RESOURCE_LIMITATION, f"more than {MAXIMUM_STUDIES} scheduled steps in one step")
    for item in items:
        mandatory_uid(item, "StudyInstanceUID")


def _changed(headers: Headers, data_set: Dataset) -> Headers:
    """The kept attributes after an N-SET: an attribute that came empty is empty now."""
    new = Headers.from_dataset(data_set)
    set_here = {keyword for keyword in _SETTABLE if keyword in data_set}
    values = {k: v for k, v in headers.items() if k not in set_here} | {k: new[k] for k in set_here if k in new}
    return Headers(dict(sorted(values.items())))
