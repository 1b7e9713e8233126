"""Structured reports by people: the reader's own DiagnosticReport, and what it says of results of AI.

Source: PS3.16 TID 2000, 2005, 2006 (CID 7000 titles), TID 1500; PS3.3 C.17.2 VerifyingObserverSequence
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import datetime, tzinfo

from pydicom.sr.codedict import codes

from bridge.documents.document import Document, date_time
from bridge.documents.dose import is_dose_report
from bridge.documents.objects import KEY_OBJECTS, SR
from bridge.documents.people import Verifier, verifiers
from bridge.documents.reference import title
from bridge.documents.report_parts import report
from bridge.documents.sr_text import conclusion, whole
from bridge.findings.judgement import ReadersReport, Said
from bridge.findings.model import MOST_TEXT, Finding
from bridge.findings.names import uid_name
from bridge.findings.review import Reader, ReportStatus, Standing
from bridge.findings.sr import findings_by_person, is_by_person, is_measurement_report
from bridge.findings.sr_tree import ContentItem, references, text
from bridge.model import Resource
from bridge.translate.codes import CodeTables

_TEMPLATES = frozenset({"2000", "2005", "2006"})
_TITLES = frozenset(f"{code.value} {code.scheme_designator}" for code in codes.cid7000.concepts.values())


def is_readers_report(document: Document) -> bool:
    """Whether it is a report by title or template, or a Measurement Report, that a person observed or verified."""
    if not document.sop_class.startswith(SR) or document.sop_class == KEY_OBJECTS or is_dose_report(document):
        return False
    data = document.dataset
    templates = {text(one, "TemplateIdentifier") for one in data.get("ContentTemplateSequence") or ()}
    known = ContentItem(data).name in _TITLES or bool(templates & _TEMPLATES) or is_measurement_report(data)
    return known and is_by_person(data)


def readers_report(
    document: Document, study: Resource, tables: CodeTables, zone: tzinfo | None, found: Sequence[Resource] = ()
) -> Resource:
    """FHIR R4 DiagnosticReport of a reader's structured report; `found` its measurements as Observations.

    To      final and with its interpreters once VERIFIED, else partial or preliminary by CompletionFlag; code the
            title; conclusion what stands under impressions, conclusions and summaries; presentedForm all of it as text
    """
    data, root = document.dataset, ContentItem(document.dataset)
    signed = verifiers(data, tables) if document.verified else []
    open_ = "partial" if text(data, "CompletionFlag") == "PARTIAL" else "preliminary"
    made = report(document, study, "final" if document.verified else open_, signed, zone)
    made["code"] = title(document, tables)
    members = {one["reference"] for finding in found for one in finding.get("hasMember", ())}
    if told := [f"Observation/{one['id']}" for one in found if f"Observation/{one['id']}" not in members]:
        made["result"] = [{"reference": one, "type": "Observation"} for one in told]
    if said := conclusion(root):
        made["conclusion"] = said
    if words := whole(root).encode():
        form = {"contentType": "text/plain; charset=utf-8", "data": base64.b64encode(words).decode()}
        digest = base64.b64encode(hashlib.sha1(words).digest()).decode()  # noqa: S324  what FHIR defines
        made["presentedForm"] = [form | {"size": len(words), "hash": digest}]
    return made


def readers_findings(document: Document, tables: CodeTables, zone: tzinfo | None) -> Standing | None:
    """What a person measured in a Measurement Report; None for other reports. Raises RefusedResult."""
    if not is_measurement_report(document.dataset):
        return None
    signed = [one for one in verifiers(document.dataset, tables) if document.verified]
    status = ReportStatus.FINAL if document.verified else ReportStatus.PRELIMINARY
    reader = _reader(signed[0]) if signed else None
    found = findings_by_person(document.dataset, tables.coding_scheme, zone)
    return Standing(found, found, status, reader, ())


def signed_report(document: Document, tables: CodeTables, zone: tzinfo | None) -> ReadersReport | None:
    """What a verified report says of results, in the name of its first verifying observer, and then; else None.

    From    evidence, predecessors and content: results as a whole; measurement groups with a Tracking UID: findings
    Raises  RefusedResult for findings that cannot be taken: then it is not known what the report says of a result
    """
    if not (document.verified and is_readers_report(document)):
        return None
    for one in verifiers(document.dataset, tables)[:1]:
        when = date_time(one.item, "VerificationDateTime", zone)
        if "T" in when:
            names = sorted(uid_name(uid) for uid in references(document.dataset) - {document.uid})
            found = readers_findings(document, tables, zone)
            said = [Said((uid_name(f.tracking_uid),), f) for f in _tracked(found)]
            words = conclusion(ContentItem(document.dataset))[:MOST_TEXT]
            return ReadersReport(_reader(one), datetime.fromisoformat(when), tuple(names), tuple(said), words)
    return None


def _tracked(found: Standing | None) -> list[Finding]:
    return [f for f in found.result.findings if f.tracking_uid] if found is not None else []


def _reader(one: Verifier) -> Reader:
    return Reader(one.name, one.identifier_system, one.identifier_value)
