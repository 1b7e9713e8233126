"""A hospital of any size, made by SQL from a seed: the facts. `bench.population_files` writes them as FHIR.

Skewed like life: a hundredth of the patients has a sixth of everything; what happens to a person happens around the
days of their visits, most of them recent; codes are Zipf-like, osteosarcoma is rare. Some thousand patients at a time
are made as tables of a DuckDB, each with the columns that a person would write a question of.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

import duckdb

TODAY = date(2026, 1, 1)
CHUNK = 5000
"""Patients made at once: memory does not grow with the hospital."""

SCT, ATC, RXNORM, LOINC = (
    "http://snomed.info/sct", "http://www.whocc.no/atc", "http://www.nlm.nih.gov/research/umls/rxnorm",
    "http://loinc.org",
)  # fmt: skip
UID_ROOT = "1.2.826.0.1.3680043.10.999"


@dataclass(frozen=True)
class Population:
    """So many patients; of each, in the mean, about so many of the rest."""

    patients: int
    seed: int
    studies: float = 10
    medications: float = 20
    conditions: float = 5
    observations: float = 10
    procedures: float = 2
    encounters: float = 4

    def chunks(self) -> Iterator[tuple[int, int]]:
        """Numbers of patients, from and up to."""
        for low in range(0, self.patients, CHUNK):
            yield low, min(low + CHUNK, self.patients)

    def make(self, db: duckdb.DuckDBPyConnection, low: int, high: int) -> None:
        """The tables of some patients, in place of those made before."""
        db.execute(f"CREATE OR REPLACE MACRO u(salt, n, k) AS (hash(n, k, salt, {self.seed}) >> 11) / 9007199254740992")
        db.execute("CREATE OR REPLACE MACRO one_of(list, chance) AS list[1 + floor(chance * len(list))::INT]")
        for name, query in self._queries(low, high).items():
            db.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {query}")

    def _queries(self, low: int, high: int) -> dict[str, str]:
        """Table → query, in an order in which each may read those before it."""
        return {
            "person": self._people(low, high),
            "visit": f"""
                SELECT n, patient_id, known, e, md5('e' || n || '.' || e) AS encounter_id,
                       greatest(DATE '{TODAY}' - floor(6570 * pow(u('day', n, e), 1.6))::INT,
                                coalesce(birth_date, DATE '1900-01-01')) AS day,
                       one_of(['AMB', 'AMB', 'AMB', 'EMER', 'IMP'], u('class', n, e)) AS class_code,
                       one_of({_shares("finished", 96, "cancelled", 3, "entered-in-error", 1)}, u('est', n, e))
                           AS status,
                       CASE WHEN class_code <> 'IMP' THEN day WHEN u('open', n, e) < 0.01 THEN NULL
                            ELSE day + 1 + floor(14 * pow(u('stay', n, e), 2))::INT END AS end_day,
                       day::VARCHAR || 'T08:00:00Z' AS start_time, end_day::VARCHAR || 'T16:00:00Z' AS end_time
                FROM (SELECT *, unnest(range(visits)) AS e FROM person)""",
            "condition": self._events("conditions", "c", _CONDITION),
            "medication_request": self._events("medications", "m", _MEDICATION),
            "observation": self._events("observations", "o", _OBSERVATION),
            "procedure": self._events("procedures", "p", _PROCEDURE),
            "imaging_study": _STUDY,
            "series": _SERIES,
            "instance": _INSTANCE,
            "diagnostic_report": _REPORT,
            "finding": _FINDING,
        }

    def _people(self, low: int, high: int) -> str:
        counts = ", ".join(
            f"floor(activity * {getattr(self, kind) - base} + {base} + u('{kind}', n, 0))::INT AS {kind}"
            for kind, base in (("conditions", 1), ("medications", 0), ("observations", 0), ("procedures", 0))
        )
        return f"""
            SELECT *, CASE WHEN known THEN md5('p' || n) ELSE imaging_patient_id END AS patient_id
            FROM (
                SELECT n, md5('i' || n) AS imaging_patient_id, 'M' || n AS mrn,
                       u('known', n, 0) < 0.97 AS known,
                       least(40, 0.39 * pow(1 - u('activity', n, 0), -0.625)) AS activity,
                       CASE WHEN u('born', n, 0) < 0.995
                            THEN DATE '{TODAY}' - floor(365.25 * 100 * pow(u('age', n, 0), 0.8))::INT END AS birth_date,
                       one_of(['female', 'male'], u('sex', n, 0)) AS gender,
                       floor(activity * {self.encounters - 1} + 1 + u('visits', n, 0))::INT AS visits,
                       CASE WHEN known AND u('imaged', n, 0) > 0.8 THEN 0 ELSE
                            greatest(CASE WHEN known THEN 0 ELSE 1 END,
                                     least(999, floor(activity * {self.studies * 1.25} + u('studies', n, 0))))::INT
                       END AS studies,
                       {counts}
                FROM range({low}, {high}) numbers(n))"""

    def _events(self, kind: str, letter: str, columns: str) -> str:
        """Rows of what happens to the patients that the hospital knows, around one of their visits."""
        return f"""
            SELECT md5('{letter}' || n || '.' || k) AS id, *, {columns}
            FROM (SELECT p.n, k, p.patient_id, encounter_id, v.day + floor(30 * pow(u('{kind}at', p.n, k), 3))::INT
                             AS day
                  FROM (SELECT *, unnest(range({kind})) AS k FROM person WHERE known) p
                  JOIN visit v ON v.n = p.n AND v.e = floor(u('{kind}visit', p.n, k) * p.visits))
            WHERE day <= DATE '{TODAY}'"""


def _shares(*shares: str | int) -> str:
    """SQL: a list of a hundred words, each as often as told."""
    pairs = zip(shares[::2], shares[1::2], strict=True)
    return "[" + ", ".join(f"'{word}'" for word, times in pairs for _ in range(int(times))) + "]"


_RANK = "floor(pow({of}, u('{salt}', n, k)))::INT"
"""From 1, a small one far more often: Zipf's law."""

_CONDITION = f"""
    u('code', n, k) AS drawn, '{SCT}' AS code_system,
    CASE WHEN drawn < 0.0005 THEN '307576001' WHEN drawn < 0.007 THEN '254637007' WHEN drawn < 0.014 THEN '254837009'
         WHEN drawn < 0.017 THEN '363346000' WHEN drawn < 0.03 THEN '233604007' WHEN drawn < 0.04 THEN '230690007'
         ELSE (900000000 + {_RANK.format(of=5000, salt="rank")})::VARCHAR END AS code,
    one_of({_shares("confirmed", 90, "provisional", 4, "differential", 2, "refuted", 3, "entered-in-error", 1)},
           u('verified', n, k)) AS verification_status,
    CASE WHEN u('onset', n, k) < 0.9 THEN day END AS onset_date, day + 1 AS recorded_date,
    CASE WHEN u('abated', n, k) < 0.3 THEN day + floor(400 * u('until', n, k))::INT END AS abatement_date
"""
_MEDICATION = f"""
    u('drug', n, k) AS drawn,
    CASE WHEN drawn < 0.04 THEN '{ATC}' ELSE '{RXNORM}' END AS medication_system,
    CASE WHEN drawn < 0.03 THEN 'J01CA04'
         WHEN drawn < 0.04 THEN one_of(['L01XA01', 'L01XA02', 'L01DB01', 'L01BA01', 'L01AA06'], u('cyto', n, k))
         ELSE (200000 + {_RANK.format(of=2000, salt="rank")})::VARCHAR END AS medication_code,
    'Drug ' || medication_code AS medication_display,
    one_of({_shares("active", 25, "completed", 60, "stopped", 9, "cancelled", 3, "draft", 2, "entered-in-error", 1)},
           u('status', n, k)) AS status,
    one_of({_shares("order", 85, "original-order", 5, "plan", 6, "proposal", 4)}, u('intent', n, k)) AS intent,
    day AS authored_date
"""
_OBSERVATION = f"""
    u('test', n, k) AS drawn, '{LOINC}' AS code_system,
    CASE WHEN drawn < 0.1 THEN '2160-0' ELSE (10000 + {_RANK.format(of=500, salt="rank")}) || '-1' END AS code,
    CASE WHEN drawn < 0.09 OR drawn >= 0.1 THEN 'mg/dL' ELSE 'umol/L' END AS value_unit,
    round(0.5 + 0.2 * pow(1 - u('value', n, k), -0.7), 2) AS value_number,
    one_of({_shares("final", 95, "corrected", 3, "cancelled", 1, "entered-in-error", 1)}, u('status', n, k)) AS status,
    day AS effective_date
"""
_PROCEDURE = f"""
    u('what', n, k) AS drawn, '{SCT}' AS code_system,
    CASE WHEN drawn < 0.02 THEN '309431009'
         ELSE (800000000 + {_RANK.format(of=1000, salt="rank")})::VARCHAR END AS code,
    one_of({_shares("completed", 93, "in-progress", 3, "not-done", 3, "entered-in-error", 1)}, u('status', n, k))
        AS status,
    u('period', n, k) < 0.3 AS lasted, day AS performed
"""
_STUDY = f"""
    SELECT *, md5('s' || n || '.' || k) AS imaging_study_id,
           '{UID_ROOT}.' || n || '.' || k AS study_instance_uid, 'A' || n || '-' || k AS accession_number,
           one_of({_shares("available", 97, "registered", 1, "cancelled", 1, "entered-in-error", 1)}, u('sst', n, k))
               AS status,
           one_of({
    _shares("CR", 24, "DX", 16, "CT", 18, "US", 18, "MR", 10, "MG", 5, "XA", 3, "RF", 2, "NM", 2, "PT", 2)
}, u('modality', n, k)) AS modality,
           CASE WHEN modality = 'PT' THEN ['CT', 'PT'] ELSE [modality] END AS modalities,
           CASE WHEN modality = 'MG' THEN 'BREAST'
                ELSE one_of(['CHEST', 'CHEST', 'CHEST', 'ABDOMEN', 'ABDOMEN', 'HEAD', 'KNEE', 'SPINE'],
                            u('part', n, k)) END AS body_part,
           modality || ' ' || lower(body_part) AS description,
           CASE WHEN modality IN ('CT', 'PT') THEN 2 + floor(4 * u('count', n, k))::INT
                WHEN modality = 'MR' THEN 4 + floor(6 * u('count', n, k))::INT
                ELSE 1 + floor(1.3 * u('count', n, k))::INT END AS number_of_series,
           CASE WHEN modality IN ('CT', 'PT', 'MR') THEN 40 + floor(300 * pow(u('images', n, k), 2))::INT
                ELSE 2 END AS images,
           number_of_series * images AS number_of_instances,
           CASE WHEN u('dated', n, k) < 0.997 THEN day END AS started_date,
           started_date::VARCHAR || 'T' || lpad((6 + floor(14 * u('hour', n, k))::INT)::VARCHAR, 2, '0') || ':30:00Z'
               AS started_time
    FROM (SELECT p.n, k, p.known, p.patient_id, p.imaging_patient_id,
                 v.day + floor(10 * pow(u('studyat', p.n, k), 3))::INT AS day
          FROM (SELECT *, unnest(range(studies)) AS k FROM person) p
          JOIN visit v ON v.n = p.n AND v.e = floor(u('studyvisit', p.n, k) * p.visits))
    WHERE day <= DATE '{TODAY}'
"""
_SERIES = """
    SELECT *, study_instance_uid || '.' || s AS series_instance_uid, s + 1 AS number,
           one_of(['Siemens', 'GE', 'Philips', 'Canon'], u('maker', n, k)) AS manufacturer,
           manufacturer || ' ' || (1 + floor(6 * u('model', n, k))::INT) AS manufacturer_model_name,
           CASE WHEN modality = 'CT' THEN one_of([0.6, 1.0, 1.25, 2.0, 3.0, 5.0, 5.0], u('slice', n, k * 16 + s))
           END::DOUBLE AS slice_thickness_mm,
           CASE WHEN modality = 'CT' THEN one_of([80, 100, 120, 120, 140], u('kvp', n, k)) END::DOUBLE AS kvp_kv,
           CASE WHEN modality = 'CT' THEN one_of(['B30f', 'B70f', 'STANDARD', 'LUNG'], u('kernel', n, k * 16 + s))
           END AS convolution_kernel,
           CASE WHEN modality = 'CT' AND u('contrast', n, k) < 0.4 AND s > 0 THEN 'Iohexol' END
               AS contrast_bolus_agent,
           CASE WHEN u('own day', n, k) < 0.9 THEN started_date END AS series_date
    FROM (SELECT n, k, study_instance_uid, images, started_date, body_part, s,
                 CASE WHEN modality = 'PT' AND s > 0 THEN 'CT' ELSE modality END AS modality
          FROM (SELECT *, unnest(range(number_of_series)) AS s FROM imaging_study))
"""
_INSTANCE = """
    SELECT *, series_instance_uid || '.1' AS sop_instance_uid, series_date AS acquisition_date,
           round(4 + 3 * pow(1 - u('dose', n, k * 16 + s), -0.6), 2) AS ctdi_vol_mgy,
           100 + floor(300 * u('current', n, k * 16 + s)) AS x_ray_tube_current_ma
    FROM series WHERE modality = 'CT'
"""
"""The first image of each CT series. The others are only counted."""

_REPORT = f"""
    SELECT * EXCLUDE (status), md5('r' || n || '.' || k || '.' || r) AS id,
           one_of({
    _shares("final", 86, "preliminary", 4, "amended", 4, "corrected", 2, "cancelled", 2, "entered-in-error", 2)
}, u('rst', n, k * 4 + r)) AS status,
           started_date + r::INT AS effective_date, effective_date || 'T20:15:00Z' AS issued_time,
           u('nodule', n, k) < CASE WHEN modality = 'CT' THEN 0.08 ELSE 0.01 END AS nodule,
           'Technique: ' || description || ', ' || number_of_series || ' series. Comparison: '
           || CASE WHEN k % 3 = 0 THEN 'none' ELSE 'earlier images of the same region' END
           || '. Findings: soft tissue and bone without destruction, vessels of normal width, no free fluid. '
           || CASE WHEN nodule THEN 'A Nodule of ' || (3 + k % 9) || ' mm, new. ' ELSE '' END
           || CASE WHEN u('air', n, k) < 0.02 THEN 'Small Pneumothorax on the left. ' ELSE '' END
           || 'Number ' || n || '/' || k || '.' AS text,
           CASE WHEN nodule THEN 'Nodule, to be controlled' ELSE 'Nothing of note' END AS conclusion,
           u('whole', n, k) < 0.7 AS has_text,
           one_of(['uid', 'uid', 'uid', 'accession', 'accession', 'reference'], u('names', n, k)) AS names
    FROM (SELECT *, unnest(range(CASE WHEN u('reports', n, k) < 0.17 THEN 0 WHEN u('reports', n, k) < 0.97 THEN 1
                                      ELSE 2 END)) AS r
          FROM imaging_study WHERE known AND started_date IS NOT NULL)
"""
_FINDING = f"""
    SELECT *, md5('f' || n || '.' || k) AS id, '{SCT}' AS code_system,
           CASE WHEN u('sign', n, k) < 0.6 THEN '36118008' ELSE '427359005' END AS code,
           CASE WHEN u('there', n, k) < 0.3 THEN '52101004' ELSE '2667000' END AS value_code,
           one_of({_shares("preliminary", 60, "final", 38, "entered-in-error", 2)}, u('fst', n, k)) AS finding_status,
           'ChestReader 2' AS device, started_date || 'T21:00:00Z' AS effective_time, k % 2 = 0 AS by_reference
    FROM imaging_study
    WHERE known AND started_date IS NOT NULL AND body_part = 'CHEST' AND modality IN ('CR', 'DX', 'CT')
          AND u('read by it', n, k) < 0.15
"""
