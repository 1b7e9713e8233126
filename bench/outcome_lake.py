"""A lake with predictions and the clinical facts that decide them, made by SQL. For bench.outcomes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.lake_seed import NOW, SCT, fill, person
from cohort.generation import Generations
from cohort.store.place import in_folder
from cohort.tables import Tables

LOINC, PATHOLOGY = "http://loinc.org", "22637-3"
CANCER, BENIGN, NODULE = "254637007", "110396000", "427359005"


@dataclass(frozen=True)
class Sizes:
    """Predictions, each of a study of its own; half as many patients; clinical facts in all."""

    predictions: int
    facts: int

    @property
    def patients(self) -> int:
        return self.predictions // 2


def tables_sql(sizes: Sizes) -> dict[str, str]:
    """table → SQL of its rows. Studies lie between 2018 and 2023, facts between 2016 and 2025. One in three facts is a
    pathology report, most of them without malignancy; conditions are of 3,000 kinds, one of a hundred cancer."""
    p, facts = sizes.patients, sizes.facts
    patient = person(f"(hash(n) % {p})")
    day = "(DATE '2016-01-01' + (hash(n + 5) % 3650)::INT)"
    studied = "(DATE '2018-01-01' + (hash(n + 13) % 2190)::INT)"
    uid = "('2.25.' || (1000000000 + n))"
    pathology, conditions, procedures, visits = facts // 3, facts // 3, facts // 6, facts // 6
    condition = f"CASE WHEN hash(n + 7) % 100 = 0 THEN '{CANCER}' ELSE (100000000 + hash(n + 7) % 3000)::VARCHAR END"
    return {
        "patient": f"""
            SELECT {person("n")} AS id, id AS patient_id, (DATE '1930-01-01' + (hash(n) % 25000)::INT) AS birth_date,
                   CASE WHEN n % 2 = 0 THEN 'female' ELSE 'male' END AS gender,
                   CASE WHEN n % 50 = 0 THEN DATE '2022-01-01' + (hash(n + 1) % 1200)::INT END AS deceased_date
            FROM range({p}) t(n)""",
        "device": """
            SELECT 'd' || n AS id, id AS device_id, 'active' AS status, 'LungNet' AS model, (n + 1) || '.0' AS version
            FROM range(2) t(n)""",
        "imaging_study": f"""
            SELECT md5('s' || n) AS id, id AS imaging_study_id, {uid} AS study_instance_uid, {patient} AS patient_id,
                   'available' AS status, {studied} AS started_date FROM range({sizes.predictions}) t(n)""",
        "dicom_study": f"""
            SELECT {uid} AS id, id AS study_instance_uid, 'Hospital ' || hash(n + 3) % 5 AS institution_name
            FROM range({sizes.predictions}) t(n)""",
        "dicom_series": f"""
            SELECT {uid} || '.' || s AS id, id AS series_instance_uid, {uid} AS study_instance_uid, s AS series_number,
                   'CT' AS modality, 'Maker ' || hash(n + 4) % 3 AS manufacturer,
                   'Scanner ' || hash(n + 4) % 9 AS manufacturer_model_name
            FROM range({sizes.predictions}) t(n), range(1, 3) u(s)""",
        "imaging_finding": f"""
            SELECT md5('f' || n) AS id, id AS observation_id, {patient} AS patient_id, 'preliminary' AS status,
                   true AS asserted_by_ai, false AS asserted_by_clinician,
                   {studied}::TIMESTAMP AT TIME ZONE 'UTC' AS issued_time, '{SCT}' AS code_system, '{NODULE}' AS code,
                   CASE WHEN hash(n + 21) % 1000 >= 400 THEN '52101004' ELSE '2667000' END AS value_code,
                   (hash(n + 22) % 1001) / 10.0 AS confidence_percent, 'd' || hash(n + 23) % 2 AS device_id,
                   md5('s' || n) AS imaging_study_id, {uid} AS study_instance_uid
            FROM range({sizes.predictions}) t(n)""",
        "observation": f"""
            SELECT md5('o' || n) AS id, id AS observation_id, {patient} AS patient_id, 'final' AS status,
                   {day} AS effective_date, '{LOINC}' AS code_system, '{PATHOLOGY}' AS code,
                   CASE WHEN hash(n + 8) % 5 = 0 THEN '{CANCER}' ELSE '{BENIGN}' END AS value_code
            FROM range({pathology}) t(n)""",
        "condition": f"""
            SELECT md5('c' || n) AS id, id AS condition_id, {patient} AS patient_id, {day} AS onset_date,
                   'confirmed' AS verification_status, '{SCT}' AS code_system, {condition} AS code
            FROM range({conditions}) t(n)""",
        "procedure": f"""
            SELECT md5('q' || n) AS id, id AS procedure_id, {patient} AS patient_id, 'completed' AS status,
                   {day} AS performed_date, '{SCT}' AS code_system, (200000000 + hash(n) % 500)::VARCHAR AS code
            FROM range({procedures}) t(n)""",
        "encounter": f"""
            SELECT md5('e' || n) AS id, id AS encounter_id, {patient} AS patient_id, 'finished' AS status,
                   {day}::TIMESTAMP AT TIME ZONE 'UTC' AS start_time FROM range({visits}) t(n)""",
    }


def seed(root: Path, sizes: Sizes) -> None:
    """A lake with one generation."""
    place = in_folder(root)
    generations = Generations(place.store, place.files)
    head = generations.head()
    with place.scratch() as scratch, Tables(place.files, scratch, head.next_id, {}) as tables:
        for table, rows in tables_sql(sizes).items():
            fill(tables, table, rows)
        manifest = tables.manifest()
    place.files.keep(tables.made)
    generations.publish(head, NOW, manifest, lambda _stage: None)
