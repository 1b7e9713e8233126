"""DICOM UIDs, and the FHIR ids and identifiers made from them."""

from __future__ import annotations

import re
from uuid import UUID, uuid5

from bridge.errors import InvalidDicomValue
from bridge.model import Resource

NAMESPACE = UUID("6d0a4a52-8f0f-5d2b-9d6e-3f6a2c1b7e90")
"""The namespace of every id the bridge gives. Never to be changed: ids in EHRs depend on it."""

STUDY_UID_SYSTEM = "urn:dicom:uid"
_UID = re.compile(r"^[0-9]+(\.[0-9]+)+$")
_LONGEST = 64


def checked_uid(value: str, keyword: str) -> str:
    """The UID itself. Raises InvalidDicomValue when absent, longer than 64, or not digits and dots (PS3.5 9.1).

    Leading zeros in a component are wrong but seen, and their meaning is certain: they pass.
    """
    if not value:
        raise InvalidDicomValue(keyword, "is missing: without it the instance has no place in a study")
    if len(value) > _LONGEST or not _UID.fullmatch(value):
        raise InvalidDicomValue(keyword, "is not a UID (digits and dots, at most 64 characters)")
    return value


def resource_id(*parts: str) -> str:
    """A deterministic id: uuid5 of the parts under our namespace."""
    return str(uuid5(NAMESPACE, "|".join(part.replace("\\", "\\\\").replace("|", "\\|") for part in parts)))


def imaging_study_id(study_instance_uid: str) -> str:
    """The id of the one ImagingStudy of a study."""
    return resource_id("ImagingStudy", study_instance_uid)


def study_identifier(study_instance_uid: str) -> Resource:
    """FHIR R4 ImagingStudy.identifier for the Study Instance UID."""
    return {"use": "official", "system": STUDY_UID_SYSTEM, "value": f"urn:oid:{study_instance_uid}"}


def uid_identifier(uid: str) -> Resource | None:
    """A DICOM UID of anything else as FHIR Identifier; None when it is not a UID."""
    if len(uid) > _LONGEST or not _UID.fullmatch(uid):
        return None
    return {"system": STUDY_UID_SYSTEM, "value": f"urn:oid:{uid}"}


def sop_class_coding(sop_class_uid: str) -> Resource:
    """FHIR R4 ImagingStudy.series.instance.sopClass."""
    return {"system": "urn:ietf:rfc:3986", "code": f"urn:oid:{sop_class_uid}"}
