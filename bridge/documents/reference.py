"""A document as FHIR DocumentReference: what it is, who wrote it, where it is, which images it selects."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import tzinfo

from pydicom.dataset import Dataset
from pydicom.uid import UID

from bridge.documents.document import Document
from bridge.documents.objects import KEY_OBJECTS, PRESENTATION_STATE
from bridge.documents.people import authors, verifiers
from bridge.findings.concepts import concept, study_reference
from bridge.findings.model import MOST_IMAGES, Code, ImageReference
from bridge.findings.selections import SopClasses, image_selection, sop_classes
from bridge.findings.sr_tree import coded, evidence_of, text
from bridge.model import Resource
from bridge.translate.codes import CodeTables
from bridge.translate.uids import resource_id, uid_identifier

DICOM_UIDS = "urn:oid:1.2.840.10008.2.6.1"
"""DICOM's registry of UIDs as code system: SOP classes as formats (IHE RAD XDS-I.b)."""

_SELECTED = Code("http://dicom.nema.org/resources/ontology/DCM", "113000", "Of Interest")
_RADIOLOGY: Resource = {"system": "http://loinc.org", "code": "LP29684-5", "display": "Radiology"}


def document_reference(
    document: Document, more: tuple[Resource, ...], study: Resource, tables: CodeTables, zone: tzinfo | None
) -> Resource:
    """FHIR R4 DocumentReference of a document; `more` attachments beside the DICOM object.

    From    PS3.3 C.17.2, C.17.6, C.11.10, C.24.2: title code, content date, verification, observers, evidence; for
            subject, visit and orders FHIR R4 ImagingStudy
    To      status current; docStatus final once verified; context.related the study, with the images that a key object
            selection or presentation state selects as extensions of ImagingSelection's parts
    """
    data, uid = document.dataset, uid_identifier(document.uid)
    made: Resource = {"resourceType": "DocumentReference", "id": document_id(document.uid)}
    if uid is not None:
        made |= {"masterIdentifier": uid, "identifier": [uid]}
    made["status"] = "current"
    if text(data, "VerificationFlag"):
        made["docStatus"] = "final" if document.verified else "preliminary"
    made |= {"type": title(document, tables), "category": [{"coding": [_RADIOLOGY]}], "subject": study["subject"]}
    made_at = document.content_time(zone)
    if "T" in made_at:
        made["date"] = made_at
    if people := authors(data):
        made["author"] = people
    if document.verified and (signed := verifiers(data, tables)):
        made["authenticator"] = signed[0].reference
    if words := text(data, "DocumentTitle") or text(data, "ContentDescription") or text(data, "ContentLabel"):
        made["description"] = words[:1024]
    first = {"attachment": _attachment(document, made_at), "format": _format(document)}
    made["content"] = [first, *({"attachment": one} for one in more)]
    return made | {"context": _context(document, study)}


def document_id(sop_instance_uid: str) -> str:
    """The id of the DocumentReference of a document."""
    return resource_id("DocumentReference", sop_instance_uid)


def title(document: Document, tables: CodeTables) -> Resource:
    """What kind of document it is: the code of its title, else the name of its SOP class."""
    found = coded(document.dataset, "ConceptNameCodeSequence")
    if found and found["code"]:
        return concept(Code(found["scheme"], found["code"], found["display"]), tables)
    return {"text": _class_name(document)}


def selected(document: Document, classes: SopClasses) -> list[Resource]:
    """Extensions for the images of its study that a key object selection or a presentation state refers to."""
    if document.sop_class == KEY_OBJECTS:
        found = evidence_of(document.dataset, document.name.study_instance_uid)
    elif document.sop_class.startswith(PRESENTATION_STATE):
        found = _shown(document.dataset)
    else:
        return []
    known = (pair for pair in found if all(uid_identifier(uid) for uid in pair))
    references = dict.fromkeys(ImageReference(series, instance) for series, instance in known)
    return [image_selection(_SELECTED, one, classes) for one in list(references)[:MOST_IMAGES]]


def _shown(data: Dataset) -> Iterator[tuple[str, str]]:
    """(series, instance) of the images that a presentation state is about (PS3.3 C.11.11)."""
    for series in data.get("ReferencedSeriesSequence") or ():
        for image in series.get("ReferencedImageSequence") or ():
            yield text(series, "SeriesInstanceUID"), text(image, "ReferencedSOPInstanceUID")


def _context(document: Document, study: Resource) -> Resource:
    where = selected(document, sop_classes(study))
    reference = study_reference(study) | ({"extension": where} if where else {})
    orders = [r for r in study.get("basedOn", ()) if r.get("type") == "ServiceRequest"]
    made: Resource = {"encounter": [study["encounter"]]} if "encounter" in study else {}
    return made | {"related": [reference, *orders]}


def _attachment(document: Document, made_at: str) -> Resource:
    made: Resource = {"contentType": "application/dicom"}
    if document.address:
        made["url"] = document.address
    return made | ({"creation": made_at} if made_at else {})


def _format(document: Document) -> Resource:
    return {"system": DICOM_UIDS, "code": document.sop_class, "display": _class_name(document)}


def _class_name(document: Document) -> str:
    uid = UID(document.sop_class)
    return uid.name.removesuffix(" Storage") if uid.name != uid else "DICOM document"
