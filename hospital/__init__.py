"""A small synthetic hospital, seeded: clinical FHIR and DICOM files of patients who do not exist."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import orjson

from hospital.clinical import resources
from hospital.images import files
from hospital.plan import Hospital, founding_answer, plan

__all__ = ["Hospital", "HospitalSummary", "founding_answer", "generate", "plan", "write"]


@dataclass(frozen=True)
class HospitalSummary:
    """What was written; `osteosarcoma_ct_expected` is the founding question's answer as (MRN, Study Instance UID)."""

    patients: int
    conditions: int
    medication_requests: int
    observations: int
    reports: int
    studies: int
    instances: int
    bytes: int
    osteosarcoma_ct_expected: tuple[tuple[str, str], ...]


def generate(
    root: Path,
    *,
    patients: int = 240,
    seed: int = 20260101,
    today: date,
    progress: Callable[[int, int], None] | None = None,
) -> HospitalSummary:
    """Writes the hospital of a seed: `root/clinical/TYPE.ndjson` and `root/dicom/**.dcm`. The same arguments give
    the same bytes; what is there already is replaced by the same."""
    return write(plan(patients, seed, today), root, progress)


def write(hospital: Hospital, root: Path, progress: Callable[[int, int], None] | None = None) -> HospitalSummary:
    """Writes a planned hospital below `root`."""
    counts = _write_clinical(hospital, root / "clinical")
    people = {p.mrn: p for p in hospital.patients}
    kept = [(n, s) for n, s in enumerate(hospital.studies, 1) if s.archived]
    instances = written = 0
    for done, (number, study) in enumerate(kept, 1):
        for path, content in files(hospital, study, people[study.mrn], number):
            place = root / "dicom" / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
            instances, written = instances + 1, written + len(content)
        if progress is not None:
            progress(done, len(kept))
    return HospitalSummary(
        len(hospital.patients),
        counts["Condition"],
        counts["MedicationRequest"],
        counts["Observation"],
        counts["DiagnosticReport"],
        len(kept),
        instances,
        written,
        founding_answer(hospital),
    )


def _write_clinical(hospital: Hospital, folder: Path) -> dict[str, int]:
    folder.mkdir(parents=True, exist_ok=True)
    counts = {}
    for kind, found in resources(hospital).items():
        lines = [orjson.dumps(resource) for resource in found]
        (folder / f"{kind}.ndjson").write_bytes(b"".join(line + b"\n" for line in lines))
        counts[kind] = len(lines)
    return counts
