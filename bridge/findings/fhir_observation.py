"""Observations of an AI result's DiagnosticReport as findings in their JSON form. FHIR R4 and R5."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bridge.errors import Refusal, RefusedResult
from bridge.findings.concepts import UCUM
from bridge.model import Resource
from bridge.translate.codes import CodeTables
from bridge.translate.r5_selections import with_selections

Resolve = Callable[[Resource, str], Resource]
_PRESENCE = {"52101004": "present", "2667000": "absent", "373068000": "undetermined"}
_SIDES = {"7771000": "left", "24028007": "right", "51440002": "bilateral"}
_CERTAINTY, _COMMENT, _SIDE, _SERIES, _DERIVATION = "111012", "121106", "272741003", "112002", "121401"
_SEGMENT, _TRACKING_UID, _TRACKING_ID = "121191", "112040", "112039"


class Observations:
    """Reads findings; `resolve` gives what a reference leads to.

    From    code; value (presence by SNOMED CT or boolean, another concept is a class, a quantity a measurement, an
            integer a score, a string text); note; hasMember (measurements); component (certainty, side, comment; other
            quantities are measurements); bodySite or bodyStructure; identifier (tracking); derivedFrom (selections)
    """

    def __init__(self, resolve: Resolve, tables: CodeTables) -> None:
        self._resolve = resolve
        self._schemes: Mapping[str, str] = {
            system: name for name, system in reversed(list(tables.coding_scheme.items()))
        }

    def findings(self, observations: list[Resource]) -> Iterator[dict[str, Any]]:
        """One finding for each, numbered in their order. Raises RefusedResult for what a finding has no place for."""
        for n, observation in enumerate(observations, 1):
            made: dict[str, Any] = {"id": str(n), "code": self._code(observation["code"])}
            texts = [note["text"] for note in observation.get("note", ())]
            self._value(made, observation, texts)
            members = [self._resolve(r, "Observation.hasMember") for r in observation.get("hasMember", ())]
            for member in members:
                self._measured(made, member)
            for component in observation.get("component", ()):
                self._component(made, component, texts)
            self._place(made, observation)
            made |= _tracking(observation)
            yield made | ({"text": "\n".join(texts)} if texts else {})

    def _value(self, made: dict[str, Any], observation: Resource, texts: list[str]) -> None:
        value = next(((k, v) for k, v in observation.items() if k.startswith("value")), ("", None))
        match value:
            case ("valueCodeableConcept", dict() as concept):
                code = self._code(concept)
                known = _PRESENCE.get(code["code"]) if code["scheme"] == "SCT" else None
                made |= {"presence": known} if known else {"classification": code}
            case ("valueBoolean", bool() as present):
                made["presence"] = "present" if present else "absent"
            case ("valueInteger", int() as score):
                made["score"] = {"value": score}
            case ("valueQuantity", dict()):
                self._measured(made, observation)
            case ("valueString", str() as text):
                texts.append(text)
            case ("", None):
                pass
            case (name, _):
                raise _refused(f"Observation.{name}", "has no place in a result")

    def _measured(self, made: dict[str, Any], measured: Resource) -> None:
        quantity = measured.get("valueQuantity")
        if not isinstance(quantity, dict) or quantity.get("system") != UCUM or "value" not in quantity:
            raise _refused("Observation.hasMember", "must be a measurement with a value and a UCUM unit")
        one = {"code": self._code(measured["code"]), "value": quantity["value"], "unit": quantity.get("code", "")}
        for component in measured.get("component", ()):
            if _is(component["code"], _DERIVATION):
                one["derivation"] = self._code(component["valueCodeableConcept"])
        made.setdefault("measurements", []).append(one)

    def _component(self, made: dict[str, Any], component: Resource, texts: list[str]) -> None:
        code = component["code"]
        if _is(code, _CERTAINTY) and component.get("valueQuantity", {}).get("code") == "%":
            made["confidence"] = {"value": component["valueQuantity"]["value"], "scale": "percent"}
        elif _is(code, _SIDE):
            made.setdefault("location", {})["laterality"] = _side(component["valueCodeableConcept"])
        elif _is(code, _COMMENT):
            texts.append(component["valueString"])
        elif _is(code, _SERIES):
            made.setdefault("series", []).append(component["valueString"])
        elif "valueQuantity" in component:
            self._measured(made, component)
        else:
            raise _refused("Observation.component", "has one without a place in a result: make an Observation of it")

    def _place(self, made: dict[str, Any], observation: Resource) -> None:
        location: dict[str, Any] = made.pop("location", {})
        if "bodySite" in observation:
            location["body_site"] = self._code(observation["bodySite"])
        if "bodyStructure" in observation:
            structure = self._resolve(observation["bodyStructure"], "Observation.bodyStructure")
            (included,) = structure["includedStructure"]
            location["body_site"] = self._code(included["structure"])
            location |= {"laterality": _side(included["laterality"])} if "laterality" in included else {}
        images: list[dict[str, Any]] = []
        for selection in self._selections(observation):
            _selected(selection, location, images)
        named = {i["series_instance_uid"] for i in images} | _series_of(location)
        series = made.pop("series", [])
        images += [{"series_instance_uid": uid} for uid in series if uid not in named]
        made |= {"location": location} if location else {}
        made |= {"images": images} if images else {}

    def _selections(self, observation: Resource) -> Iterator[Resource]:
        """ImagingSelections, in the Bundle (R5) or said by extensions (R4)."""
        yield from (
            r for r in with_selections({"subject": {}, **observation}) if r["resourceType"] == "ImagingSelection"
        )
        for reference in observation.get("derivedFrom", ()):
            if (
                reference.get("reference", "").startswith("ImagingSelection/")
                or reference.get("type") == "ImagingSelection"
            ):
                yield self._resolve(reference, "Observation.derivedFrom")

    def _code(self, concept: Resource) -> dict[str, str]:
        """The last coding of a scheme that is known: what a site maps a code to stands before it."""
        codings = [c for c in concept.get("coding", ()) if "code" in c]
        known = [c for c in codings if c.get("system") in self._schemes] or codings
        if not known:
            return {"scheme": "", "code": ""}
        coding, system = known[-1], str(known[-1].get("system", ""))
        found = {"scheme": self._schemes.get(system, system), "code": coding["code"]}
        return found | ({"display": coding["display"]} if "display" in coding else {})


def _selected(selection: Resource, location: dict[str, Any], images: list[dict[str, Any]]) -> None:
    series, frame = selection.get("seriesUid", ""), selection.get("frameOfReferenceUid", "")
    segment = _is(selection["code"], _SEGMENT)
    for instance in selection.get("instance", ()):
        subset = [int(number) for number in instance.get("subset", ())]
        image = {"series_instance_uid": series, "sop_instance_uid": instance["uid"]}
        framed = image | ({"frames": subset} if subset else {})
        planar, spatial = instance.get("imageRegion2D", ()), instance.get("imageRegion3D", ())
        for region in planar:
            shape = {"shape": region["regionType"], "points": _points(region["coordinate"], 2)}
            location.setdefault("planar_regions", []).append({"image": framed} | shape)
        for region in spatial:
            shape = {"shape": region["regionType"], "points": _points(region["coordinate"], 3)}
            location.setdefault("spatial_regions", []).append({"frame_of_reference_uid": frame} | shape)
        if segment:
            location.setdefault("segments", []).extend(image | {"number": number} for number in subset)
        elif not planar and not spatial:
            images.append(framed)
    if series and not selection.get("instance"):
        images.append({"series_instance_uid": series})


def _series_of(location: dict[str, Any]) -> set[str]:
    planar = {r["image"]["series_instance_uid"] for r in location.get("planar_regions", ())}
    return planar | {s["series_instance_uid"] for s in location.get("segments", ())}


def _points(numbers: list[float], dimensions: int) -> list[list[float]]:
    return [numbers[n : n + dimensions] for n in range(0, len(numbers), dimensions)]


def _tracking(observation: Resource) -> dict[str, str]:
    found = {}
    for identifier in observation.get("identifier", ()):
        kind = identifier.get("type", {})
        if _is(kind, _TRACKING_UID):
            found["tracking_uid"] = identifier["value"].removeprefix("urn:oid:")
        elif _is(kind, _TRACKING_ID):
            found["tracking_identifier"] = identifier["value"]
    return found


def _side(concept: Resource) -> str:
    return next((_SIDES[c["code"]] for c in concept.get("coding", ()) if c.get("code") in _SIDES), "")


def _is(concept: Resource, code: str) -> bool:
    return any(c.get("code") == code for c in concept.get("coding", ()))


def _refused(field: str, reason: str) -> RefusedResult:
    return RefusedResult((Refusal(field, reason),))
