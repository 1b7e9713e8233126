"""What people see of outcomes: the rows of a definition as the policy has them, and digests of them as stored. Pure."""

from __future__ import annotations

from cohort.dialects import duckdb
from cohort.disclosure import OUTCOME, as_shown
from cohort.outcome_predictions import SOME
from cohort.outcome_rows import RESOURCES, ROW
from cohort.privacy import Policy
from cohort.pseudonym import Pseudonyms
from cohort.relation import Relation

PREDICTION = "_prediction"
"""The column of `rows_sql` with the prediction's id as it is stored."""


def digests_sql(rows: Relation) -> str:
    """SQL: each prediction's id as stored, in order, and a digest of its row: the same as long as the row is."""
    columns = [*(n for n in ROW if n != "evidence"), "_evidence_type", "_evidence_id"]
    cells = ", ".join(f'coalesce("{name}"::VARCHAR, chr(0))' for name in columns)
    return f"SELECT prediction_id, left(md5(concat_ws(chr(31), {cells})), 16) FROM ({duckdb.sql(rows)}) ORDER BY 1"


def codes_sql() -> str:
    """SQL: the codes of the findings that the model $1 made."""
    return (
        "SELECT DISTINCT f.code_system, f.code FROM imaging_finding f LEFT JOIN device d USING (device_id) "
        "WHERE f.asserted_by_ai AND coalesce(d.model, f.device) = $1 AND f.code_system IS NOT NULL"
    )


def rows_sql(
    rows: Relation, policy: Policy, pseudonyms: Pseudonyms | None, *, some: bool = False, of: str = "Observation"
) -> str:
    """SQL: the rows of outcomes (cohort.outcome_rows), columns as in ROW, then `_prediction`; `pseudonyms` None shows
    them as stored. With `some`, which the rows were compiled with, $1 is the list of predictions. `of` is the type of
    what predicts."""
    source = f"SELECT *, {_reference(pseudonyms)} AS evidence FROM ({duckdb.sql(rows)})"
    shown = [f'"{name}"' for name in ROW]
    if pseudonyms is not None:
        id_ = f"{pseudonyms.id_sql(of, 'prediction_id')} AS prediction_id"
        shown = [id_, *as_shown(OUTCOME, ROW[1:], '"patient"', policy, pseudonyms)]
    head = f"WITH {SOME} AS (SELECT unnest($1::VARCHAR[]) AS prediction) " if some else ""
    return f"{head}SELECT {', '.join(shown)}, prediction_id AS {PREDICTION} FROM ({source}) ORDER BY {PREDICTION}"


def _reference(pseudonyms: Pseudonyms | None) -> str:
    """The evidence as a FHIR reference; under pseudonyms the id is that of the resource in every other table."""
    if pseudonyms is None:
        return "_evidence_type || '/' || _evidence_id"
    made = (
        f"WHEN '{kind}' THEN '{kind}/' || {pseudonyms.id_sql(kind, '_evidence_id')}"
        for kind in sorted(set(RESOURCES.values()))
    )
    return f"CASE _evidence_type {' '.join(made)} END"
