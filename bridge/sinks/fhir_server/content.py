"""What a resource should be on a server, beside what others put into it. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

from bridge.model import Resource

_IMAGING_STUDY = """
resourceType id identifier status modality subject encounter started basedOn referrer interpreter endpoint
numberOfSeries numberOfInstances procedureCode procedure reasonCode reason location description series
"""
_ENDPOINT = "resourceType id identifier status connectionType name payloadType payloadMimeType payload address"
_DEVICE = """
resourceType id identifier udiCarrier status manufacturer displayName deviceName name type version
"""
_OBSERVATION = """
resourceType id extension identifier basedOn partOf status _status category code subject encounter effectiveDateTime
issued performer valueQuantity valueCodeableConcept bodySite bodyStructure device hasMember derivedFrom component
"""
_DIAGNOSTIC_REPORT = """
resourceType id identifier basedOn status _status category code subject encounter effectiveDateTime issued performer
resultsInterpreter result imagingStudy study conclusion presentedForm
"""
_DOCUMENT_REFERENCE = """
resourceType id masterIdentifier identifier status _status docStatus type category subject date author authenticator
attester description content context basedOn event
"""
_PROVENANCE = "resourceType id target occurredDateTime recorded reason authorization activity agent entity"
_PATIENT = "resourceType id identifier name gender birthDate"

OURS: Mapping[str, frozenset[str]] = {
    "ImagingStudy": frozenset(_IMAGING_STUDY.split()),
    "Endpoint": frozenset(_ENDPOINT.split()),
    "Patient": frozenset(_PATIENT.split()),
    "Device": frozenset(_DEVICE.split()),
    "Observation": frozenset(_OBSERVATION.split()),
    "DiagnosticReport": frozenset(_DIAGNOSTIC_REPORT.split()),
    "DocumentReference": frozenset(_DOCUMENT_REFERENCE.split()),
    "Provenance": frozenset(_PROVENANCE.split()),
}
"""The elements that the bridge keeps true. Others are their owners': a note, a narrative, a Procedure stay. Of types
not named here, those that we give."""

_KEPT_OF_META = ("profile", "security", "tag")
_SUBSETTED = "SUBSETTED"


def merged(content: Resource, there: Resource | None) -> Resource:
    """Our content with what the server's version has besides: elements that are not ours, tags and labels."""
    if there is None:
        return content
    ours = OURS.get(str(content["resourceType"]), frozenset(content))
    kept = {k: v for k, v in there.items() if k not in ours and k != "meta"}
    meta = _meta(content.get("meta", {}), there.get("meta", {}))
    return {**kept, **content} | ({"meta": meta} if meta else {})


def others_wrote(there: Resource) -> bool:
    """Whether a resource on the server has elements that are not the bridge's, a server's own narrative aside."""
    return bool(there.keys() - OURS[str(there["resourceType"])] - {"meta", "text"})


def same(content: Resource, there: Resource) -> bool:
    """Whether the server's version says what ours says, whatever else it has."""
    ours = OURS.get(str(content["resourceType"]), frozenset(content)) - {"id"}
    return all(content.get(k) == there.get(k) for k in ours)


def version_of(there: Resource | None) -> str:
    """The versionId of what was read; "" when nothing was, or the server does not tell."""
    return str(there.get("meta", {}).get("versionId", "")) if there else ""


def digest(content: Resource) -> str:
    """SHA-256 of the content as it is sent; hexadecimal."""
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()


def without_instances(study: Resource) -> Resource:
    """The study with its series but without their instances; the counts stay true."""
    return study | {"series": [{k: v for k, v in s.items() if k != "instance"} for s in study.get("series", [])]}


def referring(content: Resource, names: Mapping[str, str]) -> Resource:
    """The study with its endpoints under the names they have on the server; those that have none are left out."""
    found = [e | {"reference": names[e["reference"]]} for e in content.get("endpoint", []) if e["reference"] in names]
    series = [_series(s, names) for s in content["series"]] if "series" in content else None
    made = {k: v for k, v in content.items() if k != "endpoint"}
    return made | ({"endpoint": found} if found else {}) | ({"series": series} if series is not None else {})


def _series(series: Resource, names: Mapping[str, str]) -> Resource:
    return referring(series, names) if "endpoint" in series else series


def _meta(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Resource:
    made: Resource = {}
    for name in _KEPT_OF_META:
        values = [*theirs.get(name, ()), *ours.get(name, ())]
        known = [v for n, v in enumerate(values) if v not in values[:n]]
        if kept := [v for v in known if not (isinstance(v, dict) and v.get("code") == _SUBSETTED)]:
            made[name] = kept
    return made
