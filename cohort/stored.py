"""What the files of each table hold: the columns questions see, and columns of the lake's own, which begin with `_`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from cohort.kinds import BY_CODE, DISPUTED
from cohort.schema import catalogue, dicom_tables, view_tables

RESOURCE = {
    "_hash": "BIGINT",
    "_key": "VARCHAR",
    "_revision": "BIGINT",
    "origin": "VARCHAR",
    "id": "VARCHAR",
    "deleted": "BOOLEAN",
    "json": "VARCHAR",
}
"""The tables `resource_TYPE`. `_key` is origin/id, `_hash` its key (cohort.keys)."""

OWN_IDENTIFIER, OWN_REPORT_STUDY, LINK, ROWS_REVISION = (
    "own_identifier", "own_report_study", "patient_link", "rows_revision",
)  # fmt: skip
"""Identifiers and report links as resources state them; imaging patient → clinical patient; revisions of DICOM rows."""

_DECIDED = ("patient", "patient_identifier", "diagnostic_report_study")
"""Tables of views whose rows the fold decides from tables of resources' own statements."""

_CLUSTERED_BY = (
    "patient_key", "subject_key", "study_key", "series_key", "code", "medication_code", "onset_date", "authored_date",
    "effective_date", "performed_date", "started_date", "_hash",
)  # fmt: skip


@lru_cache(maxsize=1)
def stored_tables() -> Mapping[str, Mapping[str, str]]:
    """table → column → DuckDB type, for every table but the `resource_TYPE` ones."""
    rows = {"_hash": "BIGINT", "_key": "VARCHAR"}
    found = {LINK: {"imaging_id": "VARCHAR", "imaging_key": "BIGINT", "clinical_id": "VARCHAR"} | rows}
    found[ROWS_REVISION] = {"_revision": "BIGINT"} | rows
    for name, schema in catalogue().items():
        found[name] = {c.name: c.type for c in schema.columns} | rows
        if name in view_tables() and {"patient_id", "subject_key"} & set(found[name]) and name not in _DECIDED:
            found[name] |= {"_own_patient_id": "VARCHAR", "_own_patient_key": "BIGINT"}
    for name, copy in BY_CODE.items():
        found[copy] = found[name]
    views = view_tables()
    own = {c.name: c.type for c in views["patient_identifier"].schema.columns}
    found[OWN_IDENTIFIER] = own | {"patient_key": "BIGINT", "_origin": "VARCHAR"} | rows
    own = {c.name: c.type for c in views["diagnostic_report_study"].schema.columns}
    keys = {"patient_key": "BIGINT", "study_key": "BIGINT", "report_key": "BIGINT"}
    found[OWN_REPORT_STUDY] = own | keys | {"_own_patient_id": "VARCHAR", "_own_patient_key": "BIGINT"} | rows
    return found


def columns_of(table: str) -> Mapping[str, str]:
    """column → DuckDB type of a stored table."""
    return RESOURCE if table.startswith("resource_") else stored_tables()[table]


def clustered_by(table: str) -> str:
    """The ORDER BY of a table's files: a person's rows stand together, then a study's, then by code and time."""
    first = ("code", "code_system") if table in BY_CODE.values() else ()
    return ", ".join(c for c in dict.fromkeys((*first, *_CLUSTERED_BY)) if c in columns_of(table))


def told_apart_by(table: str) -> str:
    """The columns, by comma, that tell whose a row is. `_hash` is enough where rows come from resources: no two of one
    type have the same (cohort.arrivals), and it is read several times faster than `_key`."""
    decided = (OWN_REPORT_STUDY, LINK, DISPUTED, *BY_CODE.values())
    from_resources = table.startswith("resource_") or table in view_tables() or table in decided
    return "_hash" if from_resources and table != "patient_identifier" else "_hash, _key"


def linked_tables() -> tuple[str, ...]:
    """Tables whose rows follow the person when an imaging patient turns out to be a clinical one."""
    copies = BY_CODE.values()
    return tuple(n for n, columns in stored_tables().items() if "_own_patient_key" in columns and n not in copies)


def is_dicom(table: str) -> bool:
    """Whether a table comes from DICOM headers, not from resources."""
    return table in dicom_tables()
