"""Reads FHIR R4 ConceptMaps: which code is put out for which."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from bridge.errors import ConfigError
from bridge.translate.codes import BODY_PART_EXAMINED, Code, normal_body_part

MAXIMUM_BYTES = 50_000_000
_USED = ("equal", "equivalent", "wider", "subsumes")
"""Equivalences that are used, the best first: the target says the same as the source, or less. One that says more
(narrower, specializes), or something else (inexact, relatedto), would put words into the archive's mouth."""

_UNUSED = ("relatedto", "specializes", "narrower", "inexact", "unmatched", "disjoint")


def concept_maps(folder: Path | None) -> dict[tuple[str, str], Code]:
    """(source system, source code) → target, of every .json file of a folder.

    Raises  ConfigError, naming file and element; also where two files say different targets for a code
    """
    if folder is None:
        return {}
    if not folder.is_dir():
        raise ConfigError(f"translation.code_maps: {folder} is not a folder")
    found: dict[tuple[str, str], Code] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            if path.stat().st_size > MAXIMUM_BYTES:
                raise ConfigError(f"{path}: larger than {MAXIMUM_BYTES} bytes")
            content = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
        for (system, code), target in concept_map(content, str(path)).items():
            if found.setdefault((system, code), target) != target:
                raise ConfigError(f"{path}: code {code} of {system} has another target in a file before it")
    return found


def concept_map(content: bytes, name: str) -> Mapping[tuple[str, str], Code]:
    """(source system, source code) → target of one ConceptMap. Terms of BodyPartExamined are normalised.

    From    FHIR R4 ConceptMap.group.source, .target, .element.code, .element.target.code, .display, .equivalence
    Raises  ConfigError, naming the element; also for what would change a meaning if it were passed over
            (target.dependsOn, target.product, group.unmapped)
    """
    try:
        resource = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise ConfigError(f"{name}: not valid JSON") from None
    if not isinstance(resource, dict) or resource.get("resourceType") != "ConceptMap":
        raise ConfigError(f"{name}: resourceType: not a ConceptMap")
    found: dict[tuple[str, str], Code] = {}
    for place, group in _list(resource, "group", name, "ConceptMap"):
        system, target_system = _text(group, "source", name, place), _text(group, "target", name, place)
        if group.get("unmapped", {"mode": "provided"}) != {"mode": "provided"}:
            raise ConfigError(f"{name}: {place}.unmapped: only mode provided is supported")
        for element_place, element in _list(group, "element", name, place):
            code = _text(element, "code", name, element_place)
            key = (system, normal_body_part(code) if system == BODY_PART_EXAMINED else code)
            best = _best(element, target_system, name, element_place)
            if best is not None and found.setdefault(key, best) != best:
                raise ConfigError(f"{name}: {element_place}.code: has another target before")
    return found


def _best(element: dict[str, Any], system: str, name: str, place: str) -> Code | None:
    targets: dict[str, Code] = {}
    for at, target in _list(element, "target", name, place):
        equivalence = target.get("equivalence")
        if equivalence not in (*_USED, *_UNUSED):
            raise ConfigError(f"{name}: {at}.equivalence: not a code of FHIR R4 concept-map-equivalence")
        for unsupported in ("dependsOn", "product"):
            if unsupported in target:
                raise ConfigError(f"{name}: {at}.{unsupported}: not supported")
        if equivalence in _USED:
            display = target.get("display", "")
            if not isinstance(display, str):
                raise ConfigError(f"{name}: {at}.display: not a text")
            targets.setdefault(equivalence, Code(system, _text(target, "code", name, at), display))
    return next((targets[e] for e in _USED if e in targets), None)


def _list(holder: dict[str, Any], key: str, name: str, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    values = holder.get(key, [])
    if not isinstance(values, list):
        raise ConfigError(f"{name}: {place}.{key}: not a list")
    for number, value in enumerate(values):
        if not isinstance(value, dict):
            raise ConfigError(f"{name}: {place}.{key}[{number}]: not an object")
        yield f"{place}.{key}[{number}]", value


def _text(holder: dict[str, Any], key: str, name: str, place: str) -> str:
    value = holder.get(key)
    if not isinstance(value, str) or not value or value != " ".join(value.split()):
        raise ConfigError(f"{name}: {place}.{key}: missing, or not a text without blanks around it")
    return value
