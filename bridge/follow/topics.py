"""What can be subscribed to by topic: our SubscriptionTopics. FHIR R5 SubscriptionTopic."""

from __future__ import annotations

from collections.abc import Mapping

from bridge.model import Resource
from bridge.translate.search_parameters import PARAMETERS

_OURS = "https://imaging-bridge.example/SubscriptionTopic/"

TOPICS: Mapping[str, str] = {
    f"{_OURS}ImagingStudy-changed": "ImagingStudy",
    f"{_OURS}DiagnosticReport-changed": "DiagnosticReport",
}
"""canonical → the resource type whose changes it tells."""


def topic_id(canonical: str) -> str:
    """The id under which a topic is read."""
    return canonical.removeprefix(_OURS)


def topic(canonical: str) -> Resource:
    """The SubscriptionTopic resource, in its R5 form (R4 has none)."""
    kind = TOPICS[canonical]
    filters = [{"resource": kind, "filterParameter": name} for name in sorted(PARAMETERS[kind])]
    return {
        "resourceType": "SubscriptionTopic",
        "id": topic_id(canonical),
        "url": canonical,
        "title": f"{kind} changed",
        "status": "active",
        "description": f"Any {kind} was created, updated or deleted. Filters look at it as it is after the change, "
        "or as it was before its deletion.",
        "resourceTrigger": [{"resource": kind, "supportedInteraction": ["create", "update", "delete"]}],
        "canFilterBy": filters,
        "notificationShape": [{"resource": kind}],
    }
