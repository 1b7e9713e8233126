"""What joins an OMOP export to a site's own OMOP database: which person a patient is, which concept a code is.

Both are CSV files beside the tables, for people to complete: the next export into the same folder keeps what stands
in them and numbers only what is new.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bridge.errors import InvalidQuery

PERSONS, CONCEPTS = "person_map.csv", "concept_map.csv"
PERSON_COLUMNS = ("patient_id", "person_id", "identifier_system", "identifier_value")
CONCEPT_COLUMNS = ("domain", "system", "code", "display", "concept_id")
LARGEST = 2_147_483_647
NO_CONCEPT = 0
"""OMOP's concept_id of what has no matching concept."""

_EHR = ("type", "", "EHR")
_EHR_CONCEPT = 32817

ConceptKey = tuple[str, str, str]
"""domain, code system, code."""


@dataclass
class PersonMap:
    """patient_id → person_id. A patient who is not in it yet gets the next number."""

    numbers: dict[str, int] = field(default_factory=dict)
    identifiers: dict[str, tuple[str, str]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> PersonMap:
        """Raises InvalidQuery naming the line that cannot be used."""
        made = cls()
        taken: set[int] = set()
        for number, row in _lines(path, PERSON_COLUMNS[:2]):
            person = _number(row["person_id"], path, number, "person_id")
            if not row["patient_id"] or row["patient_id"] in made.numbers or person in taken or person == 0:
                raise InvalidQuery(f"{path} line {number}: each patient_id needs one person_id of its own, 1 or more")
            made.numbers[row["patient_id"]] = person
            made.identifiers[row["patient_id"]] = (
                row.get("identifier_system") or "",
                row.get("identifier_value") or "",
            )
            taken.add(person)
        return made

    def number(self, patient_ids: Iterable[str]) -> None:
        """Gives everybody a person_id."""
        highest = max(self.numbers.values(), default=0)
        for patient_id in sorted(set(patient_ids) - self.numbers.keys()):
            highest += 1
            if highest > LARGEST:
                raise InvalidQuery(f"{PERSONS}: no person_id is left below {LARGEST}: lower the largest of them")
            self.numbers[patient_id] = highest

    def as_csv(self) -> bytes:
        rows = [
            {"patient_id": p, "person_id": n}
            | dict(zip(PERSON_COLUMNS[2:], self.identifiers.get(p, ("", "")), strict=True))
            for p, n in sorted(self.numbers.items())
        ]
        return _written(PERSON_COLUMNS, rows)


@dataclass
class ConceptMap:
    """(domain, system, code) → concept_id; 0 until somebody says which."""

    ids: dict[ConceptKey, int] = field(default_factory=lambda: {_EHR: _EHR_CONCEPT})
    displays: dict[ConceptKey, str] = field(default_factory=lambda: {_EHR: "EHR"})

    @classmethod
    def read(cls, path: Path) -> ConceptMap:
        """Raises InvalidQuery naming the line that cannot be used."""
        made = cls()
        for number, row in _lines(path, (*CONCEPT_COLUMNS[:3], "concept_id")):
            key = (row["domain"], row["system"], row["code"])
            made.ids[key] = _number(row["concept_id"], path, number, "concept_id")
            made.displays[key] = row.get("display") or ""
        return made

    def concept(self, domain: str, system: str | None, code: str | None, display: str | None = "") -> int:
        """The concept_id, 0 when it is not known yet; then the code is listed for somebody to complete."""
        key = (domain, system or "", code or "")
        if not key[2]:
            return NO_CONCEPT
        self.displays.setdefault(key, display or "")
        return self.ids.setdefault(key, NO_CONCEPT)

    def concept_or_none(
        self, domain: str, system: str | None, code: str | None, display: str | None = ""
    ) -> int | None:
        """The same for a column that may be empty."""
        return self.concept(domain, system, code, display) or None

    @property
    def missing(self) -> int:
        """How many codes have no concept yet."""
        return sum(id_ == NO_CONCEPT for id_ in self.ids.values())

    def as_csv(self) -> bytes:
        rows = [
            dict(zip(CONCEPT_COLUMNS, (*key, self.displays[key], id_), strict=True))
            for key, id_ in sorted(self.ids.items())
        ]
        return _written(CONCEPT_COLUMNS, rows)


def _lines(path: Path, needed: tuple[str, ...]) -> Iterable[tuple[int, Mapping[str, str]]]:
    if not path.exists():
        return
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if not set(needed) <= set(reader.fieldnames or ()):
                raise InvalidQuery(f"{path}: its first line must name the columns {', '.join(needed)}")
            for row in reader:
                if any(row[name] is None for name in needed):
                    raise InvalidQuery(f"{path} line {reader.line_num}: a column is missing")
                yield reader.line_num, row
    except (UnicodeDecodeError, csv.Error):
        raise InvalidQuery(f"{path}: not a CSV file in UTF-8") from None


def _number(text: str, path: Path, line: int, column: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= LARGEST):
        raise InvalidQuery(f"{path} line {line}: {column} must be a whole number from 0 to {LARGEST}")
    return int(text)


def _written(columns: tuple[str, ...], rows: Iterable[Mapping[str, object]]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()
