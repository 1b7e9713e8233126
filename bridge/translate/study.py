"""One study, from the snapshots of its archives to the resources and rows that describe it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bridge.errors import RejectedInput
from bridge.model import Rejection, Resource, Row, StudyResult, WadoEndpoint
from bridge.translate.headers import Headers
from bridge.translate.identity import patient
from bridge.translate.imaging_study import Site, endpoint, imaging_study, withdrawn
from bridge.translate.merge import Remarks, merge
from bridge.translate.rows import RowColumn, rows


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

    def translate(
        self,
        study_instance_uid: str,
        snapshots: Mapping[str, Sequence[Headers]],
        unreadable: Sequence[Rejection] = (),
    ) -> StudyResult:
        """Everything FHIR says of a study: Endpoints, Patient, ImagingStudy, and what could not be used.

        Raises  RejectedInput when no instance is usable or the instances name different patients
        """
        remarks = Remarks()
        study = merge(study_instance_uid, snapshots, self.order, remarks)
        if not study.series:
            reasons = sorted({r.error for r in (*study.rejected, *unreadable)})
            raise RejectedInput("no instance of this study can be used: " + "; ".join(reasons[:5]))
        patient_id, who = patient(study_instance_uid, study.first, self.site.issuers, remarks)
        endpoints = [endpoint(self.endpoints[s]) for s in study.sources if s in self.endpoints]
        what = imaging_study(study, patient_id, endpoints, self.site, remarks)
        rank = study.first[0].text("StudyDate") + study.first[0].text("StudyTime")
        return StudyResult(
            study_instance_uid=study_instance_uid,
            patient_key=patient_id,
            patient_rank=rank,
            patient=who,
            resources=(*sorted(endpoints, key=lambda e: str(e["id"])), what),
            rejected=(*study.rejected, *unreadable),
            remarks=remarks.all(),
        )

    def rows(
        self, study_instance_uid: str, snapshots: Mapping[str, Sequence[Headers]]
    ) -> Mapping[str, tuple[Row, ...]]:
        """The study's rows of the `dicom_*` tables; empty tuples when no archive holds it."""
        return rows(merge(study_instance_uid, snapshots, self.order, Remarks()), self.columns)

    def withdraw(self, study_instance_uid: str, previous: Sequence[Resource]) -> StudyResult:
        """What remains of a study that no archive holds any more; `previous` its resources so far."""
        kept = tuple(withdrawn(r) for r in previous if r["resourceType"] == "ImagingStudy")
        return StudyResult(study_instance_uid, "", "", None, kept)
