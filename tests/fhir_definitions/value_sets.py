"""The codes of FHIR's own value sets, from an unpacked package."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Json = dict[str, Any]


class ValueSets:
    """Value sets that enumerate codes: by concept, or by a whole code system of the package.

    Result  `used` URL → sorted codes of those asked for; `open` URLs of those that cannot be enumerated (currencies,
            media types, languages, units)
    """

    def __init__(self, package: Path) -> None:
        self._value_sets = _by_url(package, "ValueSet")
        self._code_systems = _by_url(package, "CodeSystem")
        self.used: dict[str, list[str]] = {}
        self.open: set[str] = set()

    def use(self, url: str) -> bool:
        """Whether the codes of this value set are known; they are in `used` then."""
        if url not in self.used and url not in self.open:
            codes = self._codes(url)
            if codes is None:
                self.open.add(url)
            else:
                self.used[url] = sorted(codes)
        return url in self.used

    def _codes(self, url: str) -> set[str] | None:
        definition = self._value_sets.get(url, {}).get("compose")
        if definition is None or "exclude" in definition:
            return None
        found: set[str] = set()
        for include in definition["include"]:
            codes = self._included(include)
            if codes is None:
                return None
            found |= codes
        return found

    def _included(self, include: Json) -> set[str] | None:
        if "filter" in include or "valueSet" in include:
            return None
        if "concept" in include:
            return {c["code"] for c in include["concept"]}
        system = self._code_systems.get(include["system"].partition("|")[0], {})
        return set(_concepts(system)) if system.get("content") == "complete" else None


def _concepts(parent: Json) -> Iterator[str]:
    for concept in parent.get("concept", ()):
        yield concept["code"]
        yield from _concepts(concept)


def _by_url(package: Path, kind: str) -> dict[str, Json]:
    found = (json.loads(p.read_text("utf-8")) for p in sorted(package.glob(f"{kind}-*.json")))
    return {one["url"]: one for one in found if "url" in one}
