"""DICOM dates and times → FHIR date and dateTime (PS3.5 6.2 DA, TM; PS3.3 C.12.1 TimezoneOffsetFromUTC)."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta, timezone, tzinfo

from bridge.errors import InvalidDicomValue

_DATE = re.compile(r"^(\d{4})(\d{2})?(\d{2})?$")
_TIME = re.compile(r"^(\d{2})(?:(\d{2})(?:(\d{2})(?:\.(\d{1,6}))?)?)?$")
_OFFSET = re.compile(r"^([+-])(\d{2})(\d{2})$")
_EARLIEST_YEAR = 1850


def fhir_date(da: str, keyword: str) -> str | None:
    """A DICOM date as a FHIR date, partial where the DICOM value is; None if empty.

    From    PS3.5 6.2 DA; the retired forms YYYY.MM.DD, YYYYMM, YYYY and zeros for unknown month or day
    To      FHIR R4 date: YYYY, YYYY-MM or YYYY-MM-DD
    Raises  InvalidDicomValue, naming the keyword

    >>> fhir_date("19710300", "PatientBirthDate")
    '1971-03'
    """
    text = da.strip().replace(".", "").replace("-", "")
    if not text:
        return None
    match = _DATE.match(text)
    if match is None:
        raise InvalidDicomValue(keyword, "is not a date (YYYYMMDD)")
    year, month, day = match.group(1), match.group(2) or "00", match.group(3) or "00"
    if int(year) < _EARLIEST_YEAR:
        raise InvalidDicomValue(keyword, f"lies before {_EARLIEST_YEAR}")
    if month == "00":
        return year
    if not 1 <= int(month) <= 12:
        raise InvalidDicomValue(keyword, "has a month outside 01 to 12")
    if day == "00":
        return f"{year}-{month}"
    try:
        return date(int(year), int(month), int(day)).isoformat()
    except ValueError:
        raise InvalidDicomValue(keyword, "is not a day of the calendar") from None


def fhir_date_time(da: str, tm: str, utc_offset: str, zone: tzinfo | None, keyword: str) -> str | None:
    """A DICOM date and time as a FHIR dateTime; the date alone when no time or no zone is known; None if empty.

    From    PS3.5 6.2 DA, TM; PS3.3 C.12.1 TimezoneOffsetFromUTC; `zone` is the site's, for when it is absent
    To      FHIR R4 dateTime (a time must carry a zone; UTC is never assumed)
    Units   whole seconds and, if given, the fraction; missing minutes and seconds become 00
    Raises  InvalidDicomValue, naming the date's keyword, when the date is not one. A time that cannot be read
            is left out (see `readable_time`), and one of the hour that a change of the clock repeats or skips: which
            of two offsets it has cannot be known

    >>> from zoneinfo import ZoneInfo
    >>> fhir_date_time("20240301", "0915", "", ZoneInfo("Europe/Vienna"), "StudyDate")
    '2024-03-01T09:15:00+01:00'
    """
    day = fhir_date(da, keyword)
    if day is None or len(day) < 10:
        return day
    clock = _clock(tm)
    if clock is None:
        return day
    where = offset(utc_offset) or zone
    if where is None:
        return day
    hour, minute, second, fraction = clock
    moment = _moment(day, clock, where)
    if _has_two_offsets(moment):
        return day
    return f"{day}T{hour:02}:{minute:02}:{second:02}{fraction}{_zone_text(moment)}"


def has_two_offsets(da: str, tm: str, utc_offset: str, zone: tzinfo | None) -> bool:
    """Whether a change of the clock of `zone` repeats or skips this time of a usable day."""
    day, clock = fhir_date(da, ""), _clock(tm)
    if day is None or len(day) < 10 or clock is None or zone is None or offset(utc_offset) is not None:
        return False
    return _has_two_offsets(_moment(day, clock, zone))


def _moment(day: str, clock: tuple[int, int, int, str], where: tzinfo) -> datetime:
    hour, minute, second, _ = clock
    return datetime.fromisoformat(day).replace(hour=hour, minute=minute, second=min(second, 59), tzinfo=where)


def _has_two_offsets(moment: datetime) -> bool:
    return moment.utcoffset() != moment.replace(fold=1).utcoffset()


def readable_time(tm: str) -> bool:
    """Whether a DICOM time is empty or can be read."""
    return not tm.strip() or _clock(tm) is not None


def offset(utc_offset: str) -> timezone | None:
    """TimezoneOffsetFromUTC as a zone, or None when absent or malformed (then the offset is undefined, not UTC)."""
    match = _OFFSET.match(utc_offset.strip())
    if match is None:
        return None
    minutes = int(match.group(2)) * 60 + int(match.group(3))
    if minutes > 14 * 60 or int(match.group(3)) > 59:
        return None
    return timezone(timedelta(minutes=-minutes if match.group(1) == "-" else minutes))


def _clock(tm: str) -> tuple[int, int, int, str] | None:
    text = tm.strip().replace(":", "")
    match = _TIME.match(text)
    if match is None:
        return None
    hour, minute, second = int(match.group(1)), int(match.group(2) or 0), int(match.group(3) or 0)
    if hour > 23 or minute > 59 or second > 60:
        return None
    fraction = (match.group(4) or "").rstrip("0")
    return hour, minute, second, f".{fraction}" if fraction else ""


def _zone_text(moment: datetime) -> str:
    shift = moment.utcoffset() or timedelta()
    minutes = round(shift.total_seconds() / 60)
    sign = "-" if minutes < 0 else "+"
    return f"{sign}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
