"""What documents said that is not said any more."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from bridge.findings.concepts import ITEM_SYSTEM, RESULT_SYSTEM
from bridge.model import Resource
from bridge.translate.uids import STUDY_UID_SYSTEM

LEFT = "https://imaging-bridge.example/StructureDefinition/left-the-archive"
"""Extension of status: the document that said it is gone, or says it no longer. Comes the document back, so does it."""

_OF_DOCUMENTS = ("Observation", "DiagnosticReport", "DocumentReference")
_IN_ERROR = "entered-in-error"


def withdrawn(previous: Sequence[Resource], made: Sequence[Resource], staying: Collection[str]) -> Iterator[Resource]:
    """What remains of resources made before of documents, and not any more: status entered-in-error.

    `made`: what is made now of results and documents; of `staying` runs what was made before stays as it is: of those
    that were sent, and of documents that are there and cannot be taken now.
    """
    now = {(r["resourceType"], r["id"]) for r in made}
    for before in previous:
        if before["resourceType"] not in _OF_DOCUMENTS or (before["resourceType"], before["id"]) in now:
            continue
        origin = _origin(before)
        if not origin or origin in staying:
            continue
        yield before | {"status": _IN_ERROR, "_status": {"extension": [{"url": LEFT, "valueBoolean": True}]}}


def _origin(resource: Resource) -> str:
    """The run or the SOP Instance UID of the document that a resource was made of."""
    for identifier in resource.get("identifier", ()):
        if identifier.get("system") in (RESULT_SYSTEM, ITEM_SYSTEM):
            return str(identifier["value"]).partition("/")[0]
        if identifier.get("system") == STUDY_UID_SYSTEM and "type" not in identifier:
            return str(identifier["value"]).removeprefix("urn:oid:")
    return ""
