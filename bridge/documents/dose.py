"""Radiation dose reports as Observations: what was given in all, and with each irradiation event.

Source: PS3.16 TID 10001, 10002 (projection X-ray), 10011, 10012, 10013 (CT), 10021, 10022 (radiopharmaceutical)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import tzinfo
from itertools import islice

from bridge.documents.document import Document
from bridge.documents.reference import document_id
from bridge.findings.concepts import ITEM_SYSTEM, concept, quantity, study_reference
from bridge.findings.model import Code
from bridge.findings.sr_tree import ContentItem, Json, text
from bridge.model import Resource
from bridge.translate.codes import DCM, CodeTables
from bridge.translate.uids import resource_id, uid_identifier

MOST_NUMBERS = 500
"""Observations of one report; what was given in all comes first."""

_REPORTS = frozenset({"113701 DCM", "113500 DCM"})
_ACCUMULATED = ("113702 DCM", "113811 DCM", "113502 DCM")
_EVENTS = ("113819 DCM", "113706 DCM")
_CT_DOSE = "113829 DCM"
_OF_EVENTS = frozenset({"113830 DCM", "113838 DCM", "113930 DCM", "122130 DCM", "113738 DCM", "111631 DCM"})
"""Mean CTDIvol, DLP, size specific dose estimate; dose area product, dose at the reference point, glandular dose."""

_EVENT_UID, _PROTOCOL = "113769 DCM", "125203 DCM"
_TOLD_OF_ALL = ("123014 DCM", "113764 DCM", "113835 DCM")
"""Target region, acquisition plane, phantom of CTDI."""

_CATEGORY: Resource = {
    "coding": [
        {
            "system": "http://terminology.hl7.org/CodeSystem/observation-category",
            "code": "procedure",
            "display": "Procedure",
        }
    ]
}


@dataclass(frozen=True)
class _Number:
    """One NUM with what its container says of it; `place` names it within the document."""

    place: str
    item: ContentItem
    container: ContentItem


def is_dose_report(document: Document) -> bool:
    """Whether its root is an X-Ray or Radiopharmaceutical Radiation Dose Report (113701, 113500 DCM)."""
    return ContentItem(document.dataset).name in _REPORTS


def dose_observations(
    document: Document, study: Resource, tables: CodeTables, zone: tzinfo | None
) -> Iterator[Resource]:
    """FHIR R4 Observations of a dose report, one for each number of the accumulated data and for CTDIvol, DLP, size
    specific dose, dose area product, dose at the reference point and glandular dose of each event.

    To      code and unit as the report has them (UCUM; numbers in other units are left out); components the target
            region, plane, phantom and protocol; identifiers the place in the document and the Irradiation Event UID;
            final, but preliminary while CompletionFlag is PARTIAL
    """
    for number in islice(_numbers(ContentItem(document.dataset)), MOST_NUMBERS):
        made = _observation(document, number, study, tables, zone)
        if made is not None:
            yield made


def _numbers(root: ContentItem) -> Iterator[_Number]:
    for n, container in enumerate(root.children(*_ACCUMULATED), 1):
        for m, item in enumerate(container.children(value_type="NUM"), 1):
            yield _Number(f"a{n}.{m}", item, container)
    for n, event in enumerate(root.children(*_EVENTS), 1):
        inside = [event, *event.children(_CT_DOSE)]
        found = [item for one in inside for item in one.children(value_type="NUM") if item.name in _OF_EVENTS]
        for m, item in enumerate(found, 1):
            yield _Number(f"e{n}.{m}", item, event)


def _observation(
    document: Document, number: _Number, study: Resource, tables: CodeTables, zone: tzinfo | None
) -> Resource | None:
    measured, name = number.item.measured, number.item.name_code
    if measured is None or name is None or measured["unit"]["scheme"] != "UCUM":
        return None
    partial = text(document.dataset, "CompletionFlag") == "PARTIAL"
    issued = document.content_time(zone)
    made: Resource = {
        "resourceType": "Observation",
        "id": resource_id("Observation of document", document.uid, number.place),
        "identifier": list(_identifiers(document, number)),
        "basedOn": [r for r in study.get("basedOn", ()) if r.get("type") == "ServiceRequest"],
        "partOf": [study_reference(study)],
        "status": "preliminary" if partial else "final",
        "category": [_CATEGORY],
        "code": concept(_code(name), tables),
        "subject": study["subject"],
        "encounter": study.get("encounter"),
        "effectiveDateTime": study.get("started"),
        "issued": issued if "T" in issued else None,
        "valueQuantity": quantity(measured["value"], measured["unit"]["code"]),
        "device": _equipment(document),
        "derivedFrom": [_reference(document)],
        "component": list(_components(number, tables)),
    }
    return {name: value for name, value in made.items() if value}


def _identifiers(document: Document, number: _Number) -> Iterator[Resource]:
    yield {"system": ITEM_SYSTEM, "value": f"{document.uid}/{number.place}"}
    event = number.container.child(_EVENT_UID)
    if event is not None and (known := uid_identifier(event.uid)) is not None:
        yield {"type": {"coding": [{"system": DCM, "code": "113769"}]}} | known


def _components(number: _Number, tables: CodeTables) -> Iterator[Resource]:
    places = [number.container, *number.container.children(_CT_DOSE)]
    for item in (child for place in places for child in place.children(*_TOLD_OF_ALL, value_type="CODE")):
        if item.code and item.name_code:
            yield {
                "code": concept(_code(item.name_code), tables),
                "valueCodeableConcept": concept(_code(item.code), tables),
            }
    for item in number.container.children(_PROTOCOL, value_type="TEXT"):
        if item.words and item.name_code:
            yield {"code": concept(_code(item.name_code), tables), "valueString": item.words[:1000]}


def _reference(document: Document) -> Resource:
    """The document by its id here and by its UID everywhere."""
    made: Resource = {"reference": f"DocumentReference/{document_id(document.uid)}", "type": "DocumentReference"}
    known = uid_identifier(document.uid)
    return made | ({"identifier": known} if known else {})


def _equipment(document: Document) -> Resource | None:
    """Who measured, as the report's equipment names itself."""
    named = [text(document.dataset, keyword) for keyword in ("Manufacturer", "ManufacturerModelName")]
    shown = " ".join(filter(None, named))
    return {"type": "Device", "display": shown} if shown else None


def _code(said: Json) -> Code:
    return Code(said["scheme"], said["code"], said["display"])
