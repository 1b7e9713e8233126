"""Writes small valid DICOM files: a CT slice of 8 by 8 pixels unless told otherwise."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

IMPLEMENTATION = UID("1.2.826.0.1.3680043.10.1561")
"""Implementation Class UID of the files written here."""


def dicom_dataset(study: str, series: str, instance: str, **attributes: Any) -> Dataset:
    """One CT instance; an attribute given by keyword replaces the default, None leaves it out."""
    dataset = Dataset()
    defaults: dict[str, Any] = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": instance,
        "StudyInstanceUID": study,
        "SeriesInstanceUID": series,
        "PatientID": "TEST-1",
        "PatientName": "Test^Patient",
        "PatientBirthDate": "19700101",
        "PatientSex": "O",
        "StudyDate": "20240301",
        "StudyTime": "091500",
        "StudyID": "1",
        "AccessionNumber": "ACC-1",
        "StudyDescription": "CT of a phantom",
        "ReferringPhysicianName": "",
        "Modality": "CT",
        "SeriesNumber": 1,
        "InstanceNumber": int(instance.rpartition(".")[2]) % 2**31,
        "Manufacturer": "Test",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": 8,
        "Columns": 8,
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "PixelSpacing": [0.5, 0.5],
        "SliceThickness": 1.0,
        "PixelData": bytes(128),
    }
    for keyword, value in (defaults | attributes).items():
        if value is not None:
            setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.ImplementationClassUID = IMPLEMENTATION
    return dataset


def dicom_bytes(study: str, series: str, instance: str, **attributes: Any) -> bytes:
    """The file's content."""
    buffer = BytesIO()
    dicom_dataset(study, series, instance, **attributes).save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def write_dicom(path: Path, study: str, series: str, instance: str, **attributes: Any) -> Path:
    """The file, its folder made if need be; the same path for the caller to keep."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(dicom_bytes(study, series, instance, **attributes))
    return path


def study_bytes(study: str, series: int = 1, instances: int = 2, first: int = 1, **attributes: Any) -> list[bytes]:
    """The files of a study of so many series, each with so many instances, numbered from `first`."""
    return [
        dicom_bytes(study, f"{study}.{s}", f"{study}.{s}.{i}", SeriesNumber=s, **attributes)
        for s in range(1, series + 1)
        for i in range(first, first + instances)
    ]
