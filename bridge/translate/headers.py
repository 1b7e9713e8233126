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
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Union

from pydicom.datadict import keyword_for_tag

from bridge.translate.values import FLOAT_VRS as FLOAT_VRS
from bridge.translate.values import INTEGER_VRS as INTEGER_VRS
from bridge.translate.values import LEADING_SPACE_MATTERS, is_ae_title, normal_values, trim_name
from bridge.translate.values import PersonName as PersonName
from bridge.translate.wanted import FILE_META, PER_FRAME, REJECTION_TITLES, WANTED_TAGS
from bridge.translate.wanted import WANTED as WANTED

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MAXIMUM_SEQUENCE_DEPTH = 8
"""Deeper sequences are not kept: nothing the bridge translates lies deeper than four levels."""

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

    def __contains__(self, keyword: object) -> bool:
        return keyword in self._values

    def __repr__(self) -> str:
        return f"Headers({len(self._values)} attributes)"  # never the values: they are a patient's

    def __eq__(self, other: object) -> bool:
        return bool(self._values == (other._values if isinstance(other, Headers) else other))

    __hash__ = None  # type: ignore[assignment]

    def values_of(self, keyword: str) -> tuple[Value, ...]:
        """Every value; () when the attribute is absent or empty."""
        return self._values.get(keyword, ())

    def first(self, keyword: str) -> Value | None:
        """The first value, or None when the attribute is absent or empty."""
        values = self._values.get(keyword)
        return values[0] if values else None

    def text(self, keyword: str) -> str:
        """The first value as text, stripped, or "" when absent or empty."""
        values = self._values.get(keyword)
        if not values:
            return ""
        value = values[0]
        if type(value) is str:
            return value.strip()
        return "" if isinstance(value, Headers | PersonName) else str(value).strip()

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
        return {
            keyword: list(values) if keyword in _PLAIN else [_plain(v) for v in values]
            for keyword, values in self._values.items()
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, list[Any]]) -> Headers:
        """The headers written by `as_json`."""
        return cls(
            {
                keyword: tuple(values)
                if keyword in _AS_WRITTEN or (len(values) == 1 and type(values[0]) is float)
                else tuple(_unplain(keyword, v) for v in values)
                for keyword, values in plain.items()
            }
        )

    @classmethod
    def of_instance(cls, values: dict[str, tuple[Value, ...]]) -> Headers:
        """The headers of an instance from what a reader found, in the order of keywords.

        What is large and says little is kept in short: references only of documents that reject what they refer to;
        of the frames of a multi-frame image, where `frames_matter`, each distinct FrameAnatomySequence and the
        earliest FrameAcquisitionDateTime.
        """
        if not SHORTENED.isdisjoint(values):
            values = _in_short(values)
        return cls(dict(sorted(values.items())))

    @classmethod
    def from_dataset(cls, dataset: Dataset, depth: int = 0) -> Headers:
        """The kept attributes of a pydicom dataset, those of its file meta information among them."""
        values: dict[str, tuple[Value, ...]] = {}
        meta = getattr(dataset, "file_meta", None) or {}
        for tag, keyword in FILE_META.items():
            text = str(meta[tag].value or "").strip(" \0") if tag in meta else ""
            if text and (keyword == "TransferSyntaxUID" or is_ae_title(text)):
                values[keyword] = (text,)
        for tag in dataset.keys():  # noqa: SIM118  (a Dataset iterates over elements, not keys)
            known = WANTED_TAGS.get(int(tag))
            if known is None:
                continue
            keyword, vr = known
            element = dataset[tag]
            found = _dataset_items(element.value, depth) if vr == "SQ" else _dataset_values(vr, element.value)
            if found:
                values[keyword] = found
        return cls(dict(sorted(values.items()))) if depth else cls.of_instance(values)

    @classmethod
    def from_dicom_json(cls, attributes: Mapping[str, Any], depth: int = 0) -> Headers:
        """The kept attributes of one DICOM JSON object (PS3.18 Annex F), read leniently: numbers may be
        strings and strings bare, nulls are empty values."""
        values: dict[str, tuple[Value, ...]] = {}
        for key, attribute in attributes.items():
            known = JSON_KEYS[key]
            if known is not None and (found := json_values(known, attribute, depth)):
                values[known.keyword] = found
        return cls(dict(sorted(values.items()))) if depth else cls.of_instance(values)


EMPTY = Headers({})
_PLAIN = frozenset(keyword for keyword, vr in WANTED.items() if vr not in ("SQ", "PN"))
_AS_WRITTEN = frozenset(keyword for keyword in _PLAIN if WANTED[keyword] not in FLOAT_VRS)
"""Keywords of values that JSON has as they are, and of those that also come back from it as they were."""


def columns(instances: Sequence[Headers], keywords: Sequence[str]) -> list[list[tuple[Value, ...]]]:
    """What each of many instances has of several attributes, a list for each attribute; () where one has none.

    Few instances at a time: those of a long study do not lie in the processor's cache together.
    """
    found: list[list[tuple[Value, ...]]] = [[] for _ in keywords]
    for start in range(0, len(instances), _AT_A_TIME):
        some = [headers._values for headers in instances[start : start + _AT_A_TIME]]
        for column, keyword in zip(found, keywords, strict=True):
            column += [values.get(keyword, ()) for values in some]
    return found


_AT_A_TIME = 256
_EVIDENCE, _REFERENCES = "CurrentRequestedProcedureEvidenceSequence", "ReferencedSeriesSequence"
_DATES = frozenset({"SeriesDate", "AcquisitionDate", "AcquisitionDateTime"})
SHORTENED = frozenset({_EVIDENCE, _REFERENCES, PER_FRAME})


def _in_short(values: Mapping[str, tuple[Value, ...]]) -> dict[str, tuple[Value, ...]]:
    found = Headers(values)
    kept = {keyword: value for keyword, value in values.items() if keyword not in SHORTENED}
    title = found.item("ConceptNameCodeSequence")
    if title.text("CodingSchemeDesignator") == "DCM" and title.text("CodeValue") in REJECTION_TITLES:
        kept[_EVIDENCE] = values.get(_EVIDENCE, ())
    kept[PER_FRAME] = _frames(found.items_of(PER_FRAME)) if frames_matter(values) else ()
    return {keyword: value for keyword, value in kept.items() if value}


def frames_matter(values: Mapping[str, tuple[Value, ...]]) -> bool:
    """Whether single frames can say more than what stands before them: no anatomy for all of them, or no date."""
    shared = values.get("SharedFunctionalGroupsSequence", ())
    anatomy = any("FrameAnatomySequence" in groups for groups in shared if isinstance(groups, Headers))
    return not anatomy or _DATES.isdisjoint(values)


def _frames(groups: Sequence[Headers]) -> tuple[Headers, ...]:
    anatomy: list[tuple[Value, ...]] = []
    moments = []
    for group in groups:
        found = group.values_of("FrameAnatomySequence")
        if found and found not in anatomy:
            anatomy.append(found)
        if moment := group.item("FrameContentSequence").text("FrameAcquisitionDateTime"):
            moments.append(moment)
    content = (Headers({"FrameAcquisitionDateTime": (min(moments),)}),) if moments else ()
    each = [{"FrameAnatomySequence": found} for found in anatomy] or [{}]
    each[0] = each[0] | ({"FrameContentSequence": content} if content else {})
    return tuple(Headers(one) for one in each if one)


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


class JsonKey(NamedTuple):
    """What a key of a DICOM JSON object stands for; `plain_type` of a value that may be taken as it is."""

    keyword: str
    vr: str
    plain_type: type | None


class _JsonKeys(dict[str, JsonKey | None]):
    """Key, a tag in hexadecimal or a keyword → what it stands for; None for what is not kept."""

    def __missing__(self, key: str) -> JsonKey | None:
        keyword, vr = WANTED_TAGS.get(_hexadecimal(key), (key, WANTED.get(key, "")))
        made = JsonKey(keyword, vr, _plain_type(vr)) if vr else None
        if len(self) < _REMEMBERED_KEYS:
            self[key] = made
        return made


JSON_KEYS = _JsonKeys()
_REMEMBERED_KEYS = 20_000
_LARGE = 2**63


def _hexadecimal(key: str) -> int:
    try:
        return int(key, 16) if len(key) == 8 else -1
    except ValueError:
        return -1


def _plain_type(vr: str) -> type | None:
    if vr in INTEGER_VRS or vr in FLOAT_VRS:
        return int if vr in INTEGER_VRS else float
    return None if vr in ("SQ", "PN") or vr in LEADING_SPACE_MATTERS else str


def json_values(known: JsonKey, attribute: Any, depth: int = 0) -> tuple[Value, ...]:
    """The values of one attribute of a DICOM JSON object; () when it has none."""
    if not isinstance(attribute, dict):
        return ()
    _, vr, plain_type = known
    raw: Any = attribute.get("Value")
    if type(raw) is list and len(raw) == 1 and type(raw[0]) is plain_type:  # most values, without a detour
        one: Any = raw[0]
        if plain_type is str:
            if one.isprintable():
                return (text,) if (text := one.strip()) else ()
        elif -_LARGE < one < _LARGE:
            return (one,)
    listed = raw if isinstance(raw, list) else [] if raw is None else [raw]
    if vr == "SQ":
        return _json_items(listed, depth)
    if vr == "PN":
        return tuple(name for name in map(_json_name, listed) if name)
    return normal_values(vr, [v for v in listed if isinstance(v, str | int | float)])


def _json_items(items: list[Any], depth: int) -> tuple[Value, ...]:
    if depth >= MAXIMUM_SEQUENCE_DEPTH:
        return ()
    return tuple(
        Headers.from_dicom_json(item or {}, depth + 1) for item in items if item is None or isinstance(item, dict)
    )


def _json_name(raw: Any) -> PersonName:
    if isinstance(raw, dict):
        alphabetic, ideographic, phonetic = raw.get("Alphabetic"), raw.get("Ideographic"), raw.get("Phonetic")
        return PersonName(
            trim_name(alphabetic) if isinstance(alphabetic, str) else "",
            trim_name(ideographic) if isinstance(ideographic, str) else "",
            trim_name(phonetic) if isinstance(phonetic, str) else "",
        )
    return PersonName.parse(raw) if isinstance(raw, str) else PersonName()


def keyword_of(tag: int) -> str:
    """The keyword of a tag, or `(gggg,eeee)` for one the dictionary does not know. For messages."""
    return keyword_for_tag(tag) or f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
