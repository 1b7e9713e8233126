"""Codes by system, by list, by ValueSet and by descent, from local tables. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bridge.errors import InvalidQuery

Code = tuple[str, str]
"""system, code."""

MAXIMUM_CODES = 20_000


@dataclass(frozen=True)
class Terminology:
    """Code lists and FHIR R4 ValueSets by name; for each code, the codes below it."""

    lists: Mapping[str, Sequence[Code]] = field(default_factory=dict)
    value_sets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    below: Mapping[Code, Sequence[str]] = field(default_factory=dict)

    def in_list(self, name: str) -> tuple[Code, ...]:
        """The codes of a list. Raises InvalidQuery naming the known ones."""
        if not self.lists.get(name):
            raise InvalidQuery(f"no such code list; known: {', '.join(sorted(self.lists)) or 'none'}")
        return tuple(self.lists[name])

    def descendants(self, system: str, code: str) -> tuple[Code, ...]:
        """The code and all below it. Raises InvalidQuery where the closure table does not have the code."""
        if (system, code) not in self.below:
            raise InvalidQuery("the closure table has nothing below this code: list its codes, or add its rows")
        return ((system, code), *((system, c) for c in self.below[system, code]))

    def in_value_set(self, name: str) -> tuple[Code, ...]:
        """The codes of a ValueSet: its expansion, else its compose (FHIR R4 ValueSet.compose, .expansion).
        Raises InvalidQuery for what needs a terminology server."""
        if name not in self.value_sets:
            raise InvalidQuery(f"no such value set; known: {', '.join(sorted(self.value_sets)) or 'none'}")
        return tuple(dict.fromkeys(self._expanded(name, ())))

    def _expanded(self, name: str, within: tuple[str, ...]) -> Iterator[Code]:
        if name in within:
            raise InvalidQuery("the value set includes itself")
        document = self.value_sets[name]
        if "expansion" in document:
            yield from _contained(document["expansion"])
            return
        compose = document.get("compose", {})
        left_out = {c for part in compose.get("exclude", []) for c in self._included(part, (*within, name))}
        for part in compose.get("include", []):
            yield from (c for c in self._included(part, (*within, name)) if c not in left_out)

    def _included(self, part: Mapping[str, Any], within: tuple[str, ...]) -> Iterator[Code]:
        """Codes of one include: concepts, filters and value sets, all of which must agree."""
        choices: list[list[Code]] = []
        system = str(part.get("system", ""))
        if "concept" in part:
            choices.append([(system, str(c["code"])) for c in part["concept"]])
        for rule in part.get("filter", []):
            if rule.get("property") != "concept" or rule.get("op") not in ("is-a", "descendent-of"):
                raise InvalidQuery("a filter of the value set needs a terminology server: give its expansion")
            found = self.descendants(system, str(rule["value"]))
            choices.append(list(found if rule["op"] == "is-a" else found[1:]))
        for url in part.get("valueSet", []):
            named = [n for n, d in self.value_sets.items() if d.get("url") == url]
            if not named:
                raise InvalidQuery("the value set includes one that is not here")
            choices.append(list(self._expanded(named[0], within)))
        if not choices:
            raise InvalidQuery("the value set means a whole code system: give its expansion")
        for code in choices[0]:
            if all(code in other for other in choices[1:]):
                yield code


def _contained(part: Mapping[str, Any]) -> Iterator[Code]:
    for one in part.get("contains", []):
        if "code" in one and not one.get("abstract"):
            yield str(one.get("system", "")), str(one["code"])
        yield from _contained(one)
