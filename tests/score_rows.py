"""Rows of predictions with outcomes, valid by default."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa

from cohort.scores.card import Card, Target, card
from cohort.scores.judged import Judged, judged
from cohort.scores.rows import COLUMNS, Rows, rows_of

TARGET = Target("nodules", "1.0", "http://snomed.info/sct", "427359005")


def a_row(number: int, **given: Any) -> dict[str, Any]:
    """One prediction, positive and confirmed; each about a patient of its own."""
    return {
        "prediction_id": f"p{number}", "patient": f"patient{number}", "study_instance_uid": f"2.25.{number}",
        "model": TARGET.model, "model_version": TARGET.model_version, "finding_system": TARGET.finding_system,
        "finding_code": TARGET.finding_code, "score": 0.9, "threshold": 0.5, "predicted": True, "outcome": "confirmed",
        "evidence_kind": "condition", "evidence": f"Condition/{number}", "evidence_date": date(2026, 3, 11),
        "index_date": date(2026, 3, 1), "predicted_at": datetime(2026, 3, 2, 9, tzinfo=UTC), "delay_days": 10,
        "reader_agrees": True, "reader_at": datetime(2026, 3, 2, 12, tzinfo=UTC), "modality": "CT",
        "manufacturer": "ACME", "model_name": "One", "site": "North", "age_band": "60-69", "sex": "female",
        "changed": "g000001",
    } | given  # fmt: skip


def a_table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    return pa.table({name: pa.array([row[name] for row in rows], kind) for name, kind in COLUMNS.items()})


def some_rows(given: Sequence[dict[str, Any]]) -> Rows:
    """Valid rows with what is given of each."""
    return rows_of(a_table([a_row(n, **one) for n, one in enumerate(given)]))


def scored(truth: Sequence[Any], scores: Sequence[Any], patients: Sequence[Any] = (), at: float = 0.5) -> Rows:
    """Rows with these outcomes and scores, positive from the threshold `at` on."""
    return some_rows(
        [
            {"outcome": "confirmed" if true else "refuted", "score": float(score), "predicted": bool(score >= at)}
            | {"threshold": at}
            | ({"patient": f"patient{patients[n]}"} if len(patients) else {})
            for n, (true, score) in enumerate(zip(truth, scores, strict=True))
        ]
    )


def judged_of(rows: Rows) -> Judged:
    return judged(rows)


def card_of(rows: Rows) -> Card:
    return card(TARGET, rows)
