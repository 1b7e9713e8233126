"""What a resource is in and what is in it: contained resources, the Bundle, and where references lead."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

Json = dict[str, Any]

_TYPE_AND_ID = re.compile(r"(?:^|/)([A-Z][A-Za-z]+)/[A-Za-z0-9\-.]{1,64}(?:/_history/[A-Za-z0-9\-.]{1,64})?(?:#.*)?$")
_SEARCH = re.compile(r"([A-Z][A-Za-z]+)\?.+$")


@dataclass(frozen=True)
class Surroundings:
    """Result  `container` the resource whose `contained` are at hand, `bundle` the Bundle around; {} for none"""

    container: Json
    bundle: Json

    @classmethod
    def of(cls, resource: Json, outside: Surroundings | None, contained: bool) -> Surroundings:
        """The surroundings of `resource`, which is outermost, an entry of a Bundle, a parameter, or contained."""
        bundle = resource if resource["resourceType"] == "Bundle" else outside.bundle if outside else {}
        return cls(outside.container if outside and contained else resource, bundle)

    @cached_property
    def entries(self) -> Mapping[str, str]:
        """fullUrl → resource type."""
        entries = [e for e in self.bundle.get("entry", ()) if "resource" in e and "fullUrl" in e]
        return {e["fullUrl"]: e["resource"]["resourceType"] for e in entries}

    def contained(self) -> list[Json]:
        return list(self.container.get("contained", ()))

    def problems_of_contained(self, place: str) -> Iterator[str]:
        """dom-2 to dom-5, and that contained resources have ids of their own."""
        ids = [c.get("id") for c in self.contained()]
        if len(set(map(str, ids))) < len(ids) or not all(ids):
            yield f"{place}.contained: ids are missing or not distinct"
        said = set(_strings(self.container))
        for index, one in enumerate(self.contained()):
            here, meta = f"{place}.contained[{index}]", one.get("meta", {})
            if "contained" in one:
                yield f"{here}: contains resources itself (dom-2)"
            if f"#{one.get('id')}" not in said and "#" not in _strings(one):
                yield f"{here}: is referred to by nothing (dom-3)"
            if {"versionId", "lastUpdated"} & set(meta):
                yield f"{here}: has a version or lastUpdated of its own (dom-4)"
            if "security" in meta:
                yield f"{here}: has security labels of its own (dom-5)"

    def problems_of_reference(
        self, reference: Json, place: str, targets: Collection[str], known: Collection[str]
    ) -> Iterator[str]:
        """Whether a reference resolves within the resource and leads to a type it may lead to."""
        text, told = reference.get("reference"), reference.get("type")
        leads_to = told.removeprefix("http://hl7.org/fhir/StructureDefinition/") if told else None
        if text:
            found = self._type_of(text)
            if found == _NOWHERE:
                yield f"{place}: no contained resource has this id (ref-1)"
                return
            if found and leads_to and found != leads_to:
                yield f"{place}: type is not that of the resource it names"
            leads_to = found or leads_to
            if found is None and "/" in text and not re.match(r"[a-z][a-z0-9+.-]*:", text):
                yield f"{place}: a relative reference is not Type/id"
        if leads_to and leads_to not in known:
            yield f"{place}: leads to no type of resource"
        elif leads_to and targets and leads_to not in targets:
            yield f"{place}: may not lead to {leads_to}"

    def _type_of(self, reference: str) -> str | None:
        if reference.startswith("#"):
            inside = {f"#{c.get('id')}": c["resourceType"] for c in self.contained()}
            return str({"#": self.container["resourceType"], **inside}.get(reference, _NOWHERE))
        if reference in self.entries:
            return self.entries[reference]
        found = _TYPE_AND_ID.search(reference) or (_SEARCH.match(reference) if self.bundle else None)
        return found[1] if found else None


_NOWHERE = "#"


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from _strings(one)
