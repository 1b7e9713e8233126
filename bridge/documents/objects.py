"""Which objects are documents, and what of one is kept. Source: PS3.4 B.5, PS3.3 A.

What is kept is a Part 10 file still, so that another version of this program can read more of it.
"""

from __future__ import annotations

from io import BytesIO

from pydicom import config
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset

from bridge.errors import InvalidFile, RefusedResult
from bridge.findings.part10 import opened
from bridge.findings.sr_tree import check_tree, text
from bridge.model import InstanceName

MOST_BYTES = 33_554_432
"""Of an object so much is read: whole documents, and what stands before the pixels of a Segmentation."""

MOST_DEPTH = 64
MOST_ELEMENTS, VALUES_OF_ONE = 400_000, 8
"""Elements and items of one object, with eight values of an element as one more: an object that is kept is opened with
every translation of its study. A report of 20,000 content items has some 250,000."""

_STORAGE = "1.2.840.10008.5.1.4.1.1."
SR, PRESENTATION_STATE = f"{_STORAGE}88.", f"{_STORAGE}11."
KEY_OBJECTS = f"{_STORAGE}88.59"
SEGMENTATIONS = frozenset({f"{_STORAGE}66.4", f"{_STORAGE}66.7"})
ENCAPSULATED_PDF, ENCAPSULATED_CDA = f"{_STORAGE}104.1", f"{_STORAGE}104.2"
ENCAPSULATED = frozenset({ENCAPSULATED_PDF, ENCAPSULATED_CDA})
_OTHERS = SEGMENTATIONS | ENCAPSULATED

_FRAMES, _PAYLOAD, _UNDEFINED = 0x52009230, 0x00420011, 0xFFFFFFFF
MOST_INLINE = 1_048_576
"""A larger encapsulated document is not copied: readers get it from the archive."""


def is_document(sop_class_uid: str) -> bool:
    """Whether objects of this class are read: SR, key objects, presentation states, SEG, encapsulated PDF and CDA."""
    return sop_class_uid.startswith((SR, PRESENTATION_STATE)) or sop_class_uid in _OTHERS


def kept_part(content: bytes, name: InstanceName | None) -> bytes:
    """What is kept of the first MOST_BYTES of an object: of a Segmentation no pixels and of its frames one for each
    segment, of a large encapsulated document all but the document. `name` None: whatever object it is.

    Raises  InvalidFile when it is damaged, truncated, too large, too deep or another object than the one asked for
    """
    found = opened(content)
    try:
        with config.disable_value_validation():
            return _kept_part(found, content, name)
    except (InvalidFile, MemoryError):
        raise
    except Exception:  # noqa: BLE001  as where it is opened: elements that are read later fail here
        raise InvalidFile("damaged or truncated: it cannot be read") from None


def _kept_part(found: FileDataset, content: bytes, name: InstanceName | None) -> bytes:
    if name is not None:
        _check_name(found, name)
    sop_class = text(found, "SOPClassUID")
    cut = len(content) >= MOST_BYTES
    if cut and sop_class not in SEGMENTATIONS | ENCAPSULATED:
        raise InvalidFile(f"it is larger than {MOST_BYTES} bytes")
    changed = False
    if sop_class in SEGMENTATIONS:
        changed = bool(found.pop(_FRAMES, None) if cut else _shorten(found))
    elif sop_class in ENCAPSULATED and _PAYLOAD in found:
        changed = _without_large(found, sop_class, cut)
    _check(found, 0)
    if sop_class.startswith(SR):
        _check_tree(found)
    if not changed:
        return content
    buffer = BytesIO()
    found.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _check_name(found: Dataset, name: InstanceName) -> None:
    for keyword, uid in (
        ("StudyInstanceUID", name.study_instance_uid),
        ("SOPInstanceUID", name.sop_instance_uid),
        ("SOPClassUID", name.sop_class_uid),
    ):
        if text(found, keyword) != uid:
            raise InvalidFile(f"{keyword} is another one than that of the object asked for")


def _check_tree(found: Dataset) -> None:
    try:
        check_tree(found)
    except RefusedResult as error:
        raise InvalidFile(str(error)) from None


def _shorten(found: Dataset) -> bool:
    """Leaves one frame of each segment: that a segment has frames says that it is not empty."""
    if _FRAMES not in found:
        return False
    kept: dict[int, Dataset] = {}
    for frame in found[_FRAMES].value:
        for segment in frame.get("SegmentIdentificationSequence") or ():
            one = Dataset()
            one.SegmentIdentificationSequence = [segment]
            kept.setdefault(int(segment.ReferencedSegmentNumber), one)
    del found[_FRAMES]
    if kept:
        found.PerFrameFunctionalGroupsSequence = [kept[number] for number in sorted(kept)]
    return True


def _without_large(found: Dataset, sop_class: str, cut: bool) -> bool:
    raw = found.get_item(_PAYLOAD)
    value = bytes(raw.value or b"") if raw is not None else b""
    if sop_class == ENCAPSULATED_PDF and b"%PDF-" not in value[:1024]:
        raise InvalidFile("EncapsulatedDocument is not a PDF")
    if not cut and len(value) <= MOST_INLINE:
        return False
    declared = raw.length if isinstance(raw, RawDataElement) else len(value)
    del found[_PAYLOAD]
    if "EncapsulatedDocumentLength" not in found and declared != _UNDEFINED:
        found.EncapsulatedDocumentLength = declared
    return True


def _check(dataset: Dataset, depth: int) -> int:
    """How many elements and items it has. Raises InvalidFile when an element is shorter than it says, at any
    depth, or there are too many."""
    if depth > MOST_DEPTH:
        raise InvalidFile(f"its sequences lie deeper than {MOST_DEPTH} levels")
    found = 0
    for tag in list(dataset.keys()):
        raw = dataset.get_item(tag)
        if isinstance(raw, RawDataElement) and raw.length != _UNDEFINED and len(raw.value or b"") < raw.length:
            raise InvalidFile("truncated: an element is shorter than it says")
        element = dataset[tag]
        found += 1 + element.VM // VALUES_OF_ONE
        if element.VR == "SQ":
            found += sum(1 + _check(item, depth + 1) for item in element.value)
        if found > MOST_ELEMENTS:
            raise InvalidFile(f"it has more than {MOST_ELEMENTS} elements, items and values")
    return found
