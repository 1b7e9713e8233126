"""The FHIR versions in which Subscriptions are written: each stays in the version it was made in."""

from __future__ import annotations

from bridge.follow.subscription import Wanted
from bridge.follow.subscription_r4 import redacted_r4, unredacted_r4, wanted_r4
from bridge.follow.subscription_r5 import redacted_r5, unredacted_r5, wanted_r5
from bridge.model import Resource

R4, R5 = "4.0", "5.0"
"""As the media type parameter fhirVersion has them."""


def wanted(content: Resource, fhir_version: str) -> Wanted:
    """What a Subscription asks for. Raises InvalidQuery naming the element."""
    return wanted_r5(content) if fhir_version == R5 else wanted_r4(content)


def redacted(content: Resource, fhir_version: str) -> Resource:
    """The resource without the values of its headers."""
    return redacted_r5(content) if fhir_version == R5 else redacted_r4(content)


def unredacted(content: Resource, stored: Resource, fhir_version: str) -> Resource:
    """The resource with the stored values where a client sent back what it was shown. Raises InvalidQuery."""
    return unredacted_r5(content, stored) if fhir_version == R5 else unredacted_r4(content, stored)


def media_type(fhir_version: str) -> str:
    """What a resource of a version is sent as."""
    return "application/fhir+json; fhirVersion=5.0" if fhir_version == R5 else "application/fhir+json"
