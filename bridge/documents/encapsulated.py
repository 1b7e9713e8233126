"""Encapsulated PDF and CDA documents (PS3.3 A.45, C.24.2): attachments, and a report whose form the PDF is."""

from __future__ import annotations

import base64
import hashlib
from datetime import tzinfo

from bridge.documents.document import Document
from bridge.documents.objects import ENCAPSULATED_PDF
from bridge.documents.people import verifiers
from bridge.documents.reference import title
from bridge.documents.report_parts import report
from bridge.findings.sr_tree import text
from bridge.model import Resource
from bridge.translate.codes import CodeTables

_TYPES = {"104.1": "application/pdf", "104.2": "text/xml"}


def attachment(document: Document, zone: tzinfo | None, *, inline: bool) -> Resource:
    """The encapsulated document itself as FHIR Attachment: contentType, size and hash; `inline` its data where it is
    kept, and where it is not the address at which the archive renders it.

    From    EncapsulatedDocument, cut to EncapsulatedDocumentLength or by the one byte that pads it
    Units   size in bytes; hash is SHA-1 in base64, as FHIR defines it
    """
    made: Resource = {"contentType": _TYPES[document.sop_class.removeprefix("1.2.840.10008.5.1.4.1.1.")]}
    content, declared = payload(document), text(document.dataset, "EncapsulatedDocumentLength")
    if content:
        if inline:
            made["data"] = base64.b64encode(content).decode()
        made |= {"size": len(content), "hash": base64.b64encode(hashlib.sha1(content).digest()).decode()}  # noqa: S324
    elif declared.isdigit():
        made["size"] = int(declared)
    if document.address and not (inline and content) and document.sop_class == ENCAPSULATED_PDF:
        made["url"] = f"{document.address}/rendered"
    if words := text(document.dataset, "DocumentTitle"):
        made["title"] = words
    made_at = document.content_time(zone)
    return made | ({"creation": made_at} if made_at else {})


def payload(document: Document) -> bytes:
    """The bytes of the encapsulated document; b"" where it is too large to be kept."""
    content = bytes(document.dataset.get("EncapsulatedDocument") or b"")
    declared = text(document.dataset, "EncapsulatedDocumentLength")
    if declared.isdigit() and 0 < int(declared) <= len(content):
        return content[: int(declared)]
    return content.removesuffix(b"\0")


def pdf_report(document: Document, study: Resource, tables: CodeTables, zone: tzinfo | None) -> Resource:
    """FHIR R4 DiagnosticReport whose presentedForm is the PDF. Verified, it is final and names who verified it."""
    signed = verifiers(document.dataset, tables) if document.verified else []
    made = report(document, study, "final" if document.verified else "preliminary", signed, zone)
    if document.dataset.get("ConceptNameCodeSequence"):
        made["code"] = title(document, tables)
    return made | {"presentedForm": [attachment(document, zone, inline=True)]}
