"""The hospital of `bench.population` as files: FHIR NDJSON of the clinical side, delta lines of the bridge, and naive
Parquet: a file for each type with ids as text, in the order of the ids, as a person would write it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

import duckdb

from bench.population import Population
from bench.population_bridge import BRIDGE, ENDPOINT
from bench.population_fhir import CLINICAL

NAIVE: Mapping[str, tuple[str, str]] = {
    "patient": (
        "patient_id",
        "patient_id, mrn, birth_date, gender FROM person WHERE known OR n IN (SELECT n FROM imaging_study)",
    ),
    "encounter": (
        "encounter_id",
        "encounter_id, patient_id, status, class_code, day AS start_date, end_day AS end_date FROM visit WHERE known",
    ),
    "condition": (
        "id",
        "id, patient_id, encounter_id, code_system, code, verification_status, onset_date, recorded_date, "
        "abatement_date FROM condition",
    ),
    "medication_request": (
        "id",
        "id, patient_id, encounter_id, medication_system, medication_code, medication_display, status, intent, "
        "authored_date FROM medication_request",
    ),
    "observation": (
        "id",
        "id, patient_id, encounter_id, code_system, code, value_unit, value_number, status, effective_date "
        "FROM observation",
    ),
    "procedure": ("id", "id, patient_id, encounter_id, code_system, code, status, performed FROM procedure"),
    "diagnostic_report": (
        "id",
        "id, patient_id, study_instance_uid, status, effective_date, issued_time::TIMESTAMP AS issued_time, "
        "conclusion, CASE WHEN has_text THEN text END AS text FROM diagnostic_report",
    ),
    "finding": (
        "id",
        "id, patient_id, study_instance_uid, code_system, code, value_code, finding_status AS status, device, "
        "started_date AS day FROM finding",
    ),
    "imaging_study": (
        "study_instance_uid",
        "study_instance_uid, imaging_study_id, patient_id, status, modalities, started_date, description, "
        "accession_number, number_of_series, number_of_instances FROM imaging_study",
    ),
    "series": (
        "series_instance_uid",
        "series_instance_uid, study_instance_uid, modality, body_part, manufacturer, manufacturer_model_name, "
        "slice_thickness_mm, kvp_kv, convolution_kernel, contrast_bolus_agent, series_date FROM series",
    ),
    "instance": (
        "sop_instance_uid",
        "sop_instance_uid, series_instance_uid, study_instance_uid, ctdi_vol_mgy, kvp_kv, x_ray_tube_current_ma, "
        "acquisition_date FROM instance",
    ),
}
"""Table → the id it is in the order of, its columns and what they are made of."""


def write(population: Population, folder: Path, first: int = 0) -> Iterator[tuple[Path, list[Path]]]:
    """Writes some patients after another, from that chunk on: (folder of clinical NDJSON, files of delta lines of the
    bridge). Those files are the caller's to take away; `folder`/naive keeps the facts until `naive` makes the Parquet
    of them."""
    (folder / "naive").mkdir(parents=True, exist_ok=True)
    with duckdb.connect(config={"threads": 2, "preserve_insertion_order": False}) as db:
        for number, (low, high) in islice(enumerate(population.chunks()), first, None):
            population.make(db, low, high)
            clinical = folder / f"clinical-{number:05}"
            clinical.mkdir(exist_ok=True)
            for name, (source, line) in CLINICAL.items():
                _lines(db, clinical / f"{name}.ndjson", source, line)
            bridge = [folder / f"{name}-{number:05}.ndjson" for name in BRIDGE]
            for path, (source, line) in zip(bridge, BRIDGE.values(), strict=True):
                _lines(db, path, source, line)
            if not number:
                with bridge[0].open("ab") as file:
                    file.write(ENDPOINT)
            for name, (_, columns) in NAIVE.items():
                db.execute(f"COPY (SELECT {columns}) TO '{folder}/naive/{name}-{number:05}.part' (FORMAT parquet)")
            yield clinical, bridge


def naive(folder: Path) -> None:
    """One Parquet file for each type, as DuckDB writes it if nothing is asked for."""
    with duckdb.connect(config={"threads": 2, "memory_limit": "4GB", "temp_directory": str(folder / "spill")}) as db:
        for name, (order, _) in NAIVE.items():
            parts = f"{folder}/naive/{name}-*.part"
            db.execute(
                f"COPY (SELECT * FROM read_parquet('{parts}') ORDER BY {order}) TO '{folder}/naive/{name}.parquet'"
            )
            for part in (folder / "naive").glob(f"{name}-*.part"):
                part.unlink()


def _lines(db: duckdb.DuckDBPyConnection, path: Path, source: str, line: str) -> None:
    db.execute(
        f"COPY (SELECT {line} FROM {source}) TO '{path}' "
        "(FORMAT csv, HEADER false, QUOTE '', ESCAPE '', DELIMITER '\x01')"
    )
