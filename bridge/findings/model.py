"""What a program found in the images of a study, as frozen values; every bound of their JSON form stands here.

Codes are DICOM's triples (PS3.3 8.8): scheme designator, code, meaning. UIDs are bare.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import AwareDatetime, ConfigDict, Field

MOST_TEXT = 20_000
MOST_FINDINGS, MOST_IMAGES, MOST_MEASUREMENTS, MOST_REGIONS, MOST_POINTS, MOST_FRAMES = 200, 500, 50, 50, 1000, 1000

RUN_ID = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$"
Uid = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)+$", max_length=64)]
OptionalUid = Annotated[str, Field(pattern=r"^([0-9]+(\.[0-9]+)+)?$", max_length=64)]
Name = Annotated[str, Field(pattern=r"^[^\s\x00-\x1f]([^\x00-\x1f]*[^\s\x00-\x1f])?$", max_length=200)]
OptionalName = Annotated[str, Field(pattern=r"^[^\x00-\x1f]*$", max_length=200)]
Text = Annotated[str, Field(pattern=r"^[^\x00-\x08\x0b\x0c\x0e-\x1f]*$", max_length=MOST_TEXT)]
FindingId = Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]{1,64}$")]
Number = Annotated[float, Field(allow_inf_nan=False)]
Point2D = tuple[Number, Number]
Point3D = tuple[Number, Number, Number]

_STRICT = ConfigDict(extra="forbid", strict=True)


class Presence(StrEnum):
    """Whether what the finding's code says is there: SNOMED CT 52101004, 2667000, 373068000."""

    PRESENT = "present"
    ABSENT = "absent"
    UNDETERMINED = "undetermined"


class Scale(StrEnum):
    """What a confidence counts to: a fraction to 1, a percentage to 100. It is never guessed from the number."""

    FRACTION = "fraction"
    PERCENT = "percent"


class Laterality(StrEnum):
    """The side of the body (PS3.16 CID 244)."""

    LEFT = "left"
    RIGHT = "right"
    BILATERAL = "bilateral"


class PlanarShape(StrEnum):
    """FHIR R5 imagingselection-2dgraphictype, as far as taken; PS3.3 C.18.6.1.2 says what the points mean."""

    POINT = "point"
    POLYLINE = "polyline"
    CIRCLE = "circle"
    ELLIPSE = "ellipse"


class SpatialShape(StrEnum):
    """FHIR R5 imagingselection-3dgraphictype; PS3.3 C.18.9.1.2 says what the points mean."""

    POINT = "point"
    MULTIPOINT = "multipoint"
    POLYLINE = "polyline"
    POLYGON = "polygon"
    ELLIPSE = "ellipse"
    ELLIPSOID = "ellipsoid"


@dataclass(frozen=True)
class Code:
    """A code by its scheme's DICOM designator (PS3.16 Table 8-1: SCT, LN, RADLEX, DCM, ...), or one of the site's."""

    __pydantic_config__ = _STRICT
    scheme: Annotated[str, Field(pattern=r"^\S+$", max_length=64)]
    code: Annotated[str, Field(pattern=r"^\S+( \S+)*$", max_length=200)]
    display: OptionalName = ""


@dataclass(frozen=True)
class Model:
    """The program that found it. Another version is another program: its results are told apart."""

    __pydantic_config__ = _STRICT
    name: Name
    version: Name
    vendor: OptionalName = ""
    udi: Annotated[OptionalName, Field(description="unique device identifier as people read it, of the version")] = ""


@dataclass(frozen=True)
class Confidence:
    """How sure the program is that the finding is true, on the scale it says."""

    __pydantic_config__ = _STRICT
    value: Annotated[Number, Field(ge=0, le=100)]
    scale: Scale

    @property
    def percent(self) -> float:
        """The same of 100, without digits that the arithmetic adds."""
        return round(self.value * 100, 10) if self.scale is Scale.FRACTION else self.value


@dataclass(frozen=True)
class Measurement:
    """One number with its unit (UCUM; "1" for numbers without one); `derivation` such as mean, where it is one of many
    values."""

    __pydantic_config__ = _STRICT
    code: Code
    value: Number
    unit: Annotated[str, Field(pattern=r"^[!-~]+$", max_length=64, description="UCUM code")]
    derivation: Code | None = None


@dataclass(frozen=True)
class Score:
    """A number that rates what the finding's code names, such as an Agatston score; `unit` as of measurements."""

    __pydantic_config__ = _STRICT
    value: Number
    unit: Annotated[str, Field(pattern=r"^[!-~]+$", max_length=64, description="UCUM code")] = "1"


@dataclass(frozen=True)
class ImageReference:
    """A series, an image of it, or frames of that (counted from 1), that a finding was made in."""

    __pydantic_config__ = _STRICT
    series_instance_uid: Uid
    sop_instance_uid: OptionalUid = ""
    frames: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(max_length=MOST_FRAMES)] = ()


@dataclass(frozen=True)
class PlanarRegion:
    """A shape on one image. Points are column, row in pixels; 0, 0 is the top left corner of the image."""

    __pydantic_config__ = _STRICT
    image: ImageReference
    shape: PlanarShape
    points: Annotated[tuple[Point2D, ...], Field(min_length=1, max_length=MOST_POINTS)]


@dataclass(frozen=True)
class SpatialRegion:
    """A shape in a frame of reference. Points are x, y, z in mm in the patient's coordinates."""

    __pydantic_config__ = _STRICT
    frame_of_reference_uid: Uid
    shape: SpatialShape
    points: Annotated[tuple[Point3D, ...], Field(min_length=1, max_length=MOST_POINTS)]


@dataclass(frozen=True)
class Segment:
    """One segment of a DICOM Segmentation of the study (SegmentNumber, counted from 1)."""

    __pydantic_config__ = _STRICT
    series_instance_uid: Uid
    sop_instance_uid: Uid
    number: Annotated[int, Field(ge=1, le=65_535)]


@dataclass(frozen=True)
class Location:
    """Where in the body, and where in the images."""

    __pydantic_config__ = _STRICT
    body_site: Code | None = None
    laterality: Laterality | None = None
    planar_regions: Annotated[tuple[PlanarRegion, ...], Field(max_length=MOST_REGIONS)] = ()
    spatial_regions: Annotated[tuple[SpatialRegion, ...], Field(max_length=MOST_REGIONS)] = ()
    segments: Annotated[tuple[Segment, ...], Field(max_length=MOST_REGIONS)] = ()


@dataclass(frozen=True)
class Finding:
    """One thing found, or looked for. It has one answer at most: presence, a score or a class.

    Result  `id` names it within its run; findings of one lesion, in whatever study, share `tracking_uid`
    """

    __pydantic_config__ = _STRICT
    id: FindingId
    code: Code
    presence: Presence | None = None
    score: Score | None = None
    classification: Code | None = None
    confidence: Confidence | None = None
    measurements: Annotated[tuple[Measurement, ...], Field(max_length=MOST_MEASUREMENTS)] = ()
    location: Location = Location()
    images: Annotated[tuple[ImageReference, ...], Field(max_length=MOST_IMAGES)] = ()
    tracking_uid: OptionalUid = ""
    tracking_identifier: OptionalName = ""
    text: Text = ""


@dataclass(frozen=True)
class AiResult:
    """What one run of a program says of one study; `run_id` names the run for ever.

    Result  `produced_at` when it was made, with a zone; `preliminary` until a reader has signed it
    """

    __pydantic_config__ = _STRICT
    run_id: Annotated[str, Field(pattern=RUN_ID)]
    model: Model
    study_instance_uid: Uid
    produced_at: AwareDatetime
    findings: Annotated[tuple[Finding, ...], Field(max_length=MOST_FINDINGS)]
    preliminary: bool = True
    conclusion: Text = ""
