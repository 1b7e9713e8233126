"""FHIR R5 ImagingSelection and BodyStructure, made from what an R4 Observation of ours says in extensions and
components. A pure step beside `to_r5`: one R4 resource becomes several."""

from __future__ import annotations

from collections.abc import Iterator

import orjson

from bridge.model import Resource
from bridge.translate.codes import DCM
from bridge.translate.uids import resource_id

SELECTION = "https://imaging-bridge.example/StructureDefinition/imaging-selection"
"""Extension of a reference to an ImagingStudy: the part of the study that is meant. Its parts are R5's elements."""

_LATERALITY = "272741003"
_TRACKING = frozenset({"112039", "112040"})


def with_selections(observation: Resource) -> tuple[Resource, ...]:
    """What an Observation refers to, then the Observation itself. All of FHIR R5.

    From    an Observation of `to_r5`: the extensions of derivedFrom; bodySite with the component Laterality and the
            tracking identifiers
    To      ImagingSelection for each extension, also of the study; BodyStructure where the site has a side or is
            tracked: the same for the same lesion and site, in whatever study. Otherwise bodySite stays
    """
    made = dict(observation)
    selections = list(_selections(observation))
    derived = [{k: v for k, v in one.items() if k != "extension"} for one in observation.get("derivedFrom", ())]
    if selections:
        made["derivedFrom"] = [*derived, *(_reference(one) for one in selections)]
    structure = _body_structure(observation)
    if structure is None:
        return (*selections, made)
    del made["bodySite"]
    made["bodyStructure"] = _reference(structure)
    if rest := [c for c in observation.get("component", ()) if not _is(c["code"], _LATERALITY)]:
        made["component"] = rest
    else:
        made.pop("component", None)
    return (structure, *selections, made)


def _reference(resource: Resource) -> Resource:
    kind = resource["resourceType"]
    return {"reference": f"{kind}/{resource['id']}", "type": kind}


def _selections(observation: Resource) -> Iterator[Resource]:
    for study in observation.get("derivedFrom", ()):
        for extension in study.get("extension", ()):
            if extension["url"] == SELECTION:
                yield _selection(observation, study, extension)


def _selection(observation: Resource, study: Resource, extension: Resource) -> Resource:
    """Its id follows from the study and from what is selected: two findings in one place share it."""
    parts = {part["url"]: part for part in extension["extension"]}
    uid = study["identifier"]["value"].removeprefix("urn:oid:")
    what = orjson.dumps(extension, option=orjson.OPT_SORT_KEYS).decode()
    id_ = resource_id("ImagingSelection", uid, what)
    made: Resource = {
        "resourceType": "ImagingSelection",
        "id": id_,
        "identifier": [_own(id_)],
        "status": "available",
        "subject": observation["subject"],
        "code": {"coding": [parts["code"]["valueCoding"]]},
        "studyUid": uid,
        "derivedFrom": [{k: v for k, v in study.items() if k != "extension"}],
    }
    for name in ("seriesUid", "frameOfReferenceUid"):
        if name in parts:
            made[name] = parts[name]["valueId"]
    if "instance" in parts:
        made["instance"] = [_instance(parts["instance"]["extension"])]
    return made


def _instance(parts: list[Resource]) -> Resource:
    made: Resource = {}
    for part in parts:
        name = part["url"]
        if name == "uid":
            made["uid"] = part["valueId"]
        elif name == "sopClass":
            made["sopClass"] = part["valueCoding"]
        elif name == "subset":
            made.setdefault("subset", []).append(part["valueString"])
        else:
            kind, coordinates = (inner.get("valueCode", inner.get("valueString")) for inner in part["extension"])
            made[name] = [{"regionType": kind, "coordinate": [_number(text) for text in coordinates.split()]}]
    return made


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("-").isdigit() else float(text)


def _body_structure(observation: Resource) -> Resource | None:
    site = observation.get("bodySite")
    components = observation.get("component", ())
    side = next((c["valueCodeableConcept"] for c in components if _is(c["code"], _LATERALITY)), None)
    tracking = [i for i in observation.get("identifier", ()) if _tracks(i)]
    if site is None or (side is None and not tracking):
        return None
    included = {"structure": site} | ({"laterality": side} if side else {})
    subject = observation["subject"]
    key = orjson.dumps([subject, tracking, included], option=orjson.OPT_SORT_KEYS).decode()
    id_ = resource_id("BodyStructure", key)
    made: Resource = {"resourceType": "BodyStructure", "id": id_, "identifier": [_own(id_), *tracking]}
    return made | {"includedStructure": [included], "patient": subject}


def _own(id_: str) -> Resource:
    return {"system": "urn:ietf:rfc:3986", "value": f"urn:uuid:{id_}"}


def _tracks(identifier: Resource) -> bool:
    codings = identifier.get("type", {}).get("coding", ())
    return any(c.get("system") == DCM and c.get("code") in _TRACKING for c in codings)


def _is(concept: Resource, code: str) -> bool:
    return any(c.get("code") == code for c in concept.get("coding", ()))
