"""FHIR's own StructureDefinitions and value sets → one compact JSON for each FHIR version (see README.md here).

    python -m tests.fhir_definitions.extract r4 PACKAGE      writes r4.json and examples_r4.json
    python -m tests.fhir_definitions.extract r4 PACKAGE all  judges every example of every type in the package

PACKAGE is the folder of the unpacked npm package `hl7.fhir.r4.examples` or `hl7.fhir.r5.examples`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.fhir_definitions.value_sets import ValueSets

Json = dict[str, Any]
HERE = Path(__file__).parent
WANTED = (
    "AuditEvent", "BodyStructure", "Bundle", "CapabilityStatement", "Condition", "Device", "DiagnosticReport",
    "DocumentReference", "Encounter", "Endpoint", "Group", "ImagingSelection", "ImagingStudy", "Location",
    "Medication", "MedicationRequest", "Observation", "OperationOutcome", "Organization", "Parameters", "Patient",
    "Practitioner", "PractitionerRole", "Procedure", "Provenance", "ServiceRequest", "Subscription",
    "SubscriptionStatus", "SubscriptionTopic", "Task",
)  # fmt: skip
"""Resource types this project makes or reads; a version has those of them that it defines."""

LARGEST_EXAMPLE, EXAMPLES_OF_A_TYPE = 6_000, 4
_FHIR = "http://hl7.org/fhir/StructureDefinition/"
_FHIR_TYPE = _FHIR + "structuredefinition-fhir-type"
_REGEX = _FHIR + "regex"
_FHIRPATH = "http://hl7.org/fhirpath/"
_STRAY_BRACE = "{1,9}})?"  # FHIR R5's regex of decimal would ask for a brace after an exponent


def structure_definitions(package: Path) -> dict[str, Json]:
    """Type name → the StructureDefinition that defines it, of resources and data types; no profiles."""
    found = {}
    for path in sorted(package.glob("StructureDefinition-*.json")):
        definition = json.loads(path.read_text("utf-8"))
        if definition["kind"] != "logical" and definition.get("derivation") != "constraint":
            found[definition["type"]] = definition
    return found


def definitions(package: Path, wanted: Iterable[str]) -> Json:
    """What the validator needs of these resource types and of every data type they use."""
    known, value_sets = structure_definitions(package), ValueSets(package)
    waiting, types = [*(w for w in wanted if w in known), "Element"], {}
    while waiting:
        name = waiting.pop()
        if name not in types and name in known:
            types[name] = _type(known[name], value_sets)
            waiting += [t for e in types[name].get("elements", {}).values() for t in e.get("types", {})]
    return {
        "version": known["Element"]["fhirVersion"],
        "types": dict(sorted(types.items())),
        "codes": dict(sorted(value_sets.used.items())),
        "codes_not_listed": sorted(value_sets.open),
        "resource_types": sorted(n for n, d in known.items() if d["kind"] == "resource" and not d["abstract"]),
    }


def _type(definition: Json, value_sets: ValueSets) -> Json:
    elements = definition["snapshot"]["element"]
    if definition["kind"] == "primitive-type":
        (value,) = (e for e in elements if e["path"] == definition["type"] + ".value")
        regex = next((x["valueString"] for x in value["type"][0].get("extension", ()) if x["url"] == _REGEX), None)
        return {"kind": "primitive"} | ({"regex": regex.replace(_STRAY_BRACE, "{1,9})?")} if regex else {})
    kind = "resource" if definition["kind"] == "resource" else "complex"
    resource_id = f"{definition['type']}.id" if kind == "resource" else ""
    return {"kind": kind, "elements": {e["path"]: _element(e, value_sets, resource_id) for e in elements[1:]}}


def _element(element: Json, value_sets: ValueSets, resource_id: str) -> Json:
    """Resource.id is an id and Element.id a string, as the text of FHIR has it; some definitions confuse the two."""
    made: Json = {"min": element["min"], "max": element["max"]}
    if "contentReference" in element:
        return made | {"same_as": element["contentReference"].rpartition("#")[2]}
    made["types"] = {_code(t): _targets(t) for t in element["type"]}
    if element["path"].endswith(".id") and element["type"][0]["code"].startswith(_FHIRPATH):
        made["types"] = {"id" if element["path"] == resource_id else "string": []}
    binding = element.get("binding", {})
    if binding.get("strength") == "required":
        url = binding["valueSet"].partition("|")[0]
        if value_sets.use(url):
            made["codes"] = url
    return made


def _code(type_: Json) -> str:
    """The FHIR type; where the definition gives FHIRPath's, an extension tells it."""
    if not type_["code"].startswith(_FHIRPATH):
        return str(type_["code"])
    return next(str(x["valueUrl"]) for x in type_["extension"] if x["url"] == _FHIR_TYPE)


def _targets(type_: Json) -> list[str]:
    """The resource types a reference may lead to; [] for any."""
    targets = sorted(p.removeprefix(_FHIR) for p in type_.get("targetProfile", ()))
    return [] if "Resource" in targets or not type_["code"].endswith("Reference") else targets


def examples(package: Path, types: Iterable[str]) -> Iterator[tuple[str, Json]]:
    """(file name, resource) of every example of these types."""
    for kind in sorted(types):
        for path in sorted(package.glob(f"{kind}-*.json")):
            if path.stem not in _NO_EXAMPLE:
                yield path.stem, json.loads(path.read_text("utf-8"))


_NO_EXAMPLE = {"Bundle-resources", "Bundle-dataelements", "Bundle-valueset-expansions", "Bundle-valuesets"}
"""The specification itself as Bundles: the definitions, tens of megabytes."""


def selected(package: Path, types: Iterable[str]) -> list[Json]:
    """A few small examples of each type, without their narrative; none that holds a type not among `types`."""
    types = set(types)
    found: list[Json] = []
    taken: dict[str, int] = {}
    for _, resource in examples(package, types):
        kind = resource["resourceType"]
        resource.pop("text", None)
        text = json.dumps(resource)
        small = len(text) < LARGEST_EXAMPLE and set(re.findall(r'"resourceType": "(\w+)"', text)) <= types
        if small and taken.get(kind, 0) < EXAMPLES_OF_A_TYPE:
            taken[kind] = taken.get(kind, 0) + 1
            found.append(resource)
    return found


def _lines(value: Json | list[Json]) -> str:
    """JSON with one type, one value set or one example on each line."""

    def compact(one: object) -> str:
        return json.dumps(one, ensure_ascii=False, separators=(",", ":"))

    def members(mapping: Json, inner: bool) -> str:
        parts = (f"{compact(k)}:{members(v, False) if inner and isinstance(v, dict) else compact(v)}"
                 for k, v in mapping.items())  # fmt: skip
        return "{\n" + ",\n".join(parts) + "\n}"

    if isinstance(value, list):
        return "[\n" + ",\n".join(map(compact, value)) + "\n]\n"
    return members(value, True) + "\n"


def _judge(version: str, package: Path) -> None:
    from tests.fhir_definitions.definitions import Definitions
    from tests.fhir_definitions.validator import judged

    known = structure_definitions(package)
    resources = [name for name, d in known.items() if d["kind"] == "resource" and not d["abstract"]]
    all_definitions = Definitions(definitions(package, resources))
    count = wrong = 0
    for name, resource in examples(package, resources):
        count += 1
        if found := judged(resource, all_definitions):
            wrong += 1
            sys.stdout.write(f"{name}\n" + "".join(f"    {problem}\n" for problem in found[:5]))
    sys.stdout.write(f"{version}: {count} examples, {wrong} with problems\n")


def main(version: str, folder: str, what: str = "") -> None:
    package = Path(folder)
    if what == "all":
        _judge(version, package)
        return
    (HERE / f"{version}.json").write_text(_lines(definitions(package, WANTED)), "utf-8")
    (HERE / f"examples_{version}.json").write_text(_lines(selected(package, WANTED)), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
