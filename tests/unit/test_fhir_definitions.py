"""The validator by FHIR's definitions: silent on FHIR's own examples, and no break goes unnoticed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tests.fhir_definitions
from tests.fhir_definitions.validator import problems

Json = dict[str, Any]
HERE = Path(tests.fhir_definitions.__file__).parent
VERSIONS = ("r4", "r5")
EXAMPLES = {v: json.loads((HERE / f"examples_{v}.json").read_text("utf-8")) for v in VERSIONS}
DEFECTS_OF_EXAMPLES = {
    ("r4", "medrx0301"): ["MedicationRequest.dispenseRequest.performer: may not lead to Practitioner"],
    ("r5", "example"): ["Encounter.careTeam[0]: may not lead to Encounter"],
    ("r5", "example-xr"): ["ImagingStudy.procedure[0].reference: may not lead to Procedure"],
}
VALID = [
    (version, e) for version in VERSIONS for e in EXAMPLES[version] if (version, e["id"]) not in DEFECTS_OF_EXAMPLES
]


@pytest.mark.parametrize("version", VERSIONS)
def test_fhirs_own_examples_are_valid_but_for_the_defects_they_have(version: str) -> None:
    assert len(EXAMPLES[version]) > 80
    found = {(e["resourceType"], e["id"]): p for e in EXAMPLES[version] if (p := problems(e, version))}
    assert sorted(found.values()) == sorted(p for (v, _), p in DEFECTS_OF_EXAMPLES.items() if v == version)


Place = tuple[str | int, ...]


def places(value: Any, here: Place = ()) -> Iterator[Place]:
    """The place of every value below `value`."""
    if isinstance(value, dict | list):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield (*here, key)
            yield from places(one, (*here, key))


def at(resource: Any, place: Place) -> Any:
    for key in place:
        resource = resource[key]
    return resource


def broken(value: Any) -> list[Any]:
    """What cannot be where `value` is, whatever the element."""
    wrong_type: Any = 7 if isinstance(value, str) else "seven"
    found = [wrong_type, None, {}, [], [value]]
    if isinstance(value, dict):
        found.append(value | {"notAnElement": "x"})
    if isinstance(value, list):
        found += [value[0], [*value, {}], [*value, []]]
    if isinstance(value, str):
        found += ["", {"notAnElement": "x"}]
    return found


@settings(deadline=None, max_examples=600)
@given(st.data())
def test_no_break_of_any_example_goes_unnoticed(data: st.DataObject) -> None:
    version, example = data.draw(st.sampled_from(VALID))
    resource = deepcopy(example)
    place = data.draw(st.sampled_from(list(places(resource))))
    holder = at(resource, place[:-1])
    holder[place[-1]] = data.draw(st.sampled_from(broken(holder[place[-1]])))
    assert problems(resource, version), (place, holder[place[-1]])


def a_study(**elements: Any) -> Json:
    """A valid ImagingStudy of R4; an element given as None is left out."""
    coding = {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "CT"}
    instance = {"uid": "1.2.3", "sopClass": {"system": "urn:ietf:rfc:3986", "code": "urn:oid:1.2"}, "number": 1}
    made = {
        "resourceType": "ImagingStudy",
        "id": "s",
        "status": "available",
        "subject": {"reference": "Patient/p"},
        "started": "2024-03-01T09:15:00+01:00",
        "numberOfSeries": 1,
        "description": "CT",
        "series": [{"uid": "1.2", "modality": coding, "instance": [instance]}],
    } | elements
    return {k: v for k, v in made.items() if v is not None}


def a_patient(**elements: Any) -> Json:
    return {"resourceType": "Patient", "id": "p"} | elements


def a_bundle(kind: str, *entries: Json, **elements: Any) -> Json:
    made: Json = {"resourceType": "Bundle", "type": kind, "entry": list(entries)} | elements
    return made | ({"link": [{"relation": "self", "url": "http://h/fhir/Patient"}]} if kind == "searchset" else {})


ENTRY: Json = {"fullUrl": "http://h/Patient/p", "resource": a_patient()}
PUT, GONE = {"method": "PUT", "url": "Patient/p"}, {"method": "DELETE", "url": "Patient/p"}
OK = {"status": "200"}
EXTENSION: Json = {"url": "http://h/x", "valueString": "x"}


def contained(inside: Json, reference: str = "#c", kind: str = "Patient") -> Json:
    made = a_study(contained=[{"resourceType": kind, "id": "c"} | inside], subject={"reference": reference})
    return made | {"note": [{"text": "see #c"}]}


VALID_R4: dict[str, Json] = {
    "a study": a_study(),
    "an extension without the value": a_study(description=None, _description={"extension": [EXTENSION]}),
    "a list with a gap": a_patient(
        name=[{"given": ["A", None, "C"], "_given": [None, {"extension": [EXTENSION]}, None]}]
    ),
    "an ideographic space": a_patient(name=[{"text": "試験\u3000太郎"}]),
    "a logical reference": a_study(subject={"type": "Patient", "identifier": {"value": "1"}}),
    "a contained subject": contained({}),
    "an absolute reference": a_study(subject={"reference": "https://h/fhir/Patient/p/_history/2"}),
    "a partial date": a_study(started="2024-03"),
    "a searchset": a_bundle("searchset", ENTRY | {"search": {"mode": "match"}}, total=1),
    "a history": a_bundle(
        "history", ENTRY | {"request": PUT, "response": OK}, {"request": GONE, "response": OK}, total=2
    ),
    "a transaction that refers to its own entries": a_bundle(
        "transaction",
        ENTRY | {"fullUrl": "urn:uuid:0", "request": PUT},
        {"resource": a_study(subject={"reference": "urn:uuid:0"}), "request": PUT},
        {"resource": a_study(subject={"reference": "Patient?identifier=1"}), "request": PUT},
    ),
}
BROKEN_R4: dict[str, tuple[Json, str]] = {
    "status is no code of FHIR": (a_study(status="inactive"), "required codes"),
    "no status": (a_study(status=None), "status is missing"),
    "no subject": (a_study(subject=None), "subject is missing"),
    "no modality": (a_study(series=[{"uid": "1.2"}]), "modality is missing"),
    "an element of R5": (a_study(partOf=[{"reference": "Procedure/1"}]), "partOf is unknown"),
    "an R5 modality": (a_study(modality=[{"coding": [{"code": "CT"}]}]), "coding is unknown"),
    "a subject of the wrong type": (a_study(subject={"reference": "Practitioner/1"}), "may not lead to Practitioner"),
    "a logical one": (a_study(subject={"type": "Encounter", "identifier": {"value": "1"}}), "may not lead to"),
    "no resource type": (a_study(subject={"reference": "Patent/1"}), "no type of resource"),
    "a reference that is no URL": (a_study(subject={"reference": "x/Patient-1"}), "not Type/id"),
    "two types": (a_study(subject={"reference": "Patient/1", "type": "Group"}), "type is not that"),
    "a time without zone": (a_study(started="2024-03-01T09:15:00"), "format of dateTime"),
    "a month that is none": (a_study(started="2024-13"), "format of dateTime"),
    "an id too long": (a_study(id="1" * 65), "format of id"),
    "a count below zero": (a_study(numberOfSeries=-1), "unsignedInt"),
    "a count past 32 bits": (a_study(numberOfSeries=2**31), "unsignedInt"),
    "a count that is true": (a_study(numberOfSeries=True), "unsignedInt"),
    "a code with spaces around": (a_patient(gender=" male"), "format of code"),
    "a text with a control character": (a_patient(name=[{"text": "A\x01"}]), "control characters"),
    "two choices at once": (a_patient(deceasedBoolean=True, deceasedDateTime="2024"), "exclude each other"),
    "an extension on no primitive": (a_patient(name=[{"text": "A"}], _name=[{"id": "x"}]), "name is unknown"),
    "fewer extensions than values": (a_patient(name=[{"given": ["A", "B"], "_given": [None]}]), "as many"),
    "a gap without extension": (a_patient(name=[{"given": [None], "_given": [None]}]), "not a string"),
    "an extension without content": (a_study(extension=[{"url": "http://h/x"}]), "ext-1"),
    "a contact that is nobody": (a_patient(contact=[{"gender": "male"}]), "pat-1"),
    "a telephone of no system": (a_patient(telecom=[{"value": "1"}]), "cpt-2"),
    "a period backwards": (a_patient(name=[{"text": "A", "period": {"start": "2024", "end": "2023-01"}}]), "per-1"),
    "a picture of no type": (a_patient(photo=[{"data": "AAAA"}]), "att-1"),
    "broken XHTML": (a_patient(text={"status": "generated", "div": "<div>x</p>"}), "well-formed"),
    "HTML of no namespace": (a_patient(text={"status": "generated", "div": "<div>x</div>"}), "txt-1"),
    "an empty narrative": (
        a_patient(text={"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml"> </div>'}), "txt-2",
    ),
    "a contained resource that is not there": (contained({}, "#d"), "ref-1"),
    "a contained resource of the wrong type": (contained({}, kind="Organization"), "may not lead to Organization"),
    "a contained resource nobody names": (contained({}, "Patient/p"), "dom-3"),
    "a contained resource in a contained one": (contained({"contained": [a_patient()]}), "dom-2"),
    "a contained resource with a version": (contained({"meta": {"versionId": "1"}}), "dom-4"),
    "a contained resource with labels": (contained({"meta": {"security": [{"code": "R"}]}}), "dom-5"),
    "two contained ones of one id": (
        contained({}) | {"contained": [{"resourceType": "Patient", "id": "c"}] * 2}, "not distinct",
    ),
    "a capability twice": (
        {"resourceType": "CapabilityStatement", "status": "active", "date": "2024", "kind": "instance",
         "implementation": {"description": "a"}, "fhirVersion": "4.0.1", "format": ["json"],
         "rest": [{"mode": "server", "resource": [{"type": "Patient"}] * 2}]}, "cpb-9",
    ),
    "a total of a collection": (a_bundle("collection", ENTRY, total=1), "bdl-1"),
    "a mode where nothing is searched": (a_bundle("collection", ENTRY | {"search": {"mode": "match"}}), "bdl-2"),
    "a transaction without requests": (a_bundle("transaction", ENTRY), "bdl-3"),
    "a request in a searchset": (a_bundle("searchset", ENTRY | {"request": PUT}), "bdl-3"),
    "a deletion with content": (a_bundle("transaction", ENTRY | {"request": GONE}), "bdl-3"),
    "an update without content": (a_bundle("transaction", {"request": PUT}), "bdl-3"),
    "a history without responses": (a_bundle("history", ENTRY | {"request": PUT}), "bdl-4"),
    "an empty entry": (a_bundle("collection", {"fullUrl": "http://h/Patient/p"}), "bdl-5"),
    "a resource twice": (a_bundle("collection", ENTRY, ENTRY), "bdl-7"),
    "a fullUrl of a version": (a_bundle("collection", {"fullUrl": "http://h/Patient/p/_history/1"} | {
        "resource": a_patient()}), "bdl-8"),
    "a fullUrl of another resource": (a_bundle("collection", ENTRY | {"fullUrl": "http://h/Patient/q"}), "fullUrl"),
    "a document that is none": (a_bundle("document", ENTRY, timestamp="2024-03-01T00:00:00Z"), "bdl-9"),
    "a message without header": (a_bundle("message", ENTRY), "bdl-12"),
    "a searchset without self": (a_bundle("searchset", ENTRY) | {"link": [{"relation": "next", "url": "/"}]}, "bdl-18"),
    "an entry of the wrong type": (
        a_bundle("collection", ENTRY | {"fullUrl": "urn:uuid:0"}, {
            "resource": {"resourceType": "ImagingStudy", "status": "available", "subject": {"reference": "Patient/p"},
                         "endpoint": [{"reference": "urn:uuid:0"}]}}), "may not lead to Patient",
    ),
    "a parameter with two values": (
        {"resourceType": "Parameters", "parameter": [{"name": "a", "valueString": "a", "resource": a_patient()}]},
        "inv-1",
    ),
    "a quantity in no system": (
        {"resourceType": "Observation", "status": "final", "code": {"text": "a"}, "valueQuantity": {"code": "mm"}},
        "qty-3",
    ),
    "a value and its absence": (
        {"resourceType": "Observation", "status": "final", "code": {"text": "a"}, "valueString": "a",
         "dataAbsentReason": {"text": "b"}}, "obs-6",
    ),
    "a type that is not held": ({"resourceType": "Claim"}, "known here"),
}  # fmt: skip


@pytest.mark.parametrize("resource", VALID_R4.values(), ids=VALID_R4)
def test_what_is_valid_has_no_problem(resource: Json) -> None:
    assert problems(resource, "r4") == []


@pytest.mark.parametrize(("resource", "told"), BROKEN_R4.values(), ids=BROKEN_R4)
def test_every_break_is_told(resource: Json, told: str) -> None:
    found = problems(resource, "r4")
    assert any(told in problem for problem in found), found


@pytest.mark.parametrize("resource", [None, [], "x", {}, {"resourceType": 3}])
def test_what_is_no_resource_is_told(resource: object) -> None:
    assert problems(resource, "r4") == ["resource: not an object with a resourceType"]


def test_a_required_code_of_a_concept_may_stand_in_any_coding() -> None:
    condition = {"resourceType": "Condition", "subject": {"reference": "Patient/p"}}
    codings = [{"code": "local"}, {"code": "active"}]
    assert problems(condition | {"clinicalStatus": {"coding": codings}}, "r4") == []
    (found,) = problems(condition | {"clinicalStatus": {"coding": codings[:1]}}, "r4")
    assert "none of the required codes" in found


def test_each_version_is_judged_by_its_own_definitions() -> None:
    part_of = a_study(partOf=[{"reference": "Procedure/1"}], series=None)
    assert problems(part_of, "r5") == []
    assert problems(part_of, "r4") == ["ImagingStudy: partOf is unknown"]
    about = {"reference": {"reference": "Practitioner/1"}}
    (found,) = problems(a_study(reason=[about], series=None), "r5")
    assert "may not lead to Practitioner" in found
