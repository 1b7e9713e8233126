"""A made-up year of two versions of a model, as the rows that a pipeline pulls month by month.

Both versions judge every study. Outcomes come late, some twice, some corrected afterwards, some never. From September
on the scanners at one site are new, and version 1.0, not 2.0, scores their images higher.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np

STUDIES, PATIENTS = 50_000, 28_000
SITES = ("North", "South", "East", "West")
DRIFTED_MONTH = 9
SYSTEM, CODE = "http://snomed.info/sct", "427359005"


@dataclass(frozen=True)
class Year:
    """`pulled`: rows in no order, several for one prediction. `final`: what stands at the end, by prediction."""

    pulled: list[dict[str, Any]]
    final: dict[str, dict[str, Any]]


def a_year(seed: int = 2026, studies: int = STUDIES, patients: int = PATIENTS) -> Year:
    random = np.random.default_rng(seed)
    people = [
        (f"{60 + 10 * int(n)}-{69 + 10 * int(n)}", ("female", "male")[int(s)])
        for n, s in zip(random.integers(3, size=patients), random.integers(2, size=patients), strict=True)
    ]
    pulled: list[dict[str, Any]] = []
    final: dict[str, dict[str, Any]] = {}
    for study in range(studies):
        for row in _study(study, people, random):
            stages = _stages(row, random)
            pulled += stages
            final[row["prediction_id"]] = stages[-1]
    again = random.integers(len(pulled), size=len(pulled) // 50)
    pulled += [pulled[n] for n in again]
    order = random.permutation(len(pulled))
    return Year([pulled[n] for n in order], final)


def _study(number: int, people: list[tuple[str, str]], random: np.random.Generator) -> list[dict[str, Any]]:
    """The rows of both versions about one study, with the outcome that it really has."""
    patient = int(random.integers(len(people)))
    age_band, sex = people[patient]
    day = date(2026, 1, 1) + timedelta(days=int(random.integers(365)))
    site = SITES[int(random.choice(4, p=[0.55, 0.25, 0.15, 0.05]))]
    new = day.month >= DRIFTED_MONTH and site == "North"
    true = random.random() < 0.12
    shared = random.normal(0, 0.08)
    at = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(seconds=int(random.integers(86_400)))
    read = random.random() < 0.7
    rows = []
    for version, gain, shift in (("1.0", 0.28, 0.15), ("2.0", 0.36, 0.0)):
        score = float(np.clip(random.normal(0.3 + gain * true + shift * new + shared, 0.1), 0, 1))
        predicted = score >= 0.5
        rows.append(
            {
                "prediction_id": f"{version}/{number}", "patient": f"q{patient}",
                "study_instance_uid": f"2.25.{number}",
                "model": "nodules", "model_version": version, "finding_system": SYSTEM, "finding_code": CODE,
                "score": None if random.random() < 0.01 else score, "threshold": 0.5, "predicted": predicted,
                "outcome": "confirmed" if true else "refuted", "evidence_kind": "condition",
                "evidence": f"Condition/{number}", "evidence_date": day + timedelta(days=int(random.exponential(30))),
                "index_date": day, "predicted_at": at,
                "reader_agrees": bool(random.random() < (0.95 if predicted == true else 0.4)) if read else None,
                "reader_at": at + timedelta(minutes=int(random.integers(-60, 2_000))) if read else None,
                "modality": "CT", "manufacturer": "ACME", "model_name": "Two" if new else "One", "site": site,
                "age_band": age_band, "sex": sex, "changed": "",
            }
        )  # fmt: skip
        rows[-1]["delay_days"] = (rows[-1]["evidence_date"] - day).days
    return rows


def _stages(row: dict[str, Any], random: np.random.Generator) -> list[dict[str, Any]]:
    """How the row looked each time it changed; `changed` is the month that saw it, counted from 1."""
    nothing = {"evidence_kind": None, "evidence": None, "evidence_date": None, "delay_days": None}
    month, kind = row["predicted_at"].month, random.random()
    stages = [row | nothing | {"outcome": "pending", "changed": str(month)}]
    if kind < 0.08:
        return stages
    late = month + 1 + row["delay_days"] // 30
    if kind < 0.12:
        return [*stages, row | nothing | {"outcome": "censored", "changed": str(late + 12)}]
    if kind < 0.14:
        wrong = "refuted" if row["outcome"] == "confirmed" else "confirmed"
        stages.append(row | {"outcome": wrong, "changed": str(late)})
        late += 1 + int(random.integers(5))
    return [*stages, row | {"changed": str(late)}]
