"""A cohort's images as OMOP tables: `image_occurrence` and `image_feature` of the Medical Imaging CDM for CDM 5.4,
with the `procedure_occurrence` and `measurement` rows that they refer to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cohort.answer import Answer
from cohort.engine.parquet import parquet
from cohort.manifest import ADDRESSES, series_addresses
from cohort.omop_maps import CONCEPTS, PERSONS, ConceptMap, PersonMap
from cohort.render import as_csv
from cohort.selection import Selection

Format = Literal["csv", "parquet"]
Row = dict[str, Any]
LEFT_OUT = "left_out.csv"
DCM = "http://dicom.nema.org/resources/ontology/DCM"
MEASUREMENT_FIELD = "measurement.measurement_id"
_I, _T, _D, _M = "INTEGER", "VARCHAR", "DATE", "TIMESTAMP"

TABLES: Mapping[str, Sequence[tuple[str, str, bool]]] = {
    "procedure_occurrence": (
        ("procedure_occurrence_id", _I, True), ("person_id", _I, True), ("procedure_concept_id", _I, True),
        ("procedure_date", _D, True), ("procedure_type_concept_id", _I, True), ("procedure_source_value", _T, False),
    ),
    "image_occurrence": (
        ("image_occurrence_id", _I, True), ("person_id", _I, True), ("procedure_occurrence_id", _I, True),
        ("visit_occurrence_id", _I, False), ("anatomic_site_concept_id", _I, False), ("wadors_uri", _T, False),
        ("local_path", _T, False), ("image_occurrence_date", _D, True), ("image_study_uid", _T, True),
        ("image_series_uid", _T, True), ("modality_concept_id", _I, True),
    ),
    "measurement": (
        ("measurement_id", _I, True), ("person_id", _I, True), ("measurement_concept_id", _I, True),
        ("measurement_date", _D, True), ("measurement_type_concept_id", _I, True), ("value_as_number", "DOUBLE", False),
        ("value_as_concept_id", _I, False), ("unit_concept_id", _I, False), ("measurement_source_value", _T, False),
        ("unit_source_value", _T, False), ("value_source_value", _T, False),
    ),
    "image_feature": (
        ("image_feature_id", _I, True), ("person_id", _I, True), ("image_occurrence_id", _I, True),
        ("image_feature_event_field_concept_id", _I, False), ("image_feature_event_id", _I, False),
        ("image_feature_concept_id", _I, True), ("image_feature_type_concept_id", _I, True),
        ("image_finding_concept_id", _I, False), ("image_finding_id", _I, False),
        ("anatomic_site_concept_id", _I, False), ("alg_system", _T, False), ("alg_datetime", _M, False),
    ),
}  # fmt: skip
"""table → columns (name, type, NOT NULL). The first and third have the columns of CDM 5.4 that are filled here."""

_SERIES = f"""
SELECT s.patient_id, s.study_instance_uid, r.series_instance_uid, min(r.modality) AS modality,
       min(r.body_site_code) AS body_site_code, min(r.body_site_display) AS body_site_display,
       min(coalesce(r.started_date, i.started_date)) AS day, min(i.started_date) AS study_day,
       min(i.description) AS description,
       {ADDRESSES} AS addresses
FROM selected_series x JOIN selected_study s USING (study_instance_uid)
JOIN imaging_study i USING (study_instance_uid)
JOIN imaging_series r ON r.study_instance_uid = x.study_instance_uid AND r.series_instance_uid = x.series_instance_uid
GROUP BY s.patient_id, s.study_instance_uid, r.series_instance_uid
ORDER BY s.patient_id, day, s.study_instance_uid, r.series_instance_uid
"""
_FINDINGS = """
SELECT s.study_instance_uid, f.observation_id,
       min(f.code_system) AS code_system, min(f.code) AS code, min(f.code_display) AS code_display,
       min(f.value_number) AS value_number, min(f.value_unit) AS value_unit,
       min(f.value_code_system) AS value_code_system, min(f.value_code) AS value_code,
       min(f.value_display) AS value_display, min(f.value_text) AS value_text,
       min(f.body_site_system) AS body_site_system, min(f.body_site_code) AS body_site_code,
       min(f.device) AS device,
       min(replace(f.series_instance_uid, 'urn:oid:', '')) AS series_instance_uid,
       min(replace(f.tracking_uid, 'urn:oid:', '')) AS tracking_uid,
       min(coalesce(f.effective_time, f.issued_time))::DATE AS day, min(f.issued_time)::TIMESTAMP AS alg_datetime
FROM imaging_finding f JOIN imaging_study i
     ON i.study_instance_uid = f.study_instance_uid OR i.imaging_study_id = f.imaging_study_id
JOIN selected_study s ON s.study_instance_uid = i.study_instance_uid
WHERE f.asserted_by_ai AND f.status NOT IN ('entered-in-error', 'cancelled')
GROUP BY s.study_instance_uid, f.observation_id
ORDER BY s.study_instance_uid, f.observation_id
"""
_PEOPLE = """
SELECT p.patient_id, i.system, i.value FROM selected_patient p
LEFT JOIN patient_identifier i ON i.patient_id = p.patient_id
ORDER BY p.patient_id, coalesce(i.type_code = 'MR', false) DESC, i.system NULLS LAST, i.value
"""


@dataclass(frozen=True)
class Omop:
    """The tables with their maps. `left_out` (what, UID or id, why) could not be written as the tables want it."""

    tables: Mapping[str, Sequence[Row]]
    persons: PersonMap
    concepts: ConceptMap
    left_out: Sequence[tuple[str, str, str]]

    def files(self, kind: Format) -> dict[str, bytes]:
        """File name → content: the tables as CSV or Parquet, then the maps and what was left out as CSV."""
        write: Callable[[Answer], bytes] = as_csv if kind == "csv" else parquet
        found = {f"{name}.{kind}": write(_answer(name, rows)) for name, rows in self.tables.items()}
        told = Answer(tuple((n, _T) for n in ("what", "id", "reason")), tuple(self.left_out), False, "", 0.0)
        maps = {PERSONS: self.persons.as_csv(), CONCEPTS: self.concepts.as_csv()}
        return found | maps | {LEFT_OUT: as_csv(told)}


def omop(selection: Selection, persons: PersonMap, concepts: ConceptMap) -> Omop:
    """The images of a cohort: one image_occurrence for each series, one image_feature for each finding by AI.

    Result  ids count from 1 in order of patient, day and UID: all tables are replaced together. A finding is a
            feature of the series it names, or of the only series of its study
    Raises  InvalidQuery as Selection.rows does
    """
    for row in selection.rows(_PEOPLE):
        persons.identifiers.setdefault(row["patient_id"], (row["system"] or "", row["value"] or ""))
    series = selection.rows(_SERIES)
    persons.number(row["patient_id"] for row in series)
    made = _Tables(persons, concepts)
    for row in series:
        made.occurrence(row)
    if "imaging_finding" in selection.generation.tables:
        for row in selection.rows(_FINDINGS):
            made.feature(row)
    return Omop(made.tables, persons, concepts, made.left_out)


class _Tables:
    """The tables while they are made. Rows stand in the order they came: an id is a row's place."""

    def __init__(self, persons: PersonMap, concepts: ConceptMap) -> None:
        self.tables: dict[str, list[Row]] = {name: [] for name in TABLES}
        self.left_out: list[tuple[str, str, str]] = []
        self._persons, self._concepts = persons, concepts
        self._procedures: dict[str, int] = {}
        self._lesions: dict[str, int] = {}
        self._series: dict[str, dict[str, Row]] = {}

    def occurrence(self, row: Row) -> None:
        if row["day"] is None:
            self.left_out.append(("series", row["series_instance_uid"], "neither series nor study says when it began"))
            return
        concept, site = self._concepts, row["body_site_code"]
        made = {
            "person_id": self._persons.numbers[row["patient_id"]],
            "procedure_occurrence_id": self._procedure(row),
            "anatomic_site_concept_id": concept.concept_or_none("anatomic_site", "", site, row["body_site_display"]),
            "wadors_uri": next(iter(series_addresses(row)), None),
            "image_occurrence_date": row["day"],
            "image_study_uid": row["study_instance_uid"],
            "image_series_uid": row["series_instance_uid"],
            "modality_concept_id": concept.concept("modality", DCM, row["modality"]),
        }
        self._series.setdefault(row["study_instance_uid"], {})[row["series_instance_uid"]] = made
        self._add("image_occurrence", made)

    def feature(self, row: Row) -> None:
        of = self._series_of(row)
        if of is None:
            why = "its study has several series and it names none of those selected"
            self.left_out.append(("finding", row["observation_id"], why))
            return
        concept = self._concepts
        code = concept.concept("feature", row["code_system"], row["code"], row["code_display"])
        value = concept.concept_or_none("finding", row["value_code_system"], row["value_code"], row["value_display"])
        measured = self._measurement(row, of, code, value)
        lesion = row["tracking_uid"]
        made = {
            "person_id": of["person_id"],
            "image_occurrence_id": of["image_occurrence_id"],
            "image_feature_event_field_concept_id": concept.concept_or_none("field", "", MEASUREMENT_FIELD),
            "image_feature_event_id": measured,
            "image_feature_concept_id": code,
            "image_feature_type_concept_id": concept.concept("type", "", "AI", "asserted by artificial intelligence"),
            "image_finding_concept_id": value,
            "image_finding_id": self._lesions.setdefault(lesion, len(self._lesions) + 1) if lesion else None,
            "anatomic_site_concept_id": concept.concept_or_none(
                "anatomic_site", row["body_site_system"], row["body_site_code"]
            ),
            "alg_system": row["device"],
            "alg_datetime": row["alg_datetime"],
        }
        self._add("image_feature", made)

    def _procedure(self, row: Row) -> int:
        uid = row["study_instance_uid"]
        if uid not in self._procedures:
            made = {
                "person_id": self._persons.numbers[row["patient_id"]],
                "procedure_concept_id": self._concepts.concept("procedure", "", row["description"]),
                "procedure_date": row["study_day"] or row["day"],
                "procedure_type_concept_id": self._concepts.concept("type", "", "EHR"),
                "procedure_source_value": (row["description"] or "")[:50] or None,
            }
            self._procedures[uid] = self._add("procedure_occurrence", made)
        return self._procedures[uid]

    def _measurement(self, row: Row, of: Row, concept: int, value: int | None) -> int:
        shown = row["value_display"] or row["value_code"] or row["value_text"]
        made = {
            "person_id": of["person_id"],
            "measurement_concept_id": concept,
            "measurement_date": row["day"] or of["image_occurrence_date"],
            "measurement_type_concept_id": self._concepts.concept("type", "", "EHR"),
            "value_as_number": row["value_number"],
            "value_as_concept_id": value,
            "unit_concept_id": self._concepts.concept_or_none("unit", "http://unitsofmeasure.org", row["value_unit"]),
            "measurement_source_value": (row["code"] or "")[:50] or None,
            "unit_source_value": row["value_unit"],
            "value_source_value": (shown or "")[:50] or None,
        }
        return self._add("measurement", made)

    def _series_of(self, row: Row) -> Row | None:
        series = self._series.get(row["study_instance_uid"], {})
        if row["series_instance_uid"]:
            return series.get(row["series_instance_uid"])
        return next(iter(series.values())) if len(series) == 1 else None

    def _add(self, table: str, row: Row) -> int:
        rows = self.tables[table]
        row[TABLES[table][0][0]] = len(rows) + 1
        rows.append(row)
        return len(rows)


def _answer(table: str, rows: Sequence[Row]) -> Answer:
    columns = TABLES[table]
    values = tuple(tuple(row.get(name) for name, _, _ in columns) for row in rows)
    return Answer(tuple((name, kind) for name, kind, _ in columns), values, False, "", 0.0)
