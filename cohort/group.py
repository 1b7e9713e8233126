"""A cohort as a FHIR Group that names its members (FHIR R4 and R5 Group; Bulk Data `members-refreshed`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Literal
from uuid import UUID, uuid5

import orjson

from cohort.question import Age, Combination, Criterion
from cohort.question_words import said
from cohort.selection import Selection

Resource = dict[str, Any]
Version = Literal["r4", "r5"]
MEMBERS_REFRESHED = "http://hl7.org/fhir/uv/bulkdata/StructureDefinition/members-refreshed"
MEDIA_TYPES: Mapping[str, str] = {
    "r4": "application/fhir+json; fhirVersion=4.0",
    "r5": "application/fhir+json; fhirVersion=5.0",
}
_NAMESPACE = UUID("5b0f4f0e-6d0b-5b07-9a3c-4b1d6c9f6a51")
_MEMBERS = """
SELECT p.patient_id, i.system, i.value, i.type_code FROM selected_patient p
LEFT JOIN patient_identifier i ON i.patient_id = p.patient_id AND i.value <> ''
ORDER BY p.patient_id, coalesce(i.type_code = 'MR', false) DESC, i.system NULLS LAST, i.value
"""


def group(selection: Selection, version: Version = "r4") -> Resource:
    """The Group of everybody a question selects.

    Result  R4 `actual` true, R5 `membership` enumerated; members refer to Patient by id and by one identifier (the
            medical record number where there is one); `identifier` holds question and generation; `characteristic`
            sums the criteria up in words. The id depends on question and parameters alone: the next generation's
            Group replaces this one
    Raises  InvalidQuery as Selection.rows does
    """
    values = selection.values
    people: dict[str, dict[str, Any]] = {}
    for row in selection.rows(_MEMBERS):
        people.setdefault(row["patient_id"], row)
    question, asked_on = selection.question, selection.today.isoformat()
    same = [question.name, orjson.dumps(values, option=orjson.OPT_SORT_KEYS).decode()]
    run = uuid5(_NAMESPACE, "\n".join([*same, asked_on, selection.generation.id]))
    described = f"{question.title}. Asked on {asked_on} of generation {selection.generation.id}. {question.description}"
    made: Resource = {
        "resourceType": "Group",
        "id": str(uuid5(_NAMESPACE, "\n".join(same))),
        "text": {
            "status": "generated",
            "div": f'<div xmlns="http://www.w3.org/1999/xhtml"><p>{escape(described)}</p></div>',
        },
        "extension": [{"url": MEMBERS_REFRESHED, "valueDateTime": selection.generation.created}],
        "identifier": [
            {"use": "usual", "value": f"{question.name}/{selection.generation.id}"},
            {"system": "urn:ietf:rfc:3986", "value": f"urn:uuid:{run}"},
        ],
        "active": True,
        "type": "person",
    }
    made |= {"actual": True} if version == "r4" else {"membership": "enumerated"}
    made |= {"name": question.title} | ({"description": described} if version == "r5" else {})
    made |= {"quantity": len(people)}
    index = selection.asked.index
    characteristics = [_characteristic("index event", said(index), False)] if index else []
    characteristics += _characteristics(selection.asked.criteria, False)
    made |= {"characteristic": characteristics} if characteristics else {}
    return made | ({"member": [{"entity": _reference(row)} for row in people.values()]} if people else {})


def _reference(row: Mapping[str, Any]) -> Resource:
    reference: Resource = {"reference": f"Patient/{row['patient_id']}", "type": "Patient"}
    if row["value"]:
        system = {"system": row["system"]} if row["system"] else {}
        reference["identifier"] = system | {"value": row["value"]}
    return reference


def _characteristics(criterion: Criterion, exclude: bool) -> Iterator[Resource]:
    """One for each criterion that must hold; alternatives, and what is negated as a whole, are one together."""
    kind = "age" if isinstance(criterion, Age) else criterion.kind
    if isinstance(criterion, Combination) and kind == "all" and not exclude:
        for one in criterion.of:
            yield from _characteristics(one, False)
    elif isinstance(criterion, Combination) and kind == "not":
        yield from _characteristics(criterion.of[0], not exclude)
    else:
        yield _characteristic(kind.replace("_", " "), said(criterion), exclude)


def _characteristic(name: str, text: str, exclude: bool) -> Resource:
    return {"code": {"text": name}, "valueCodeableConcept": {"text": text}, "exclude": exclude}
