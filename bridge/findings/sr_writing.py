"""An AI result as a DICOM Comprehensive 3D SR of TID 1500, by highdicom (an extra). Source: PS3.16 TID 1500."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from uuid import UUID

import highdicom.sr as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code as DicomCode

from bridge.errors import Refusal, RefusedResult
from bridge.findings.concepts import study_instance_uid
from bridge.findings.model import (
    Code,
    Finding,
    ImageReference,
    Laterality,
    Measurement,
    PlanarRegion,
    Presence,
    Segment,
    SpatialRegion,
)
from bridge.findings.names import tracking_uid
from bridge.findings.review import ReportStatus, Standing
from bridge.findings.sr_uid import series_uid
from bridge.model import Resource
from bridge.translate.headers import Headers
from bridge.translate.uids import resource_id

_SIDES = {
    Laterality.LEFT: DicomCode("7771000", "SCT", "Left"),
    Laterality.RIGHT: DicomCode("24028007", "SCT", "Right"),
    Laterality.BILATERAL: DicomCode("51440002", "SCT", "Bilateral"),
}
_NOT_PRESENT = {
    Presence.ABSENT: DicomCode("2667000", "SCT", "Absent"),
    Presence.UNDETERMINED: DicomCode("373068000", "SCT", "Undetermined"),
}
_CERTAINTY, _PERCENT = DicomCode("111012", "DCM", "Certainty of Finding"), DicomCode("%", "UCUM", "%")
_COMMENT, _DEVICE = DicomCode("121106", "DCM", "Comment"), hd.CodedConcept("121007", "DCM", "Device")
_PROCEDURE = DicomCode("363679005", "SCT", "Imaging procedure")
_SINGLE_FRAME = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{n}"
    for n in ("1", "1.1", "1.1.1", "1.2", "1.2.1", "1.3", "1.3.1", "2", "4", "6.1", "7", "128")
)
"""CR, DX, MG, IO, CT, MR, US, SC and PET images: their frames have no numbers (PS3.3 10.3, Referenced Frame Number)."""

_EMPTY = ("PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime", "PatientID")

Place = PlanarRegion | SpatialRegion | Segment
Group = (
    hd.PlanarROIMeasurementsAndQualitativeEvaluations
    | hd.VolumetricROIMeasurementsAndQualitativeEvaluations
    | hd.MeasurementsAndQualitativeEvaluations
)


def written(standing: Standing, imaging_study: Resource, instance: Headers, uid: str) -> bytes:
    """The result as a Part 10 file in its study; same input, same bytes.

    From    the result as it stands; `instance` of the study says whose it is; `uid` the document's SOP Instance UID
    To      a measurement group for each place of each finding, in one series of the run; findings of one id share their
            tracking UID, a given one or one that follows from the run. The conclusion has no place in TID 1500
    Raises  RefusedResult when the template cannot hold it, such as a polygon that is not closed
    """
    result, images = standing.result, _Images(imaging_study, instance)
    try:
        holding = [finding for finding in result.findings if not standing.takes_back(finding)]
        groups = [group for finding in holding for group in _groups(finding, standing, images)]
        report = hd.MeasurementReport(_observed(standing), _PROCEDURE, imaging_measurements=groups)
        document = hd.Comprehensive3DSR(
            evidence=images.evidence(),
            content=report,
            series_instance_uid=series_uid(result.run_id),
            series_number=9000,
            sop_instance_uid=uid,
            instance_number=1 + len(standing.reviews),
            manufacturer=result.model.vendor[:64] or None,
            manufacturer_model_name=result.model.name[:64],
            software_versions=result.model.version[:64],
            series_description=result.model.name[:64],
            is_complete=True,
            is_final=standing.status in (ReportStatus.FINAL, ReportStatus.AMENDED),
        )
    except (ValueError, TypeError, AttributeError):  # its messages may quote values
        raise RefusedResult(
            (Refusal("findings", "cannot be written as TID 1500: see the limits of its shapes"),)
        ) from None
    with_moment(document, standing)
    buffer = BytesIO()
    document.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def with_moment(document: Dataset, standing: Standing) -> None:
    """The moments of the result in place of those of the writing."""
    reviews = standing.reviews
    moment = reviews[-1].reviewed_at if reviews else standing.result.produced_at
    for day, clock in (("ContentDate", "ContentTime"), ("InstanceCreationDate", "InstanceCreationTime")):
        setattr(document, day, moment.strftime("%Y%m%d"))
        setattr(document, clock, moment.strftime("%H%M%S.%f"))
    for program in document.get("ContributingEquipmentSequence", ()):
        program.ContributionDateTime = moment.strftime("%Y%m%d%H%M%S.%f%z")
    document.TimezoneOffsetFromUTC = moment.strftime("%z")[:5]


class _Images:
    """The study's instances by UID, and those that the document refers to."""

    def __init__(self, imaging_study: Resource, instance: Headers) -> None:
        self._uid, self._instance = study_instance_uid(imaging_study), instance
        self._known = {
            i["uid"]: (series["uid"], i["sopClass"]["code"].removeprefix("urn:oid:"))
            for series in imaging_study.get("series", ())
            for i in series.get("instance", ())
        }
        self._named: list[str] = []

    def sop_class(self, sop_instance_uid: str) -> str:
        """Its SOP Class UID; from now on it is evidence. Raises ValueError when the study does not list it."""
        if sop_instance_uid not in self._known:
            raise ValueError
        self._named.append(sop_instance_uid)
        return str(self._known[sop_instance_uid][1])

    def frames(self, image: ImageReference) -> list[int] | None:
        """The frames that a reference may name: none of an image that has but one."""
        return None if self.sop_class(image.sop_instance_uid) in _SINGLE_FRAME else list(image.frames) or None

    def evidence(self) -> list[Dataset]:
        named = list(dict.fromkeys(self._named)) or list(self._known)[:1]
        return [self._dataset(uid, *self._known[uid]) for uid in named]

    def _dataset(self, uid: str, series: str, sop_class: str) -> Dataset:
        made = of_the_study(self._instance)
        made.StudyInstanceUID, made.SeriesInstanceUID = self._uid, series
        made.SOPInstanceUID, made.SOPClassUID = uid, sop_class
        return made


def of_the_study(instance: Headers) -> Dataset:
    """What all instances of a study share, for a document in it: patient, order, study."""
    made = Dataset()
    for keyword in _EMPTY:
        setattr(made, keyword, instance.text(keyword))
    made.PatientName = "=".join(instance.name("PatientName")).rstrip("=")
    made.ReferringPhysicianName = "=".join(instance.name("ReferringPhysicianName")).rstrip("=")
    made.SpecificCharacterSet = "ISO_IR 192"
    return made


def _observed(standing: Standing) -> hd.ObservationContext:
    model = standing.result.model
    uid = _uid("device", model.vendor, model.name, model.version)
    device = hd.DeviceObserverIdentifyingAttributes(uid=uid, name=model.name, model_name=model.name)
    return hd.ObservationContext(observer_device_context=hd.ObserverContext(_DEVICE, device))


def _groups(finding: Finding, standing: Standing, images: _Images) -> Iterator[Group]:
    """The first group of a finding says all of it; those of its other places only that it is there as well."""
    where, shown_on = finding.location, [i for i in finding.images if i.sop_instance_uid]
    places: list[Place] = [*where.planar_regions, *where.spatial_regions, *where.segments]
    for n, place in enumerate([*places, None] if shown_on or not places else places):
        yield _group(finding, standing, images, place, first=n == 0)


def _group(finding: Finding, standing: Standing, images: _Images, place: Place | None, *, first: bool) -> Group:
    model, where = standing.result.model, finding.location
    uid = tracking_uid(standing.result.run_id, finding)
    site = where.body_site
    side = _SIDES[where.laterality] if where.laterality else None
    shared = {
        "tracking_identifier": hd.TrackingIdentifier(uid=uid, identifier=finding.tracking_identifier or finding.id),
        "algorithm_id": hd.AlgorithmIdentification(name=model.name, version=model.version),
        "finding_sites": [hd.FindingSite(_code(site), laterality=side)] if site else None,
        "finding_type": _code(finding.code) if _claimed(finding) else None,
        "measurements": _measurements(finding) if first and not standing.takes_back_measurements(finding) else None,
        "qualitative_evaluations": _evaluations(finding) if first else None,
    }
    made = _of_place(place, finding, images, shared)
    if first and finding.text:
        made[0].ContentSequence.append(hd.TextContentItem(_COMMENT, finding.text, hd.RelationshipTypeValues.CONTAINS))
    return made


def _of_place(place: Place | None, finding: Finding, images: _Images, shared: Mapping[str, object]) -> Group:
    if isinstance(place, PlanarRegion):
        uid = place.image.sop_instance_uid
        source = hd.SourceImageForRegion(images.sop_class(uid), uid, images.frames(place.image))
        region = hd.ImageRegion(place.shape.value.upper(), np.array(place.points), source)
        return hd.PlanarROIMeasurementsAndQualitativeEvaluations(referenced_region=region, **shared)  # type: ignore[arg-type]
    if isinstance(place, SpatialRegion):
        space = hd.ImageRegion3D(place.shape.value.upper(), np.array(place.points), place.frame_of_reference_uid)
        return hd.PlanarROIMeasurementsAndQualitativeEvaluations(referenced_region=space, **shared)  # type: ignore[arg-type]
    shown_on = [i for i in finding.images if i.sop_instance_uid]
    if isinstance(place, Segment):
        sources = [
            hd.SourceImageForSegmentation(images.sop_class(i.sop_instance_uid), i.sop_instance_uid) for i in shown_on
        ]
        uid = place.sop_instance_uid
        segment = hd.ReferencedSegment(images.sop_class(uid), uid, place.number, source_images=sources)
        return hd.VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_segment=segment, **shared)  # type: ignore[arg-type]
    of_group = [
        hd.SourceImageForMeasurementGroup(images.sop_class(i.sop_instance_uid), i.sop_instance_uid, images.frames(i))
        for i in shown_on
    ]
    return hd.MeasurementsAndQualitativeEvaluations(source_images=of_group or None, **shared)  # type: ignore[arg-type]


def _claimed(finding: Finding) -> bool:
    """Whether the group may say that the finding is there: a class or a score of it says something else."""
    return finding.presence is Presence.PRESENT or not (finding.presence or finding.classification or finding.score)


def _measurements(finding: Finding) -> Sequence[hd.Measurement] | None:
    found = [_measurement(m) for m in finding.measurements]
    if finding.score is not None:
        found.append(_measurement(Measurement(finding.code, finding.score.value, finding.score.unit)))
    if finding.confidence is not None:
        found.append(hd.Measurement(_CERTAINTY, finding.confidence.percent, _PERCENT))
    return found or None


def _measurement(one: Measurement) -> hd.Measurement:
    derivation = _code(one.derivation) if one.derivation else None
    return hd.Measurement(_code(one.code), one.value, DicomCode(one.unit, "UCUM", one.unit), derivation=derivation)


def _evaluations(finding: Finding) -> Sequence[hd.QualitativeEvaluation] | None:
    if finding.classification is not None:
        return [hd.QualitativeEvaluation(_code(finding.code), _code(finding.classification))]
    if finding.presence in _NOT_PRESENT:
        return [hd.QualitativeEvaluation(_code(finding.code), _NOT_PRESENT[finding.presence])]
    return None


def _code(code: Code) -> DicomCode:
    return DicomCode(code.code, code.scheme, (code.display or code.code)[:64])


def _uid(*parts: str) -> str:
    """A UID that follows from its parts (PS3.5 B.2)."""
    return f"2.25.{UUID(resource_id('DICOM', *parts)).int}"
