"""What the DiagnosticReports of documents share."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import tzinfo

from bridge.documents.document import Document, date_time
from bridge.documents.people import Verifier
from bridge.findings.concepts import study_reference
from bridge.findings.report import CATEGORY, CODE
from bridge.model import Resource
from bridge.translate.uids import resource_id, uid_identifier


def report(
    document: Document, study: Resource, status: str, signed: Sequence[Verifier], zone: tzinfo | None
) -> Resource:
    """FHIR R4 DiagnosticReport of a document of a study, without what it says. It is named by its SOP Instance UID.

    `signed` who verified it: they stand as its interpreters, and it is issued when the last of them did.
    """
    uid = uid_identifier(document.uid)
    orders = [r for r in study.get("basedOn", ()) if r.get("type") == "ServiceRequest"]
    issued = [t for one in signed if "T" in (t := date_time(one.item, "VerificationDateTime", zone))]
    made_at = document.content_time(zone)
    made: Resource = {
        "resourceType": "DiagnosticReport",
        "id": report_id(document.uid),
        "identifier": [uid] if uid else None,
        "basedOn": orders,
        "status": status,
        "category": CATEGORY,
        "code": CODE,
        "subject": study["subject"],
        "encounter": study.get("encounter"),
        "effectiveDateTime": study.get("started"),
        "issued": issued[-1] if issued else made_at if "T" in made_at else None,
        "performer": [one.reference for one in signed],
        "resultsInterpreter": [one.reference for one in signed],
        "imagingStudy": [study_reference(study)],
    }
    return {name: value for name, value in made.items() if value}


def report_id(sop_instance_uid: str) -> str:
    """The id of the DiagnosticReport of a document: never that of a result of AI."""
    return resource_id("DiagnosticReport of document", sop_instance_uid)
