"""The DICOM attributes that the bridge keeps of one instance, in one form whatever they were read from.

A `Headers` is a read-only mapping from DICOM keyword to a non-empty tuple of values. An attribute that is
absent, or present with zero length, is not in the mapping. Values are

    str                 every text VR (trailing padding removed), DA, TM, DT, UI, AS; no control characters but TAB,
                        LF and CR, which is what FHIR's strings may have
    int                 IS, US, SS, UL, SL
    float               DS, FL, FD
    PersonName          PN, decoded, its three component groups apart (PS3.5 6.2.1)
    Headers             an item of a sequence

A number that cannot be read stays the text it was, so that the translation can name its keyword.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, Union

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MAXIMUM_SEQUENCE_DEPTH = 8
"""Deeper sequences are not kept: nothing the bridge translates lies deeper than four levels."""

INTEGER_VRS = frozenset({"IS", "US", "SS", "UL", "SL", "UV", "SV"})
FLOAT_VRS = frozenset({"DS", "FL", "FD"})
SINGLE_TEXT_VRS = frozenset({"ST", "LT", "UT", "UR"})
LEADING_SPACE_MATTERS = frozenset({"ST", "LT", "UT"})

_PATIENT = """
PatientID IssuerOfPatientID IssuerOfPatientIDQualifiersSequence UniversalEntityID UniversalEntityIDType
LocalNamespaceEntityID IdentifierTypeCode AssigningFacilitySequence OtherPatientIDsSequence TypeOfPatientID
PatientName PatientBirthDate PatientSex PatientAge PatientSize PatientWeight
"""
_STUDY = """
StudyInstanceUID StudyDate StudyTime TimezoneOffsetFromUTC StudyID StudyDescription AccessionNumber
IssuerOfAccessionNumberSequence ReferringPhysicianName ReferringPhysicianIdentificationSequence
PersonIdentificationCodeSequence NameOfPhysiciansReadingStudy ProcedureCodeSequence RequestedProcedureCodeSequence
RequestedProcedureDescription RequestedProcedureID RequestAttributesSequence ReferencedRequestSequence
ScheduledProcedureStepID ReasonForTheRequestedProcedure ReasonForRequestedProcedureCodeSequence
PlacerOrderNumberImagingServiceRequest FillerOrderNumberImagingServiceRequest OrderPlacerIdentifierSequence
OrderFillerIdentifierSequence AdmissionID IssuerOfAdmissionIDSequence InstitutionName InstitutionalDepartmentName
PerformedLocation CodeValue LongCodeValue URNCodeValue CodingSchemeDesignator CodingSchemeVersion CodeMeaning
EquivalentCodeSequence CodingSchemeIdentificationSequence CodingSchemeUID
"""
_SERIES = """
SeriesInstanceUID Modality SeriesNumber SeriesDescription SeriesDate SeriesTime PerformedProcedureStepStartDate
PerformedProcedureStepStartTime AcquisitionDate AcquisitionTime AcquisitionDateTime BodyPartExamined
AnatomicRegionSequence Laterality ImageLaterality FrameLaterality PerformingPhysicianName OperatorsName ProtocolName
Manufacturer ManufacturerModelName StationName SoftwareVersions SpecimenDescriptionSequence SpecimenIdentifier
SpecimenUID IssuerOfTheSpecimenIdentifierSequence SegmentSequence PatientPosition
"""
_INSTANCE = """
SOPInstanceUID SOPClassUID TransferSyntaxUID InstanceNumber ImageType NumberOfFrames Rows Columns
ConceptNameCodeSequence ContentLabel ContentDate ContentTime DocumentTitle PixelSpacing ImagerPixelSpacing
SliceThickness SpacingBetweenSlices SliceLocation KVP ExposureTime XRayTubeCurrent Exposure CTDIvol ConvolutionKernel
ReconstructionDiameter GantryDetectorTilt SpiralPitchFactor ContrastBolusAgent ContrastBolusRoute RepetitionTime
EchoTime EffectiveEchoTime InversionTime FlipAngle EchoTrainLength MagneticFieldStrength ScanningSequence
SequenceVariant SequenceName MRAcquisitionType ViewPosition BitsAllocated BitsStored PhotometricInterpretation
BurnedInAnnotation LossyImageCompression SharedFunctionalGroupsSequence FrameAnatomySequence PixelMeasuresSequence
MRTimingAndRelatedParametersSequence MREchoSequence CTExposureSequence CTXRayDetailsSequence CTReconstructionSequence
ExposureTimeInms XRayTubeCurrentInmA
"""
_PROCEDURE_STEP = """
ScheduledStepAttributesSequence PerformedProcedureStepDescription
"""


def _vr(keyword: str) -> str:
    return str(dictionary_VR(keyword))


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return int(tag)


WANTED: Mapping[str, str] = {
    k: _vr(k) for block in (_PATIENT, _STUDY, _SERIES, _INSTANCE, _PROCEDURE_STEP) for k in block.split()
}
"""Keyword → value representation of every attribute that is kept. What is not here never leaves the reader."""

WANTED_TAGS: Mapping[int, tuple[str, str]] = {_tag(k): (k, vr) for k, vr in WANTED.items()}
"""Tag number → (keyword, value representation), for readers that walk the data element by element."""


_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


class PersonName(NamedTuple):
    """A PN value by component group, each `Family^Given^Middle^Prefix^Suffix` (PS3.5 6.2.1)."""

    alphabetic: str = ""
    ideographic: str = ""
    phonetic: str = ""

    @classmethod
    def parse(cls, text: str) -> PersonName:
        """The name from its decoded text, groups divided by `=`; trailing delimiters and padding dropped."""
        groups = [_trim_name(group) for group in text.split("=")[:3]]
        return cls(*groups)

    def __bool__(self) -> bool:
        return any(self)


Value = Union[str, int, float, PersonName, "Headers"]


class Headers(Mapping[str, tuple[Value, ...]]):
    """The kept attributes of one instance, or of one sequence item. See the module's docstring."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, tuple[Value, ...]]) -> None:
        self._values = values

    def __getitem__(self, keyword: str) -> tuple[Value, ...]:
        return self._values[keyword]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Headers({len(self._values)} attributes)"  # never the values: they are a patient's

    def first(self, keyword: str) -> Value | None:
        """The first value, or None when the attribute is absent or empty."""
        values = self._values.get(keyword)
        return values[0] if values else None

    def text(self, keyword: str) -> str:
        """The first value as text, stripped, or "" when absent or empty."""
        value = self.first(keyword)
        return "" if value is None or isinstance(value, Headers | PersonName) else str(value).strip()

    def number(self, keyword: str) -> float | None:
        """The first value as a finite number, or None when absent or not a number."""
        value = self.first(keyword)
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None

    def integer(self, keyword: str) -> int | None:
        """The first value as a whole number, or None when absent or not a whole number."""
        value = self.number(keyword)
        return int(value) if value is not None and value == int(value) else None

    def name(self, keyword: str) -> PersonName:
        """The first person name; empty when absent."""
        value = self.first(keyword)
        return value if isinstance(value, PersonName) else PersonName()

    def names(self, keyword: str) -> tuple[PersonName, ...]:
        """Every non-empty person name of a multi-valued attribute."""
        return tuple(v for v in self._values.get(keyword, ()) if isinstance(v, PersonName) and v)

    def items_of(self, keyword: str) -> tuple[Headers, ...]:
        """The items of a sequence; () when absent or empty."""
        return tuple(v for v in self._values.get(keyword, ()) if isinstance(v, Headers))

    def item(self, keyword: str) -> Headers:
        """The first item of a sequence; empty headers when absent."""
        items = self.items_of(keyword)
        return items[0] if items else EMPTY

    def as_json(self) -> dict[str, list[Any]]:
        """Plain JSON of the same content; `from_json` is its inverse."""
        return {keyword: [_plain(v) for v in values] for keyword, values in self._values.items()}

    @classmethod
    def from_json(cls, plain: Mapping[str, list[Any]]) -> Headers:
        """The headers written by `as_json`."""
        return cls({keyword: tuple(_unplain(keyword, v) for v in values) for keyword, values in plain.items()})

    @classmethod
    def from_dataset(cls, dataset: Dataset, depth: int = 0) -> Headers:
        """The kept attributes of a pydicom dataset, file meta TransferSyntaxUID among them."""
        values: dict[str, tuple[Value, ...]] = {}
        meta = getattr(dataset, "file_meta", None)
        if meta is not None and "TransferSyntaxUID" in meta:
            values["TransferSyntaxUID"] = (str(meta.TransferSyntaxUID),)
        for tag in dataset.keys():  # noqa: SIM118  (a Dataset iterates over elements, not keys)
            known = WANTED_TAGS.get(int(tag))
            if known is None:
                continue
            keyword, vr = known
            element = dataset[tag]
            found = _dataset_items(element.value, depth) if vr == "SQ" else _dataset_values(vr, element.value)
            if found:
                values[keyword] = found
        return cls(dict(sorted(values.items())))

    @classmethod
    def from_dicom_json(cls, attributes: Mapping[str, Any], depth: int = 0) -> Headers:
        """The kept attributes of one DICOM JSON object (PS3.18 Annex F), read leniently: numbers may be
        strings and strings bare, nulls are empty values."""
        values: dict[str, tuple[Value, ...]] = {}
        for key, attribute in attributes.items():
            known = _known_json_key(key)
            if known is None or not isinstance(attribute, dict):
                continue
            keyword, vr = known
            raw = attribute.get("Value")
            raw = raw if isinstance(raw, list) else [] if raw is None else [raw]
            if vr == "SQ":
                found = _json_items(raw, depth)
            elif vr == "PN":
                found = tuple(name for name in map(_json_name, raw) if name)
            elif len(raw) == 1 and type(raw[0]) is str and vr not in _NOT_PLAIN and raw[0].isprintable():
                text = raw[0].strip()  # most values, without a detour
                found = (text,) if text else ()
            else:
                found = normal_values(vr, [v for v in raw if isinstance(v, str | int | float)])
            if found:
                values[keyword] = found
        return cls(dict(sorted(values.items())))


EMPTY = Headers({})


def normal_values(vr: str, raw: list[Any]) -> tuple[Value, ...]:
    """Values of one attribute in the form the module's docstring states; () when all are empty.

    An empty value inside a multi-valued attribute keeps its place as "" so that positions stay true.
    """
    if vr == "PN":
        return tuple(name for name in (PersonName.parse(str(v)) for v in raw) if name)
    value_of = _VALUE_OF.get(vr, _text)
    if len(raw) == 1:
        value = value_of(raw[0])
        return () if value == "" else (value,)
    values = [value_of(v) for v in raw]
    while values and values[-1] == "":
        values.pop()
    return tuple(values)


def split_text(vr: str, text: str) -> list[str]:
    """The values of a decoded text attribute: divided at `\\` except where the VR forbids it (PS3.5 6.4)."""
    return [text] if vr in SINGLE_TEXT_VRS else text.split("\\")


@lru_cache(maxsize=4096)
def _known_json_key(key: str) -> tuple[str, str] | None:
    if len(key) == 8:
        try:
            return WANTED_TAGS.get(int(key, 16))
        except ValueError:
            return None
    return (key, WANTED[key]) if key in WANTED else None


def _without_controls(text: str) -> str:
    return text if text.isprintable() else text.translate(_CONTROLS)


_CONTROLS = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0))) | {c: c for c in map(ord, "\t\n\r")} | {ord("\f"): "\n"}
"""FHIR R4 string: no code point below 32 but these three. A form feed parts lines."""


def _trim_name(group: str) -> str:
    return _without_controls(group).strip(" ").rstrip("^ ")


def _integer(value: Any) -> Value:
    if isinstance(value, int):
        return int(value) if abs(value) < 2**63 else str(value)
    number = _float(value)
    return int(number) if isinstance(number, float) and abs(number) < 2**63 and number == int(number) else _exact(value)


def _float(value: Any) -> Value:
    """The number, finite and written as DICOM writes it: Python would take `1_0`, line ends and other digits too."""
    if isinstance(value, int | float):
        return float(value) if math.isfinite(value) else _exact(value)
    text = _exact(value)
    number = float(text) if _NUMBER.fullmatch(text) else math.nan
    return number if math.isfinite(number) else text


def _text(value: Any) -> str:
    return _without_controls(str(value)).strip(" ")


def _prose(value: Any) -> str:
    return _without_controls(str(value)).rstrip(" ")


def _exact(value: Any) -> str:
    """A UID or a number with what it should not have: without it, it could be another one."""
    return str(value).strip(" \0")


_VALUE_OF: Mapping[str, Callable[[Any], Value]] = (
    dict.fromkeys(INTEGER_VRS, _integer)
    | dict.fromkeys(FLOAT_VRS, _float)
    | dict.fromkeys(LEADING_SPACE_MATTERS, _prose)
    | {"UI": _exact}
)
"""Value representation → one value in its form; of every other one the text, trimmed."""
_NOT_PLAIN = frozenset(_VALUE_OF) - {"UI"}


def _plain(value: Value) -> Any:
    if isinstance(value, Headers):
        return value.as_json()
    return list(value) if isinstance(value, PersonName) else value


def _unplain(keyword: str, value: Any) -> Value:
    if isinstance(value, dict):
        return Headers.from_json(value)
    if isinstance(value, list):
        return PersonName(*value)
    return float(value) if WANTED.get(keyword) in FLOAT_VRS and isinstance(value, int) else value


def _dataset_items(items: Any, depth: int) -> tuple[Value, ...]:
    if depth >= MAXIMUM_SEQUENCE_DEPTH or items is None:
        return ()
    return tuple(Headers.from_dataset(item, depth + 1) for item in items)


def _dataset_values(vr: str, value: Any) -> tuple[Value, ...]:
    if value is None:
        return ()
    if isinstance(value, bytes):
        return ()
    many = isinstance(value, list | tuple) or type(value).__name__ == "MultiValue"
    return normal_values(vr, [("" if v is None else v) for v in value] if many else [value])


def _json_items(items: list[Any], depth: int) -> tuple[Value, ...]:
    if depth >= MAXIMUM_SEQUENCE_DEPTH:
        return ()
    return tuple(
        Headers.from_dicom_json(item or {}, depth + 1) for item in items if item is None or isinstance(item, Mapping)
    )


def _json_name(raw: Any) -> PersonName:
    if isinstance(raw, dict):
        groups = (raw.get("Alphabetic"), raw.get("Ideographic"), raw.get("Phonetic"))
        return PersonName(*(_trim_name(g) if isinstance(g, str) else "" for g in groups))
    return PersonName.parse(raw) if isinstance(raw, str) else PersonName()


def keyword_of(tag: int) -> str:
    """The keyword of a tag, or `(gggg,eeee)` for one the dictionary does not know. For messages."""
    return keyword_for_tag(tag) or f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
