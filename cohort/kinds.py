"""The kinds of rows a cohort question can speak of: which table, which day, which codes, what they belong to. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One kind of event or unit.

    Result  `table` and its `id` column; `day` the first of these columns that is present; `end` likewise, where the
            fact lasts (absent: not ended), else () and it ends on its day; `codes` (system, code) columns;
            `codings` True when the table has a row for each coding; `levels` what a row belongs to besides a
            patient: study, series
    """

    name: str
    table: str
    id: str
    day: tuple[str, ...] = ()
    end: tuple[str, ...] = ()
    codes: tuple[str, str] | None = None
    codings: bool = False
    levels: tuple[str, ...] = ()


_ALL = (
    Kind("patient", "patient", "patient_id"),
    Kind("condition", "condition", "condition_id", ("onset_date", "recorded_date"), ("abatement_date",),
         ("code_system", "code"), True),
    Kind("medication", "medication_request", "medication_request_id", ("authored_date",), (),
         ("medication_system", "medication_code"), True),
    Kind("procedure", "procedure", "procedure_id", ("performed_date", "performed_start_date"), (),
         ("code_system", "code"), True),
    Kind("implant", "procedure_device", "procedure_id", ("performed_date", "performed_start_date"), (),
         ("type_system", "type_code"), True),
    Kind("encounter", "encounter", "encounter_id", ("start_time",), ("end_time",), ("type_system", "type_code")),
    Kind("observation", "observation", "observation_id", ("effective_date",), (), ("code_system", "code"), True),
    Kind("report", "diagnostic_report", "diagnostic_report_id", ("effective_date", "issued_time"), (),
         ("code_system", "code"), False, ("study",)),
    Kind("finding", "imaging_finding", "observation_id", ("effective_time", "issued_time"), (),
         ("code_system", "code"), True, ("study",)),
    Kind("study", "imaging_study", "study_instance_uid", ("started_date",), (), None, False, ("study",)),
    Kind("series", "dicom_series", "series_instance_uid", ("series_date", "started_date"), (), None, False,
         ("study", "series")),
    Kind("acquisition", "dicom_instance", "sop_instance_uid", ("acquisition_date", "started_date"), (), None, False,
         ("study", "series")),
)  # fmt: skip

KINDS: Mapping[str, Kind] = {k.name: k for k in _ALL}
"""name in a document → kind. `started_date` of a series or an acquisition is its study's."""

LEVELS: Mapping[str, str] = {
    "patient": "patient_id", "study": "study_instance_uid", "series": "series_instance_uid",
    "report": "diagnostic_report_id",
}  # fmt: skip
"""what rows belong to, or are → the column that says so."""

KEYS: Mapping[str, str] = {
    "patient": "patient_key", "study": "study_key", "series": "series_key", "report": "report_key"
}  # fmt: skip
"""what rows belong to, or are → the column with the integer key of that id, which joins use."""

OF_STUDIES = ("diagnostic_report_study", "imaging_endpoint", "imaging_study_modality")
"""Tables of what belongs to a study. They say whose it is too, so that few of their rows need be read."""

DISPUTED = "disputed_study"
"""The table of studies about whose patient there is no agreement: what belongs to any other study names its patient."""

MODALITIES, MODALITIES_TEXT = "modalities", "modalities_in_study"
"""The columns of a study with the modalities of all its ImagingStudies: a list, and a text, each in backslashes."""

ABOUT_STUDY = ("status",)
"""Columns of a report that the table of the studies it is about has too."""

BY_CODE: Mapping[str, str] = {"condition": "condition_by_code"}
"""table → the one with the same rows in the order of their codes, for questions about few codes."""

ABOVE: Mapping[str, tuple[str, ...]] = {
    "series": ("study", "patient"),
    "acquisition": ("series", "study", "patient"),
    "patient": (),
}
"""unit → the units that one of it belongs to, each exactly one; ("patient",) where nothing is said."""

DERIVED: Mapping[str, Mapping[str, str]] = {
    "study": {"modality": "MODALITY"},
    "report": {"text": "VARCHAR"},
    "implant": {
        "type_system": "VARCHAR", "type_code": "VARCHAR", "manufacturer": "VARCHAR", "model": "VARCHAR",
        "diameter_number": "DOUBLE", "diameter_unit": "VARCHAR",
    },
}  # fmt: skip
"""kind → columns it has besides its table's: modality, those of its series; text, report_text and conclusion; of an
implant, those of the device."""


LINKED = ("report", "finding")
"""Kinds of which one row may be about several studies; the tables that say which are joined where it matters."""


def key_column(kind: str) -> str:
    """The column that tells a kind's rows apart: an integer key where there is one.

    >>> key_column("report"), key_column("finding")
    ('report_key', 'observation_id')
    """
    return KEYS.get(kind, KINDS[kind].id)


def above(unit: str) -> tuple[str, ...]:
    """The units that one row of this unit belongs to, nearest first.

    >>> above("series")
    ('study', 'patient')
    """
    return ABOVE.get(unit, ("patient",))


def scope(unit: str, kind: str, of: str = "") -> str:
    """Whose rows a criterion speaks of: `self`, `series`, `study` or `patient`; the nearest both have, or as told.

    >>> scope("study", "series"), scope("study", "condition"), scope("study", "study")
    ('study', 'patient', 'self')
    """
    if of:
        return of
    if unit == kind:
        return "self"
    shared = [level for level in KINDS[unit].levels if level in KINDS[kind].levels]
    return shared[-1] if shared else "patient"
