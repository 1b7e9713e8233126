"""What a FHIR server says it can do (FHIR R4 and R5 CapabilityStatement), as far as delivery depends on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bridge.errors import SinkUnavailable
from bridge.model import Resource

FhirVersion = Literal["R4", "R5"]
_VERSIONS: Mapping[str, FhirVersion] = {"4.0": "R4", "4.1": "R4", "4.3": "R4", "5.0": "R5"}


@dataclass(frozen=True)
class TypeCapabilities:
    """One resource type. Result: `update_create` PUT under our own id may make it: servers that allow it may be silent
    about it (HAPI), so only a server that denies it is not asked; `if_match` versions are heeded."""

    search: bool = True
    update_create: bool = True
    conditional_create: bool = False
    conditional_update: bool = False
    if_match: bool = False
    operations: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Capabilities:
    """One server. Result: `types` by name; None where the server lists no types at all, so that all are tried."""

    fhir_version: FhirVersion
    transaction: bool
    batch: bool
    types: Mapping[str, TypeCapabilities] | None

    def of(self, resource_type: str) -> TypeCapabilities | None:
        """What can be done with a type; None when the server does not know it."""
        return TypeCapabilities() if self.types is None else self.types.get(resource_type)


def capabilities(statement: Resource, owner: str) -> Capabilities:
    """Reads a CapabilityStatement. What it does not say is taken as not offered, but for updateCreate.

    From    FHIR R4 CapabilityStatement.fhirVersion, .rest.resource, .rest.interaction
    Raises  SinkUnavailable when it is none, or of a FHIR version that we do not write, or without ImagingStudy
    """
    if statement.get("resourceType") != "CapabilityStatement":
        raise SinkUnavailable(f"{owner}: metadata is not a CapabilityStatement: check url")
    said = str(statement.get("fhirVersion", ""))
    version = _VERSIONS.get(".".join(said.split(".")[:2]))
    if version is None:
        raise SinkUnavailable(f"{owner}: the server speaks FHIR {said[:20]!r}; allowed: 4.0, 4.3 and 5.0")
    rest = next((r for r in objects(statement.get("rest")) if r.get("mode", "server") == "server"), {})
    interactions = {i.get("code") for i in objects(rest.get("interaction"))}
    types = {str(r.get("type")): _type(r) for r in objects(rest.get("resource"))}
    if types and "ImagingStudy" not in types:
        raise SinkUnavailable(f"{owner}: the server does not offer ImagingStudy (metadata): check url")
    return Capabilities(version, "transaction" in interactions, "batch" in interactions, types or None)


def _type(resource: Resource) -> TypeCapabilities:
    return TypeCapabilities(
        search="search-type" in {i.get("code") for i in objects(resource.get("interaction"))},
        update_create=resource.get("updateCreate") is not False,
        conditional_create=resource.get("conditionalCreate") is True,
        conditional_update=resource.get("conditionalUpdate") is True,
        if_match=resource.get("versioning") == "versioned-update",
        operations=frozenset(str(o.get("name")).lstrip("$") for o in objects(resource.get("operation"))),
    )


def objects(value: object) -> list[Resource]:
    """The JSON objects of a list that a server sent; nothing of what is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
