"""The ready questions as a person would write them, over one Parquet file for each type with ids as text. Written
apart from the compiler: they judge its answers, and are what it is measured beside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

from bench.population import ATC, LOINC, SCT, TODAY
from bench.population_files import NAIVE

MACROS = (
    "full_years(born, day) AS CASE WHEN born <= day THEN "
    "year(day) - year(born) - (strftime(day, '%m%d') < strftime(born, '%m%d'))::INT END",
    "standing(status) AS status NOT IN ('cancelled', 'entered-in-error')",
    "prescribed(status, intent) AS status NOT IN ('draft', 'cancelled', 'entered-in-error') "
    "AND intent IN ('order', 'original-order', 'reflex-order', 'filler-order', 'instance-order')",
)
_REPORTS = """
    (SELECT study_instance_uid AS uid, list(id ORDER BY issued_time, id) AS report_ids,
            list(coalesce(text, conclusion) ORDER BY issued_time, id) AS reports
     FROM diagnostic_report WHERE standing(status) GROUP BY ALL)"""
_MEDICATIONS = """
    (SELECT patient_id, list_sort(list(DISTINCT medication_display || ' (' || authored_date || ')')) AS medications
     FROM medication_request WHERE prescribed(status, intent) GROUP BY ALL)"""
_CT = "status = 'available' AND list_contains(modalities, 'CT')"
_CT_OR_MR = "status = 'available' AND (list_contains(modalities, 'CT') OR list_contains(modalities, 'MR'))"
_OSTEOSARCOMA = "('307576001', '21708004', '1163405004')"

QUERIES = {
    "ai-finding-not-in-report": f"""
        SELECT f.id, f.patient_id, f.device, f.day FROM finding f
        WHERE f.code_system = '{SCT}' AND f.code = '36118008' AND f.value_code = '52101004' AND standing(f.status)
          AND EXISTS (SELECT 1 FROM diagnostic_report r WHERE r.study_instance_uid = f.study_instance_uid
                      AND r.status IN ('final', 'amended', 'corrected'))
          AND NOT EXISTS (SELECT 1 FROM diagnostic_report r WHERE r.study_instance_uid = f.study_instance_uid
                          AND r.status IN ('final', 'amended', 'corrected')
                          AND concat_ws(' ', r.text, r.conclusion) ILIKE '%pneumothorax%')""",
    "antibiotics-after-chest-x-ray": f"""
        WITH first AS (
            SELECT patient_id, min(started_date) AS index_date FROM imaging_study
            WHERE status = 'available' AND study_instance_uid IN (
                SELECT study_instance_uid FROM series WHERE modality IN ('CR', 'DX') AND body_part = 'CHEST')
            GROUP BY ALL)
        SELECT m.id, m.patient_id, m.authored_date, index_date, m.medication_display
        FROM medication_request m JOIN first USING (patient_id)
        WHERE m.medication_system = '{ATC}' AND m.medication_code = 'J01CA04' AND prescribed(m.status, m.intent)
          AND m.authored_date BETWEEN index_date AND index_date + 3
          AND m.patient_id IN (SELECT patient_id FROM condition WHERE code_system = '{SCT}' AND code = '233604007'
                               AND verification_status NOT IN ('refuted', 'entered-in-error'))""",
    "cancer-staging": f"""
        WITH first AS (
            SELECT patient_id, min(coalesce(onset_date, recorded_date)) AS index_date FROM condition
            WHERE code_system = '{SCT}' AND code IN ('363346000', '254637007', '254837009', '307576001')
              AND verification_status NOT IN ('refuted', 'entered-in-error') GROUP BY ALL),
        staged AS (
            SELECT patient_id, index_date FROM first JOIN imaging_study s USING (patient_id), unnest(s.modalities) t(m)
            WHERE s.status = 'available' AND m IN ('CT', 'MR', 'US', 'PT')
              AND s.started_date BETWEEN index_date - 60 AND index_date + 60
            GROUP BY ALL HAVING count(DISTINCT m) >= 2)
        SELECT patient_id, index_date, full_years(p.birth_date, index_date), p.gender,
               (SELECT list_sort(list(DISTINCT c.code)) FROM condition c WHERE c.patient_id = staged.patient_id)
        FROM staged JOIN patient p USING (patient_id)""",
    "chemotherapy-response": f"""
        WITH first AS (
            SELECT patient_id, min(authored_date) AS index_date FROM medication_request
            WHERE medication_system = '{ATC}' AND prescribed(status, intent)
              AND medication_code IN ('L01XA01', 'L01XA02', 'L01DB01', 'L01BA01', 'L01AA06') GROUP BY ALL)
        SELECT patient_id, index_date, full_years(p.birth_date, index_date), m.medications
        FROM first f JOIN patient p USING (patient_id) JOIN {_MEDICATIONS} m USING (patient_id)
        WHERE EXISTS (SELECT 1 FROM imaging_study s WHERE s.patient_id = f.patient_id AND {_CT_OR_MR}
                      AND s.started_date BETWEEN f.index_date - 60 AND f.index_date)
          AND EXISTS (SELECT 1 FROM imaging_study s WHERE s.patient_id = f.patient_id AND {_CT_OR_MR}
                      AND s.started_date BETWEEN f.index_date + 1 AND f.index_date + 120)""",
    "contrast-ct-high-creatinine": f"""
        WITH asked AS (
            SELECT * FROM imaging_study WHERE status = 'available' AND study_instance_uid IN (
                SELECT study_instance_uid FROM series WHERE modality = 'CT' AND contrast_bolus_agent IS NOT NULL)),
        last AS (
            SELECT study_instance_uid, arg_max(value_number, (effective_date, o.id)) AS value
            FROM asked a JOIN observation o USING (patient_id)
            WHERE o.code_system = '{LOINC}' AND o.code = '2160-0' AND o.value_unit = 'mg/dL' AND standing(o.status)
              AND o.effective_date BETWEEN a.started_date - 30 AND a.started_date
            GROUP BY ALL)
        SELECT patient_id, study_instance_uid, started_date, full_years(birth_date, started_date)
        FROM asked JOIN last USING (study_instance_uid) JOIN patient USING (patient_id) WHERE value > 1.5""",
    "ct-dose": f"""
        SELECT i.study_instance_uid, i.sop_instance_uid, i.ctdi_vol_mgy, i.kvp_kv, i.x_ray_tube_current_ma,
               coalesce(i.acquisition_date, s.started_date) AS day, e.manufacturer
        FROM instance i JOIN series e USING (series_instance_uid)
        JOIN imaging_study s ON s.study_instance_uid = i.study_instance_uid
        WHERE i.ctdi_vol_mgy > 20 AND e.modality = 'CT' AND s.status = 'available'
          AND day BETWEEN DATE '{TODAY}' - INTERVAL 5 YEAR AND DATE '{TODAY}'""",
    "ct-slice-thickness": """
        SELECT manufacturer, manufacturer_model_name, slice_thickness_mm, kvp_kv, convolution_kernel,
               count(*), count(DISTINCT patient_id)
        FROM series JOIN imaging_study USING (study_instance_uid)
        WHERE modality = 'CT' AND status = 'available' GROUP BY ALL""",
    "imaging-without-report": f"""
        SELECT patient_id, [mrn], study_instance_uid, started_date, modalities, description, accession_number
        FROM imaging_study s JOIN patient USING (patient_id)
        WHERE s.status = 'available' AND started_date BETWEEN DATE '{TODAY}' - INTERVAL 5 YEAR AND DATE '{TODAY}'
          AND NOT EXISTS (SELECT 1 FROM diagnostic_report r WHERE r.study_instance_uid = s.study_instance_uid
                          AND standing(r.status))""",
    "inpatient-studies": """
        SELECT patient_id, study_instance_uid, started_date, modalities FROM imaging_study s
        WHERE s.status = 'available' AND EXISTS (
            SELECT 1 FROM encounter e WHERE e.patient_id = s.patient_id AND e.class_code = 'IMP'
            AND standing(e.status) AND e.start_date <= s.started_date
            AND (e.end_date IS NULL OR e.end_date >= s.started_date))""",
    "lung-nodule-without-follow-up": f"""
        SELECT patient_id, [mrn], study_instance_uid, started_date, full_years(birth_date, started_date), r.reports
        FROM imaging_study s JOIN patient USING (patient_id) JOIN {_REPORTS} r ON r.uid = study_instance_uid
        WHERE {_CT} AND started_date <= DATE '{TODAY}' - 365
          AND EXISTS (SELECT 1 FROM diagnostic_report d WHERE d.study_instance_uid = s.study_instance_uid
                      AND standing(d.status) AND concat_ws(' ', d.text, d.conclusion) ILIKE '%nodule%')
          AND NOT EXISTS (SELECT 1 FROM imaging_study o WHERE o.patient_id = s.patient_id
                          AND o.status = 'available' AND list_contains(o.modalities, 'CT')
                          AND o.started_date > s.started_date AND o.started_date <= s.started_date + 365)""",
    "mr-knee-before-arthroscopy": f"""
        WITH first AS (SELECT patient_id, min(performed) AS index_date FROM procedure
                       WHERE code_system = '{SCT}' AND code = '309431009' AND status = 'completed' GROUP BY ALL)
        SELECT patient_id, study_instance_uid, started_date, index_date
        FROM imaging_study s JOIN first USING (patient_id)
        WHERE s.status = 'available' AND started_date BETWEEN index_date - 90 AND index_date
          AND study_instance_uid IN (SELECT study_instance_uid FROM series
                                     WHERE modality = 'MR' AND body_part = 'KNEE')""",
    "osteosarcoma-ct": f"""
        SELECT patient_id, [mrn], full_years(birth_date, DATE '{TODAY}'), gender, study_instance_uid, started_date,
               description, number_of_series, number_of_instances,
               ['https://pacs.example/dicom-web/studies/' || study_instance_uid],
               coalesce(r.report_ids, []), coalesce(r.reports, []), coalesce(m.medications, [])
        FROM imaging_study s JOIN patient USING (patient_id)
        LEFT JOIN {_REPORTS} r ON r.uid = study_instance_uid LEFT JOIN {_MEDICATIONS} m USING (patient_id)
        WHERE {_CT} AND birth_date < DATE '{TODAY}' - INTERVAL 45 YEAR AND patient_id IN (
            SELECT patient_id FROM condition
            WHERE code_system = '{SCT}' AND code IN {_OSTEOSARCOMA}
              AND verification_status NOT IN ('refuted', 'entered-in-error')
              AND coalesce(onset_date, recorded_date) BETWEEN DATE '{TODAY}' - INTERVAL 2 YEAR AND DATE '{TODAY}')""",
    "paediatric-ct": f"""
        SELECT year(started_date), full_years(birth_date, started_date) AS age, count(*), count(DISTINCT patient_id)
        FROM imaging_study JOIN patient USING (patient_id) WHERE {_CT} AND age < 18 GROUP BY ALL""",
    "patients-by-age": f"""
        SELECT full_years(birth_date, DATE '{TODAY}') // 10 * 10, gender, count(*) FROM patient
        WHERE patient_id IN (SELECT patient_id FROM imaging_study WHERE status = 'available') GROUP BY ALL""",
    "repeated-ct": f"""
        SELECT patient_id, [mrn], full_years(birth_date, DATE '{TODAY}'), gender FROM patient
        WHERE patient_id IN (
            SELECT patient_id FROM imaging_study
            WHERE {_CT} AND started_date BETWEEN DATE '{TODAY}' - INTERVAL 1 YEAR AND DATE '{TODAY}'
            GROUP BY patient_id HAVING count(*) >= 3)""",
    "reports-with-words": """
        SELECT r.id, r.patient_id, r.status, r.effective_date, full_years(birth_date, r.effective_date),
               [r.study_instance_uid]
        FROM diagnostic_report r JOIN imaging_study s USING (study_instance_uid)
        JOIN patient p ON p.patient_id = r.patient_id
        WHERE standing(r.status) AND concat_ws(' ', r.text, r.conclusion) ILIKE '%nodule%'
          AND s.status = 'available' AND list_contains(s.modalities, 'CT')""",
    "series-per-modality": """
        SELECT date_trunc('month', started_date)::DATE, modality, count(*), count(DISTINCT patient_id)
        FROM series JOIN imaging_study USING (study_instance_uid) WHERE status = 'available' GROUP BY ALL""",
    "stroke-imaged-within-a-day": f"""
        WITH first AS (SELECT patient_id, min(coalesce(onset_date, recorded_date)) AS index_date FROM condition
                       WHERE code_system = '{SCT}' AND code = '230690007'
                         AND verification_status NOT IN ('refuted', 'entered-in-error', 'differential') GROUP BY ALL)
        SELECT patient_id, index_date, full_years(birth_date, index_date) AS age, gender
        FROM first f JOIN patient USING (patient_id)
        WHERE age >= 18 AND EXISTS (SELECT 1 FROM imaging_study s WHERE s.patient_id = f.patient_id AND {_CT_OR_MR}
                                    AND s.started_date BETWEEN f.index_date AND f.index_date + 1)""",
    "studies-with-several-reports": f"""
        SELECT patient_id, study_instance_uid, started_date, r.report_ids, r.reports
        FROM imaging_study s JOIN {_REPORTS} r ON r.uid = study_instance_uid
        WHERE s.status = 'available' AND len(r.report_ids) >= 2""",
    "thin-slice-chest-ct": """
        SELECT study_instance_uid, series_instance_uid, manufacturer, manufacturer_model_name, slice_thickness_mm,
               convolution_kernel, full_years(birth_date, coalesce(series_date, started_date)) AS age, gender
        FROM series JOIN imaging_study s USING (study_instance_uid) JOIN patient USING (patient_id)
        WHERE modality = 'CT' AND body_part IN ('CHEST', 'THORAX') AND slice_thickness_mm <= 1.25 AND age >= 18
          AND s.status = 'available' AND EXISTS (
              SELECT 1 FROM diagnostic_report r WHERE r.study_instance_uid = s.study_instance_uid
              AND standing(r.status))""",
}


def connect(folder: Path, *, memory_limit_mb: int, threads: int = 2) -> Any:
    """A DuckDB that sees the Parquet files of a folder as tables."""
    db = duckdb.connect(
        config={
            "threads": threads, "memory_limit": f"{memory_limit_mb}MB", "temp_directory": str(folder / "spill"),
        }
    )  # fmt: skip
    for name in NAIVE:
        db.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{folder}/{name}.parquet')")
    for macro in MACROS:
        db.execute(f"CREATE MACRO {macro}")
    return db
