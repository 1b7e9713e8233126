"""The hospital's imaging studies as DICOM files with pixel data. Phantoms, not people."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import config as pydicom_config
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    UltrasoundImageStorage,
)

from hospital.codes import IMAGING, SCANNERS
from hospital.plan import ISSUER_OID, Hospital, PatientRecord, StudyRecord, uid

SIZE = 96
_CLASS = {
    "CT": CTImageStorage,
    "MR": MRImageStorage,
    "CR": ComputedRadiographyImageStorage,
    "US": UltrasoundImageStorage,
}
_LATERALITY = {"KNEE": "L", "HAND": "R", "BREAST": "L"}
Pixels = NDArray[np.uint16]


def files(hospital: Hospital, study: StudyRecord, person: PatientRecord, number: int) -> Iterator[tuple[Path, bytes]]:
    """(path below the DICOM folder, file content) of every instance of one study."""
    for series_number, images in enumerate(study.series, 1):
        made = _series(hospital, study, person, number, series_number)
        for image in range(1, images + 1):
            instance = uid(hospital.seed, study.uid, series_number, image)
            _instance(made, study, instance, image, images)
            name = f"{study.accession}/series{series_number}/image{image:03}.dcm"
            yield Path(name), _written(made)


def _written(made: FileDataset) -> bytes:
    buffer = BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _series(
    hospital: Hospital, study: StudyRecord, person: PatientRecord, number: int, series_number: int
) -> FileDataset:
    imaging = IMAGING[study.kind]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = _CLASS[imaging.modality]
    meta.TransferSyntaxUID = ImplicitVRLittleEndian if number % 11 == 3 else ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID("2.25.148187237184310236424206226377838563985")
    made = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)  # type: ignore[arg-type]
    made.SpecificCharacterSet = list(person.name.charset)
    _patient_module(made, person)
    _study_module(made, study, number)
    _series_module(made, hospital, study, number, series_number)
    _image_module(made, imaging.modality, number)
    return made


def _patient_module(made: Dataset, person: PatientRecord) -> None:
    groups = [f"{person.name.family}^{person.name.given}", person.name.ideographic, person.name.phonetic]
    with pydicom_config.disable_value_validation():
        made.PatientName = "=".join(groups).rstrip("=")
    made.PatientID = person.mrn
    issuer = Dataset()
    issuer.UniversalEntityID, issuer.UniversalEntityIDType, issuer.IdentifierTypeCode = ISSUER_OID, "ISO", "MR"
    made.IssuerOfPatientIDQualifiersSequence = [issuer]
    made.PatientBirthDate = person.birth_date.strftime("%Y%m%d")
    made.PatientSex = person.gender
    made.PatientComments = "SYNTHETIC DATA: this patient does not exist"


def _study_module(made: Dataset, study: StudyRecord, number: int) -> None:
    made.StudyInstanceUID = study.uid
    made.StudyDate, made.StudyTime = study.day.strftime("%Y%m%d"), study.time
    if number % 2:
        made.TimezoneOffsetFromUTC = "+0100"
    made.AccessionNumber, made.StudyID = study.accession, str(number)
    made.StudyDescription = IMAGING[study.kind].description
    made.ReferringPhysicianName = "Referrer-Test^Rita^^Dr."
    made.InstitutionName, made.InstitutionalDepartmentName = "Synthetic General Hospital", "Radiology"
    if number % 4 == 0:
        procedure = Dataset()
        procedure.CodeValue, procedure.CodingSchemeDesignator = IMAGING[study.kind].loinc, "LN"
        procedure.CodeMeaning = IMAGING[study.kind].description
        made.ProcedureCodeSequence = [procedure]


def _series_module(made: Dataset, hospital: Hospital, study: StudyRecord, number: int, series_number: int) -> None:
    imaging = IMAGING[study.kind]
    made.SeriesInstanceUID = uid(hospital.seed, study.uid, series_number)
    made.SeriesNumber, made.Modality = series_number, imaging.modality
    made.SeriesDescription = f"{imaging.description} {series_number}"
    made.SeriesDate, made.SeriesTime = made.StudyDate, made.StudyTime
    made.BodyPartExamined = imaging.body_part
    if imaging.body_part in _LATERALITY:
        made.Laterality = _LATERALITY[imaging.body_part]
    made.ProtocolName = imaging.description.upper()
    made.PerformingPhysicianName, made.OperatorsName = "Reader-Test^Rolf", "Operator-Test^Olga"
    scanners = SCANNERS[imaging.modality]
    made.Manufacturer, made.ManufacturerModelName = scanners[number % len(scanners)]
    made.StationName = f"{imaging.modality}{number % 3 + 1}"
    made.SOPClassUID = _CLASS[imaging.modality]


def _image_module(made: Dataset, modality: str, number: int) -> None:
    made.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL" if modality in ("CT", "MR") else "OTHER"]
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.Rows = made.Columns = SIZE
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 12, 11, 0
    if modality in ("CT", "MR"):
        made.PixelSpacing = [0.75, 0.75]
        made.SliceThickness = (1.0, 2.5, 5.0)[number % 3]
        made.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        made.FrameOfReferenceUID = made.SeriesInstanceUID + ".1"
        made.PatientPosition = "HFS"
    if modality == "CT":
        made.KVP, made.ExposureTime, made.XRayTubeCurrent = (100, 120)[number % 2], 500, 200 + number % 50
        made.ConvolutionKernel = ("SOFT", "BONE")[number % 2]
        made.RescaleIntercept, made.RescaleSlope = -1024, 1
        if number % 2:
            made.ContrastBolusAgent = "SYNTHETIC IODINE"
    elif modality == "MR":
        made.RepetitionTime, made.EchoTime, made.FlipAngle = 450 + number % 100, 12.5, 90
        made.MagneticFieldStrength = (1.5, 3)[number % 2]
        made.ScanningSequence, made.SequenceVariant = "SE", "NONE"
        made.MRAcquisitionType, made.EchoTrainLength = "2D", 1
    elif modality == "CR":
        made.KVP, made.ViewPosition, made.ImagerPixelSpacing = 90, "PA", [0.2, 0.2]


def _instance(made: FileDataset, study: StudyRecord, instance: str, image: int, images: int) -> None:
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = UID(instance)
    made.InstanceNumber = image
    made.AcquisitionDate, made.AcquisitionTime = made.StudyDate, made.StudyTime
    if made.Modality in ("CT", "MR"):
        made.ImagePositionPatient = [-36, -36, image * float(made.SliceThickness)]
        made.SliceLocation = image * float(made.SliceThickness)
    made.PixelData = phantom(made.Modality, image / images).tobytes()


_GRID = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) / SIZE - 0.5


def phantom(modality: str, depth: float) -> Pixels:
    """A body ellipse with a bone ring and a lesion that moves with depth; 12 bits. Shape (SIZE, SIZE) uint16."""
    rows, columns = _GRID
    body = (rows / 0.35) ** 2 + (columns / 0.45) ** 2 < 1
    radius = np.hypot(rows + 0.05, columns)
    ring = (radius > 0.10) & (radius < 0.14)
    lesion = np.hypot(rows - 0.1, columns - 0.2 + 0.3 * depth) < 0.06
    bone, soft, sick = {"CT": (2200, 1060, 1400), "MR": (200, 900, 1900), "CR": (3000, 1500, 2400)}.get(
        modality, (800, 400, 120)
    )
    image = np.where(body, soft, 0 if modality != "CT" else 24)
    image = np.where(ring, bone, image)
    image = np.where(lesion & body, sick, image)
    speckle = ((rows * 7919 + columns * 104729 + depth * 31) % 0.01 * 4000).astype(np.int32)
    made: Pixels = np.clip(image + speckle, 0, 4095).astype(np.uint16)
    return made
