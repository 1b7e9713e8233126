"""Headers from Orthanc's own JSON of an instance's attributes, for what its DICOMweb plugin cannot give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge.translate.headers import Headers
from bridge.translate.values import split_text
from bridge.translate.wanted import WANTED_TAGS


def headers_from_tags(tags: Mapping[str, Any]) -> Headers:
    """The kept attributes of one instance as /instances/{id}/tags gives them.

    From    an object by tag `gggg,eeee` of {Type, Value}: String (values divided by a backslash), Sequence (a list of
            such objects), Null, TooLong, Binary; text already decoded
    To      the same headers that DICOM JSON of the instance gives
    """
    return Headers.from_dicom_json(_dicom_json(tags))


def _dicom_json(tags: Mapping[str, Any]) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    for key, tag in tags.items():
        number = _number(key)
        if number not in WANTED_TAGS or not isinstance(tag, Mapping):
            continue
        vr, value = WANTED_TAGS[number][1], tag.get("Value")
        if vr == "SQ" and isinstance(value, list):
            attributes[f"{number:08X}"] = {"Value": [_dicom_json(v) for v in value if isinstance(v, Mapping)]}
        elif vr != "SQ" and isinstance(value, str) and tag.get("Type") == "String":
            attributes[f"{number:08X}"] = {"Value": split_text(vr, value)}
    return attributes


def _number(key: str) -> int:
    try:
        return int(key.replace(",", "", 1), 16)
    except ValueError:
        return -1
