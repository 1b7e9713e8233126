"""What a search answers about a study, a series or an instance, and the dates a search is about."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from hashlib import blake2b
from typing import Any

from bridge.errors import InvalidDicomValue
from bridge.sources.dicom_json import first_value
from bridge.translate.uids import checked_uid

COMPARED = (
    "00080020", "00080030", "00080050", "00080061", "00080062", "00080090", "0008041F", "00081030", "00100010",
    "00100020", "00100021", "00100030", "00100040", "00200010", "00201206",
)  # fmt: skip
"""Attributes whose change means that the study changed: date, time, accession number, modalities, SOP classes,
referring physician, StudyUpdateDateTime, description, patient, StudyID, number of series. Addresses, availability and
private attributes are not among them: they change by themselves."""

FINGERPRINT_BYTES = 6
FIRST, LAST = date(1900, 1, 1), date(2199, 12, 31)
"""Dates outside stand for themselves in an archive's answers, and for open ends in our searches."""

_DATE = re.compile(r"(\d{4})[-.]?(\d{2})[-.]?(\d{2})")
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Study:
    """One study as a search shows it.

    Result  `uid` "" when it has no usable StudyInstanceUID; `study_date` None when it says none; `instances` None when
            it does not count them; `fingerprint` of the compared attributes, without any value.
    """

    uid: str
    study_date: date | None
    instances: int | None
    fingerprint: str

    @classmethod
    def read(cls, item: Any) -> Study:
        """The study from a DICOM JSON object, read leniently."""
        uid = _uid(item, "0020000D")
        fingerprint = _hash(str(first_value(item, "0020000D")), [_values(item, tag) for tag in COMPARED])
        return cls(uid, _date(first_value(item, "00080020")), _count(item, "00201208"), fingerprint)

    @property
    def key(self) -> str:
        """What tells it from others of a list."""
        return f"{self.uid} {self.fingerprint}"


@dataclass(frozen=True, slots=True)
class Part:
    """One series or instance as a search shows it; `instances` None when it does not count them."""

    uid: str
    instances: int | None = None

    @property
    def key(self) -> str:
        return self.uid

    @classmethod
    def read_series(cls, item: Any) -> Part:
        return cls(_uid(item, "0020000E"), _count(item, "00201209"))

    @classmethod
    def read_instance(cls, item: Any) -> Part:
        return cls(_uid(item, "00080018"), 1)


@dataclass(frozen=True)
class Window:
    """A range of StudyDate, both ends included; open at FIRST and LAST."""

    first: date
    last: date

    @property
    def text(self) -> str:
        """As range matching wants it (PS3.4 C.2.2.2.5); "" for everything, studies without a date among them."""
        first = "" if self.first <= FIRST else f"{self.first:%Y%m%d}"
        last = "" if self.last >= LAST else f"{self.last:%Y%m%d}"
        return f"{first}-{last}" if first or last else ""

    def holds(self, study_date: date | None) -> bool:
        """Whether a study belongs here. One without a date does wherever it is answered: nothing says otherwise."""
        return study_date is None or self.first <= min(max(study_date, FIRST), LAST) <= self.last

    def nearly_holds(self, study_date: date | None) -> bool:
        """As `holds`, a day off allowed: archives may convert dates between time zones."""
        return study_date is None or Window(self.first - DAY, self.last + DAY).holds(study_date)

    def halves(self) -> tuple[Window, Window] | None:
        """Two windows that are this one together; None for a single day."""
        if self.first >= self.last:
            return None
        middle = self.first + (self.last - self.first) // 2
        return Window(self.first, middle), Window(middle + DAY, self.last)


EVERYTHING = Window(FIRST, LAST)


def merged(studies: Iterable[Study]) -> dict[str, Study]:
    """One study for each usable UID, in order of UID.

    Of the same item answered twice the later counts. Items that differ are one study held under two patients: its
    instances are those of all of them.
    """
    parts: dict[str, dict[str, Study]] = {}
    for study in studies:
        parts.setdefault(study.uid, {})[study.fingerprint] = study
    parts.pop("", None)
    return {uid: _one(uid, [found[f] for f in sorted(found)]) for uid, found in sorted(parts.items())}


def _one(uid: str, parts: list[Study]) -> Study:
    if len(parts) == 1:
        return parts[0]
    counts = [p.instances for p in parts if p.instances is not None]
    dates = [p.study_date for p in parts if p.study_date is not None]
    instances = sum(counts) if len(counts) == len(parts) else None
    return Study(uid, max(dates, default=None), instances, _hash(uid, [p.fingerprint for p in parts]))


def _hash(uid: str, compared: list[Any]) -> str:
    plain = json.dumps([uid, *compared], sort_keys=True)
    return blake2b(plain.encode(), digest_size=FINGERPRINT_BYTES).hexdigest()


def _values(item: Any, tag: str) -> Any:
    """The values of an attribute for comparison; their order, which archives do not keep, does not count."""
    attribute = item.get(tag) if isinstance(item, Mapping) else None
    values = attribute.get("Value") if isinstance(attribute, Mapping) else attribute
    return sorted(values, key=str) if isinstance(values, list) else values


def _uid(item: Any, tag: str) -> str:
    value = first_value(item, tag)
    try:
        return checked_uid(value.strip(" \0") if isinstance(value, str) else "", "StudyInstanceUID")
    except InvalidDicomValue:
        return ""


def _date(value: Any) -> date | None:
    match = _DATE.match(str(value).strip()) if value is not None else None
    try:
        return date(*(int(g) for g in match.groups())) if match else None
    except ValueError:
        return None


def _count(item: Any, tag: str) -> int | None:
    """How many instances; None when absent or not a whole number above zero, which no listed study has."""
    value = str(first_value(item, tag)).strip()
    return int(value) if value.isascii() and value.isdigit() and 0 < len(value) < 10 and int(value) > 0 else None
