"""What a result and its findings are called by those who refer to them.

Names are `Type/id` of FHIR references, `system|value` of identifiers, and `urn:oid:` before DICOM's UIDs.
"""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from bridge.findings.concepts import RESULT_SYSTEM
from bridge.findings.model import Finding
from bridge.findings.observations import finding_id, measurement_id
from bridge.findings.report import report_id
from bridge.translate.uids import resource_id


def result_names(run_id: str, documents: Iterable[str] = ()) -> frozenset[str]:
    """Names of a result as a whole: its run, its DiagnosticReport, its `documents` by SOP Instance UID."""
    uids = (uid_name(uid) for uid in (run_id, *documents))
    return frozenset((f"{RESULT_SYSTEM}|{run_id}", f"DiagnosticReport/{report_id(run_id)}", *uids))


def finding_names(run_id: str, finding: Finding) -> frozenset[str]:
    """Names of one finding: its Observation."""
    return frozenset((f"{RESULT_SYSTEM}|{run_id}/{finding.id}", f"Observation/{finding_id(run_id, finding.id)}"))


def measurement_names(run_id: str, finding: Finding) -> frozenset[str]:
    """Names of what was measured of a finding."""
    numbers = [str(n) for n in range(1, len(finding.measurements) + 1)]
    by_identifier = {f"{RESULT_SYSTEM}|{run_id}/{finding.id}/{n}" for n in numbers}
    return frozenset(by_identifier | {f"Observation/{measurement_id(run_id, finding.id, n)}" for n in numbers})


def lesion_name(run_id: str, finding: Finding) -> str:
    """The name of what a finding tracks, over all studies."""
    return uid_name(tracking_uid(run_id, finding))


def tracking_uid(run_id: str, finding: Finding) -> str:
    """A finding's Tracking UID (DCM 112040); where the program gave none, the one that its document has (PS3.5 B.2)."""
    return finding.tracking_uid or f"2.25.{UUID(resource_id('DICOM', 'tracking', run_id, finding.id)).int}"


def uid_name(uid: str) -> str:
    return f"urn:oid:{uid}"
