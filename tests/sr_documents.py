"""DICOM SR documents of TID 1500, written by highdicom: another program's understanding of the template."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import highdicom.sr as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import CTImageStorage, SegmentationStorage

from tests.builders import STUDY, a_dataset

SR_UID = f"{STUDY}.900.1"
SEG_UID = f"{STUDY}.800.1"
NODULE = Code("427359005", "SCT", "Solitary nodule of lung")
LUNG = Code("39607008", "SCT", "Lung")
RIGHT = Code("24028007", "SCT", "Right")
DIAMETER = Code("81827009", "SCT", "Diameter")
MILLIMETRE = Code("mm", "UCUM", "millimeter")
EVALUATED = Code("C0449381", "UMLS", "Observation parameter")
SPICULATED = Code("129742005", "SCT", "Spiculated lesion")


def an_image(**attributes: Any) -> Dataset:
    """A CT image with all that highdicom copies into its documents."""
    empty = {"StudyID": "1", "FrameOfReferenceUID": "1.2.9", "PositionReferenceIndicator": ""}
    made = a_dataset(
        **(empty | {"AccessionNumber": "A1", "ReferringPhysicianName": "", "PatientSex": "F"} | attributes)
    )
    made.PatientAge = "030Y"
    return made


def a_segmentation() -> Dataset:
    """What the evidence needs of a Segmentation of the study."""
    made = an_image(series=800, Modality="SEG", SOPClassUID=SegmentationStorage)
    made.SOPInstanceUID = SEG_UID
    return made


def an_algorithm(version: str = "2.1.0") -> hd.AlgorithmIdentification:
    return hd.AlgorithmIdentification(name="LungNet", version=version)


def a_measurement(value: float = 8.5, unit: Code = MILLIMETRE, **more: Any) -> hd.Measurement:
    return hd.Measurement(name=DIAMETER, value=value, unit=unit, **more)


def a_circle() -> hd.ImageRegion:
    source = hd.SourceImageForRegion(CTImageStorage, f"{STUDY}.1.1")
    return hd.ImageRegion("CIRCLE", np.array([[120.5, 88.0], [126.5, 88.0]]), source)


def _shared(**more: Any) -> dict[str, Any]:
    shared: dict[str, Any] = {
        "tracking_identifier": hd.TrackingIdentifier(uid=f"{STUDY}.99", identifier="nodule 1"),
        "finding_type": NODULE,
        "finding_sites": [hd.FindingSite(LUNG, laterality=RIGHT)],
        "algorithm_id": an_algorithm(),
        "measurements": [a_measurement()],
    }
    return shared | more


def planar(**more: Any) -> hd.PlanarROIMeasurementsAndQualitativeEvaluations:
    """TID 1410: a circle around a nodule of 8.5 mm."""
    return hd.PlanarROIMeasurementsAndQualitativeEvaluations(**_shared(referenced_region=a_circle()) | more)


def planar_in_space(**more: Any) -> hd.PlanarROIMeasurementsAndQualitativeEvaluations:
    """TID 1410: a polygon in the frame of reference."""
    corners = np.array([[1.0, 2.0, 3.0], [4.0, 2.0, 3.0], [4.0, 5.0, 3.0], [1.0, 2.0, 3.0]])
    return planar(referenced_region=hd.ImageRegion3D("POLYGON", corners, "1.2.9"), **more)


def volumetric(**more: Any) -> hd.VolumetricROIMeasurementsAndQualitativeEvaluations:
    """TID 1411: the same nodule as segment 2 of a Segmentation."""
    source = hd.SourceImageForSegmentation(CTImageStorage, f"{STUDY}.1.1")
    segment = hd.ReferencedSegment(SegmentationStorage, SEG_UID, 2, source_images=[source])
    return hd.VolumetricROIMeasurementsAndQualitativeEvaluations(**_shared(referenced_segment=segment) | more)


def of_images(**more: Any) -> hd.MeasurementsAndQualitativeEvaluations:
    """TID 1501: of an image, without a region."""
    images = [hd.SourceImageForMeasurementGroup(CTImageStorage, f"{STUDY}.1.1")]
    return hd.MeasurementsAndQualitativeEvaluations(**_shared(source_images=images) | more)


def an_evaluation(name: Code = EVALUATED, value: Code = SPICULATED) -> hd.QualitativeEvaluation:
    return hd.QualitativeEvaluation(name, value)


def by_a_device() -> hd.ObservationContext:
    device = hd.DeviceObserverIdentifyingAttributes(uid="1.2.3.4.5", model_name="Station")
    return hd.ObservationContext(observer_device_context=hd.ObserverContext(Code("121007", "DCM", "Device"), device))


def by_a_person() -> hd.ObservationContext:
    person = hd.PersonObserverIdentifyingAttributes(name="Leser^Lia")
    return hd.ObservationContext(observer_person_context=hd.ObserverContext(Code("121006", "DCM", "Person"), person))


def a_document(
    *groups: Any,
    observed: hd.ObservationContext | None = None,
    **attributes: Any,
) -> Dataset:
    """A Comprehensive 3D SR with these groups; an attribute given as None is left out."""
    report = hd.MeasurementReport(
        observation_context=observed or by_a_device(),
        procedure_reported=Code("241541005", "SCT", "High resolution CT of chest"),
        imaging_measurements=list(groups) or [planar()],
    )
    made = hd.Comprehensive3DSR(
        evidence=[an_image(), a_segmentation()],
        content=report,
        series_instance_uid=f"{STUDY}.900",
        series_number=900,
        sop_instance_uid=SR_UID,
        instance_number=1,
        manufacturer="Fictive AI",
    )
    values = {"ContentDate": "20251201", "ContentTime": "110500", "TimezoneOffsetFromUTC": "+0100"} | attributes
    for keyword, value in values.items():
        if value is None:
            made.pop(keyword, None)
        else:
            setattr(made, keyword, value)
    return made


def as_bytes(document: Dataset) -> bytes:
    """The document as a Part 10 file."""
    buffer = BytesIO()
    document.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
