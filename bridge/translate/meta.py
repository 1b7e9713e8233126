"""Resources on their way out: the meta that the state keeps beside their contents. FHIR R4 Resource.meta."""

from __future__ import annotations

from datetime import UTC, datetime

from bridge.model import Resource, StoredResource


def instant(seconds: float) -> str:
    """FHIR instant with milliseconds, UTC, never later than the moment itself."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def with_meta(stored: StoredResource, elements: frozenset[str] = frozenset()) -> Resource:
    """A current resource with meta.versionId, meta.lastUpdated and its labels; only some elements where asked."""
    content = stored.content or {}
    meta: Resource = {"versionId": str(stored.version), "lastUpdated": instant(stored.last_updated)}
    meta |= content.get("meta", {})
    if elements:
        kept = elements | {"resourceType", "id", *_MANDATORY.get(stored.resource_type, ())}
        content = {k: v for k, v in content.items() if k in kept}
        tag = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "SUBSETTED"}
        meta["tag"] = [tag]
    head = {"resourceType": stored.resource_type, "id": stored.id, "meta": meta}
    return head | {k: v for k, v in content.items() if k not in head}


_MANDATORY = {
    "ImagingStudy": ("status", "subject"),
    "DiagnosticReport": ("status", "code"),
    "DocumentReference": ("status", "content"),
    "Observation": ("status", "code"),
    "Provenance": ("target", "recorded", "agent"),
    "Endpoint": ("status", "connectionType", "payloadType", "address"),
}
