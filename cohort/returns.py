"""What a question can return of each unit, and what a name among its columns means. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from bridge.errors import InvalidQuery
from cohort.kinds import KEYS, KINDS, LINKED, above

Columns = Mapping[str, Mapping[str, str]]
"""table → column → DuckDB type: what the lake's tables have."""

TEXTS, JSON = "VARCHAR[]", "JSON"
"""What is known of an answer's column: a list of texts, or that as JSON."""

FOUND_UNITS, SHOWN_PEOPLE = "found_units", "shown_people"
"""Tables of a statement of rows under pseudonyms: all units that were found (`_patient`, `_person` and what tells them
apart), and the patients (`_patient`) whose rows are shown."""


class Form(Enum):
    """How a returned column is found."""

    PLAIN = auto()  # a column of the unit, or of the one study, series or patient it belongs to
    LIST = auto()  # the values of a column in all rows of a table that belong to the unit: distinct, sorted
    COMPUTED = auto()
    NAMED = auto()  # a list with rules of its own


@dataclass(frozen=True)
class Returned:
    """A returned column: `kind` whose column it is (PLAIN), `table` and the id columns it is joined by: `key` of the
    table equals the unit's `level` (id, series, study, patient)."""

    name: str
    form: Form
    kind: str = ""
    table: str = ""
    column: str = ""
    level: str = ""
    key: str = ""


COMPUTED = ("age_years", "age_decade", "age_at_day_years", "age_at_index_years", "index_date", "day",
            "started_month", "started_year")  # fmt: skip
"""Ages are true ages, in whole years: on the day asked, on the unit's day, on the index event's day."""

NAMED: Mapping[str, tuple[str, ...]] = {
    "reports": ("study", "patient"),
    "report_ids": ("study", "patient"),
    "medications": ("patient",),
    "endpoints": ("study",),
}
"""Lists with rules: reports that are not cancelled or erroneous, in order of issue; orders for medication that are no
drafts, cancelled or erroneous; where a study can be fetched. → levels, the nearest of which counts."""

SHORT = {"identifiers": "patient_identifier.value", "modalities": "imaging_study_modality.modality"}
"""Names of lists; the second where a generation does not have the column."""
_TESTED = ("VARCHAR", "BOOLEAN", "INTEGER", "BIGINT", "DOUBLE", "DATE")


def levels(unit: str) -> tuple[str, ...]:
    """What a unit's row belongs to, nearest first.

    >>> levels("series"), levels("report")
    (('series', 'study', 'patient'), ('patient',))
    """
    single = () if unit in LINKED else KINDS[unit].levels
    return (*reversed(single), "patient")


def returned(unit: str, name: str, columns: Columns) -> Returned:
    """What a name means for a unit. Raises InvalidQuery saying what is possible."""
    if name in NAMED:
        found = [level for level in NAMED[name] if level in levels(unit)]
        if not found:
            raise InvalidQuery(f"{name} cannot be had for each {unit}")
        return Returned(name, Form.NAMED, level=found[0])
    if name in COMPUTED:
        if unit == "patient" and name in ("day", "age_at_day_years"):
            raise InvalidQuery(f"{name}: a patient has no day; index_date and age_at_index_years are the index event's")
        if name.startswith("started_") and "study" not in (unit, *above(unit)):
            raise InvalidQuery(f"{name} cannot be had for each {unit}")
        return Returned(name, Form.COMPUTED)
    held = any(name in columns[KINDS[k].table] for k in (unit, *above(unit)))
    prefix, _, column = (name if held else SHORT.get(name, name)).rpartition(".")
    for kind in (unit, *above(unit)):
        if prefix in ("", kind) and column in columns[KINDS[kind].table]:
            return Returned(name, Form.PLAIN, kind=kind, column=column)
    if not prefix or column not in columns.get(prefix, {}):
        known = ", ".join(dict.fromkeys(c for k in (unit, *above(unit)) for c in columns[KINDS[k].table]))
        raise InvalidQuery(f"no such column; of each {unit}: {known}, {', '.join((*COMPUTED, *NAMED, *SHORT))}; "
                           "or TABLE.COLUMN, a list")  # fmt: skip
    return _listed(unit, name, prefix, column, columns)


def _listed(unit: str, name: str, table: str, column: str, columns: Columns) -> Returned:
    ids = {unit: KEYS[unit]} if unit in KEYS else {"id": KINDS[unit].id}
    ids |= {level: KEYS[level] for level in levels(unit)}
    for level, key in ids.items():
        if key in columns[table] and columns[table][column] in _TESTED:
            return Returned(name, Form.LIST, table=table, column=column, level=level, key=key)
    raise InvalidQuery(f"{table}.{column} cannot be had for each {unit}")
