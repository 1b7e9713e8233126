"""Synthetic objects of the sizes that archives hold: CT and MR slices, and an enhanced MR of many frames."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage

ROOT_UID = "1.2.826.0.1.3680043.9.7"
FRAMES = 120


def ct(number: int = 1) -> bytes:
    """512 by 515 pixels (530 KB), 34 top-level attributes."""
    return _written(
        _slice(number, CTImageStorage, "CT", 515, 512, KVP="120", XRayTubeCurrent="200", ExposureTime="500")
    )


def mr(number: int = 1) -> bytes:
    """112 by 112 pixels (27 KB), with the scan's parameters and some private attributes."""
    dataset = _slice(
        number, MRImageStorage, "MR", 112, 112, ScanningSequence="SE", SequenceVariant="SK", MRAcquisitionType="2D",
        RepetitionTime="500.0", EchoTime="12.5", FlipAngle="90", EchoTrainLength="1", MagneticFieldStrength="1.5",
    )  # fmt: skip
    block = dataset.private_block(0x0019, "BENCH HEADER", create=True)
    for element in range(30):
        block.add_new(element, "LO", f"parameter {element}")
    return _written(dataset)


def enhanced_mr(undefined_lengths: bool = False) -> bytes:
    """120 frames of 50 by 50 pixels (about 670 KB), each with its functional groups."""
    dataset = _slice(1, EnhancedMRImageStorage, "MR", 50, 50, NumberOfFrames=FRAMES)
    dataset.PixelData = bytes(50 * 50 * 2 * FRAMES)
    measures = _item(PixelSpacing=[0.9, 0.9], SliceThickness="3.0", SpacingBetweenSlices="3.3")
    timing = _item(RepetitionTime="2000.0", FlipAngle="90", EchoTrainLength="1")
    dataset.SharedFunctionalGroupsSequence = [
        _item(PixelMeasuresSequence=[measures], MRTimingAndRelatedParametersSequence=[timing])
    ]
    dataset.PerFrameFunctionalGroupsSequence = [_frame(number) for number in range(1, FRAMES + 1)]
    if undefined_lengths:
        _without_lengths(dataset)
    return _written(dataset)


def tiny(study: int) -> bytes:
    """The one image, 8 by 8 pixels, of a study of its own."""
    dataset = _slice(1, MRImageStorage, "MR", 8, 8)
    dataset.StudyInstanceUID = f"{ROOT_UID}.9.{study}"
    dataset.SeriesInstanceUID = f"{ROOT_UID}.9.{study}.1"
    dataset.SOPInstanceUID = f"{ROOT_UID}.9.{study}.1.1"
    dataset.PatientID = f"P{study:07}"
    return _written(dataset)


def _slice(number: int, sop_class: str, modality: str, rows: int, columns: int, **more: Any) -> Dataset:
    return _item(**{
        "SpecificCharacterSet": "ISO_IR 100",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "SOPClassUID": sop_class,
        "SOPInstanceUID": f"{ROOT_UID}.1.1.{number}",
        "StudyDate": "20260102",
        "SeriesDate": "20260102",
        "StudyTime": "091500.000",
        "AccessionNumber": "A0000001",
        "Modality": modality,
        "Manufacturer": "Fictive Imaging",
        "ReferringPhysicianName": "Muster^Anna",
        "StudyDescription": "Thorax",
        "SeriesDescription": "Axial 2.0",
        "PatientName": "Beispiel^Maria",
        "PatientID": "P0000001",
        "PatientBirthDate": "19700102",
        "PatientSex": "F",
        "BodyPartExamined": "CHEST",
        "SliceThickness": "2.0",
        "StudyInstanceUID": ROOT_UID,
        "SeriesInstanceUID": f"{ROOT_UID}.1",
        "StudyID": "1",
        "SeriesNumber": 1,
        "InstanceNumber": number,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": rows,
        "Columns": columns,
        "BitsAllocated": 16,
        "BitsStored": 12,
        "PixelData": bytes(rows * columns * 2),
    } | more)  # fmt: skip


def _frame(number: int) -> Dataset:
    """What a scanner writes of one frame; values differ in length from frame to frame, as they do in life."""
    return _item(
        FrameContentSequence=[
            _item(
                FrameAcquisitionNumber=number, FrameReferenceDateTime=f"20260102091500.{number:06}",
                FrameAcquisitionDateTime=f"20260102091500.{number:06}", FrameAcquisitionDuration=12.5,
                StackID="1", InStackPositionNumber=number, DimensionIndexValues=[1, number],
            )
        ],
        PlanePositionSequence=[_item(ImagePositionPatient=[-100.5, -90.25, number * 3.3])],
        PlaneOrientationSequence=[_item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        MREchoSequence=[_item(EffectiveEchoTime=30.0)],
        MRImageFrameTypeSequence=[
            _item(
                FrameType=["ORIGINAL", "PRIMARY", "DYNAMIC", "NONE"], PixelPresentation="MONOCHROME",
                VolumetricProperties="VOLUME", VolumeBasedCalculationTechnique="NONE",
                ComplexImageComponent="MAGNITUDE", AcquisitionContrast="T2_STAR",
            )
        ],
        FrameVOILUTSequence=[_item(WindowCenter=f"{400 + number}", WindowWidth=f"{800 + 2 * number}")],
        PixelValueTransformationSequence=[_item(RescaleIntercept="0", RescaleSlope=f"{1 + number / 7:.4f}")],
        MRAveragesSequence=[_item(NumberOfAverages="1")],
    )  # fmt: skip


def _item(**attributes: Any) -> Dataset:
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def _without_lengths(dataset: Dataset) -> None:
    """Every sequence and item ends by a delimiter, as many scanners write them."""
    for element in dataset:
        if isinstance(element.value, Sequence):
            element.is_undefined_length = True
            for item in element.value:
                item.is_undefined_length_sequence_item = True
                _without_lengths(item)


def _written(dataset: Dataset) -> bytes:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
