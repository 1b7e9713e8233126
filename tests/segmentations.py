"""DICOM Segmentations, written by highdicom."""

from __future__ import annotations

from typing import Any

import highdicom as hd
import numpy as np
from highdicom.seg import SegmentationTypeValues
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from tests.builders import STUDY
from tests.sr_documents import LUNG, NODULE, RIGHT, SEG_UID, an_image

LESION = Code("49755003", "SCT", "Morphologically Abnormal Structure")
GEOMETRY: dict[str, Any] = {
    "ImagePositionPatient": [0.0, 0.0, 0.0],
    "ImageOrientationPatient": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
    "PatientPosition": "HFS",
}


def a_segment(number: int, automatic: bool = True, **more: Any) -> hd.seg.SegmentDescription:
    """A nodule in the right lung, segmented by LungNet 2.1.0 or by hand."""
    algorithm: dict[str, Any] = {"algorithm_type": "MANUAL"}
    if automatic:
        family = Code("123110", "DCM", "Artificial Intelligence")
        identified = hd.AlgorithmIdentificationSequence(name="LungNet", version="2.1.0", family=family)
        algorithm = {"algorithm_type": "AUTOMATIC", "algorithm_identification": identified}
    made = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=f"Nodule {number}",
        segmented_property_category=LESION,
        segmented_property_type=NODULE,
        anatomic_regions=[LUNG],
        **algorithm | more,
    )
    made.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [hd.sr.CodedConcept.from_code(RIGHT)]
    return made


def a_segmentation(
    *segments: hd.seg.SegmentDescription, empty: tuple[int, ...] = (), uid: str = SEG_UID, **attributes: Any
) -> Dataset:
    """A binary Segmentation of the one CT image; segments in `empty` have no pixel and no frame."""
    described = list(segments) or [a_segment(1), a_segment(2)]
    mask = np.zeros((1, 2, 2, len(described)), dtype=np.uint8)
    for n in range(len(described)):
        mask[0, n % 2, 0, n] = int(n + 1 not in empty)
    made = hd.seg.Segmentation(
        source_images=[an_image(**GEOMETRY)],
        pixel_array=mask,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=described,
        series_instance_uid=f"{STUDY}.800",
        series_number=800,
        sop_instance_uid=uid,
        instance_number=1,
        manufacturer="Fictive AI",
        manufacturer_model_name="LungNet",
        software_versions="2.1.0",
        device_serial_number="1",
    )
    values = {"ContentDate": "20251201", "ContentTime": "110500", "TimezoneOffsetFromUTC": "+0100"} | attributes
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made
