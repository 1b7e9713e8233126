"""Valid by default, one argument for each thing a test is about."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom.config import disable_value_validation
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from bridge.code_tables import code_tables, dicom_columns
from bridge.model import WadoEndpoint
from bridge.translate.headers import Headers
from bridge.translate.identifiers import Issuers
from bridge.translate.site import Site
from bridge.translate.study import Translator

STUDY = "1.2.826.0.1.3680043.9.1"


def a_dataset(study: str = STUDY, series: int = 1, instance: int = 1, **attributes: Any) -> FileDataset:
    """One CT instance as a pydicom dataset; an attribute given as None is left out."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = attributes.pop("transfer_syntax", ExplicitVRLittleEndian)
    made = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)  # type: ignore[arg-type]
    values: dict[str, Any] = {
        "SpecificCharacterSet": "ISO_IR 192",
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": f"{study}.{series}.{instance}",
        "StudyInstanceUID": study,
        "SeriesInstanceUID": f"{study}.{series}",
        "StudyDate": "20240301",
        "StudyTime": "091500",
        "TimezoneOffsetFromUTC": "+0100",
        "Modality": "CT",
        "PatientID": "P1",
        "PatientName": "Test^Eva",
        "PatientSex": "F",
        "PatientBirthDate": "19700101",
        "StudyDescription": "CT chest",
        "SeriesNumber": series,
        "InstanceNumber": instance,
        "AccessionNumber": "A1",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "SliceThickness": 2.5,
        "PixelSpacing": [0.5, 0.75],
        "KVP": 120,
        "Manufacturer": "Fictive Imaging",
        "Rows": 2,
        "Columns": 2,
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "PixelData": b"\0\1\2\3",
    } | attributes
    with disable_value_validation():
        for keyword, value in values.items():
            if value is not None:
                setattr(made, keyword, value)
    meta.MediaStorageSOPClassUID = made.get("SOPClassUID", CTImageStorage)
    meta.MediaStorageSOPInstanceUID = made.get("SOPInstanceUID", "1.2.3")
    return made


def as_file(dataset: FileDataset) -> bytes:
    """The dataset as the bytes of a Part 10 file."""
    buffer = BytesIO()
    with disable_value_validation():
        dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def write_file(path: Path, **attributes: Any) -> Path:
    """A Part 10 file of `a_dataset(**attributes)`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(as_file(a_dataset(**attributes)))
    return path


def headers(**attributes: Any) -> Headers:
    """The headers of `a_dataset(**attributes)`."""
    return Headers.from_dataset(a_dataset(**attributes))


def a_translator(
    order: tuple[str, ...] = ("a", "b"), endpoints: dict[str, str] | None = None, **site: Any
) -> Translator:
    """A translator with the project's own code tables, or `tables`; `endpoints` source → address."""
    issuers, tables = site.pop("issuers", Issuers({})), site.pop("tables", code_tables())
    wado = {name: WadoEndpoint(name, address) for name, address in (endpoints or {}).items()}
    return Translator(Site(tables, issuers=issuers, **site), order, wado, dicom_columns())
