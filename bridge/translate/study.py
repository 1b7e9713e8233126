"""One study, from the snapshots of its archives to the resources and rows that describe it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from bridge.errors import RejectedInput
from bridge.model import ImagingStudyStatus, Rejection, Resource, Row, StudyResult, WadoEndpoint
from bridge.translate.fingerprint import fingerprint
from bridge.translate.headers import Headers
from bridge.translate.identity import other_patient, patient
from bridge.translate.imaging_study import announced, endpoint, imaging_study, rejected_study, withdrawn
from bridge.translate.merge import Remarks, merge
from bridge.translate.procedure_step import ProcedureStep, all_discontinued, as_instances, merged_steps
from bridge.translate.rejection_notes import remaining
from bridge.translate.rows import RowColumn, rows
from bridge.translate.site import Site

Steps = Mapping[str, Sequence[ProcedureStep]]
"""Source → the procedure steps it knows of that name a study."""

NO_STEPS: Steps = {}
_HELD = frozenset({ImagingStudyStatus.AVAILABLE.value, ImagingStudyStatus.ENTERED_IN_ERROR.value})
"""Statuses of a study that was held once: steps no longer announce it."""


@dataclass(frozen=True)
class Translator:
    """Translates studies for one site.

    Result  `order` source names by authority; `endpoints` source name → where readers fetch its studies;
            `columns` of the `dicom_*` tables.
    """

    site: Site
    order: tuple[str, ...]
    endpoints: Mapping[str, WadoEndpoint]
    columns: tuple[RowColumn, ...]

    @cached_property
    def fingerprint(self) -> str:
        """Another one when the same headers may become other resources: a setting, a code table, a rule changed."""
        return fingerprint(self.site, self.order, self.endpoints)

    def translate(
        self,
        study_instance_uid: str,
        snapshots: Mapping[str, Sequence[Headers]],
        unreadable: Sequence[Rejection] = (),
        steps: Steps = NO_STEPS,
    ) -> StudyResult:
        """Everything FHIR says of a study: Endpoints, Patient, ImagingStudy, and what could not be used.

        Procedure steps say nothing of a study that archives hold; one for another patient is remarked.

        Raises  RejectedInput when no instance is usable or the instances name different patients
        """
        remarks = Remarks()
        study = merge(study_instance_uid, snapshots, self.order, remarks)
        if not study.series:
            reasons = sorted({r.error for r in (*study.rejected, *unreadable)})
            raise RejectedInput("no instance of this study can be used: " + "; ".join(reasons[:5]))
        left = remaining(study, remarks)
        study = left.study
        patient_id, who = patient(study_instance_uid, study.first, self.site, remarks)
        for step in as_instances(study_instance_uid, merged_steps(study_instance_uid, steps, self.order)):
            if other_patient(step, study.first, self.site.issuers):
                remarks.add(
                    "PatientID", "of a procedure step names another patient than the instances; theirs was taken"
                )
        endpoints: dict[str, Resource] = {}
        if left.status is None:
            endpoints = {s: endpoint(self.endpoints[s]) for s in study.sources if s in self.endpoints}
            what = imaging_study(study, patient_id, endpoints, self.site, remarks)
        else:
            what = rejected_study(study, left.status, patient_id, self.site, remarks)
        rank = study.first[0].text("StudyDate") + study.first[0].text("StudyTime")
        return StudyResult(
            study_instance_uid=study_instance_uid,
            patient_key=patient_id,
            patient_rank=rank,
            patient=who,
            resources=(*sorted(endpoints.values(), key=lambda e: str(e["id"])), what),
            rejected=(*study.rejected, *unreadable),
            remarks=remarks.all(),
        )

    def rows(
        self, study_instance_uid: str, snapshots: Mapping[str, Sequence[Headers]]
    ) -> Mapping[str, tuple[Row, ...]]:
        """The study's rows of the `dicom_*` tables; empty tuples when no archive holds it, or all of it is rejected."""
        return rows(
            remaining(merge(study_instance_uid, snapshots, self.order, Remarks()), Remarks()).study, self.columns
        )

    def without_instances(
        self,
        study_instance_uid: str,
        previous: Sequence[Resource],
        steps: Steps = NO_STEPS,
        unreadable: Sequence[Rejection] = (),
    ) -> StudyResult:
        """A study of which no archive holds an instance: announced by procedure steps, or withdrawn if it was held.

        Raises  RejectedInput when nothing is known of it but what cannot be read, or its steps name different patients
        """
        naming = merged_steps(study_instance_uid, steps, self.order)
        held = any(r.get("status") in _HELD for r in previous if r["resourceType"] == "ImagingStudy")
        if naming and not held:
            return self._announce(study_instance_uid, naming, unreadable)
        if unreadable and not previous:
            raise RejectedInput("no instance of this study can be read: " + unreadable[0].error)
        return self.withdraw(study_instance_uid, previous, all_discontinued(naming))

    def _announce(
        self, study_instance_uid: str, naming: Sequence[ProcedureStep], unreadable: Sequence[Rejection]
    ) -> StudyResult:
        remarks = Remarks()
        described = as_instances(study_instance_uid, naming)
        patient_id, who = patient(study_instance_uid, described, self.site, remarks)
        cancelled = all_discontinued(naming)
        what = announced(study_instance_uid, described, cancelled, patient_id, self.site, remarks)
        rank = described[0].text("StudyDate") + described[0].text("StudyTime")
        return StudyResult(
            study_instance_uid, patient_id, rank, who, (what,), rejected=tuple(unreadable), remarks=remarks.all()
        )

    def withdraw(self, study_instance_uid: str, previous: Sequence[Resource], cancelled: bool = False) -> StudyResult:
        """What remains of a study that no archive holds any more; `previous` its resources so far."""
        kept = tuple(withdrawn(r, cancelled) for r in previous if r["resourceType"] == "ImagingStudy")
        return StudyResult(study_instance_uid, "", "", None, kept)
