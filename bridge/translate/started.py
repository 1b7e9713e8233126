"""When a study and a series began: DICOM dates and times → FHIR dateTime."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import tzinfo

from bridge.errors import InvalidDicomValue
from bridge.translate.dates import fhir_date_time, has_two_offsets, offset, readable_time
from bridge.translate.headers import Headers
from bridge.translate.merge import Remarks
from bridge.translate.wanted import PER_FRAME

SERIES_DATES = (
    ("SeriesDate", "SeriesTime"),
    ("PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime"),
)


def study_started(values: Headers, zone: tzinfo | None, remarks: Remarks) -> str | None:
    """FHIR R4 ImagingStudy.started, from PS3.3 C.7.2.1 StudyDate, StudyTime, never from the series."""
    return _pair(values, "StudyDate", "StudyTime", zone, remarks)


def series_started(instances: Sequence[Headers], values: Headers, zone: tzinfo | None, remarks: Remarks) -> str | None:
    """FHIR R4 ImagingStudy.series.started, from the first of these that is there.

    From    PS3.3 C.7.3.1 SeriesDate and SeriesTime; PerformedProcedureStepStartDate and -Time; the earliest
            AcquisitionDate and AcquisitionTime, AcquisitionDateTime, or FrameAcquisitionDateTime of its instances
    """
    for day, clock in SERIES_DATES:
        if found := _pair(values, day, clock, zone, remarks):
            return found
    moments = [h for h in instances if h.text("AcquisitionDate")]
    if moments:
        earliest = min(moments, key=lambda h: (h.text("AcquisitionDate"), h.text("AcquisitionTime")))
        if found := _pair(earliest, "AcquisitionDate", "AcquisitionTime", zone, remarks):
            return found
    for keyword in ("AcquisitionDateTime", "FrameAcquisitionDateTime"):
        texts = [t for h in instances if (t := _date_time(h, keyword))]
        if texts and (found := _moment(min(texts), values, keyword, zone, remarks)):
            return found
    return None


def _date_time(headers: Headers, keyword: str) -> str:
    if keyword == "AcquisitionDateTime":
        return headers.text(keyword)
    groups = headers.items_of(PER_FRAME)
    return min(filter(None, (g.item("FrameContentSequence").text(keyword) for g in groups)), default="")


def _moment(text: str, values: Headers, keyword: str, zone: tzinfo | None, remarks: Remarks) -> str | None:
    """A DT value (PS3.5 6.2): its own offset before that of the object."""
    said = max(text.rfind("+"), text.rfind("-"))
    bare, own = (text[:said], text[said:]) if said > 0 else (text, "")
    utc_offset = own or values.text("TimezoneOffsetFromUTC")
    return _checked(bare[:8], bare[8:], utc_offset, (keyword, keyword), zone, remarks)


def _pair(values: Headers, day: str, clock: str, zone: tzinfo | None, remarks: Remarks) -> str | None:
    utc_offset = values.text("TimezoneOffsetFromUTC")
    return _checked(values.text(day), values.text(clock), utc_offset, (day, clock), zone, remarks)


def _checked(
    da: str, tm: str, utc_offset: str, keywords: tuple[str, str], zone: tzinfo | None, remarks: Remarks
) -> str | None:
    day, clock = keywords
    if not readable_time(tm):
        remarks.add(clock, "is not a time (HHMMSS); the date alone was taken")
    if utc_offset and offset(utc_offset) is None:
        remarks.add("TimezoneOffsetFromUTC", "is not an offset (+HHMM); it was taken as absent")
    try:
        found = fhir_date_time(da, tm, utc_offset, zone, day)
    except InvalidDicomValue:
        remarks.add(day, "is not a usable date; left out")
        return None
    if found and len(found) == 10 and has_two_offsets(da, tm, utc_offset, zone):
        remarks.add(clock, "falls into the hour that a change of the clock repeats or skips; the date alone was taken")
    return found
