"""A DICOM file of a document as data set: the one place where one is opened. Source: PS3.10 7.1."""

from __future__ import annotations

from io import BytesIO

from pydicom import config, dcmread
from pydicom.dataset import FileDataset
from pydicom.filereader import _read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from bridge.errors import InvalidFile

_PREAMBLE = 132


def opened(content: bytes) -> FileDataset:
    """A Part 10 file as data set, without its pixels.

    Raises  InvalidFile for what is none, is damaged, or deflated: nothing is inflated. MemoryError passes
    """
    if content[128:_PREAMBLE] != b"DICM":
        raise InvalidFile("not a DICOM file: no DICM marker")
    file = BytesIO(content)
    try:
        with config.disable_value_validation():  # its warnings quote values; what matters is checked where it is used
            file.seek(_PREAMBLE)
            deflated = _read_file_meta_info(file).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian
            file.seek(0)
            found = None if deflated else dcmread(file, stop_before_pixels=True)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  a damaged file fails anywhere in the library; its messages may quote values
        raise InvalidFile("damaged or truncated: it cannot be read") from None
    if found is None:
        raise InvalidFile("TransferSyntaxUID is deflated: documents are read uncompressed")
    return found
