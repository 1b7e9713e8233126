"""What people see of outcomes: the rows of a definition as the policy has them, and digests of them as stored. Pure."""

from __future__ import annotations

from datetime import date

from cohort.dialects import duckdb
from cohort.disclosure import OUTCOME, as_shown
from cohort.outcome import Definition
from cohort.outcome_rows import RESOURCES, ROW, compile_outcomes
from cohort.privacy import Policy
from cohort.pseudonym import Pseudonyms
from cohort.returns import Columns

Asked = tuple[Definition, date, Columns, str, str | None]
"""A definition, the day asked, the lake's columns, a model and its version, as `compile_outcomes` takes them."""

PREDICTION = "_prediction"
"""The column of `rows_sql` with the prediction's id as it is stored."""


def digests_sql(asked: Asked) -> str:
    """SQL: each prediction's id as stored, and a digest of its row: the same as long as the row is the same."""
    columns = [*(n for n in ROW if n != "evidence"), "_evidence_type", "_evidence_id"]
    cells = ", ".join(f'coalesce("{name}"::VARCHAR, chr(0))' for name in columns)
    return f"SELECT prediction_id, left(md5(concat_ws(chr(31), {cells})), 16) FROM ({_stored(asked)})"


def rows_sql(asked: Asked, policy: Policy, pseudonyms: Pseudonyms | None, *, some: bool = False) -> str:
    """SQL: the rows of outcomes, columns as in ROW, then `_prediction`; `pseudonyms` None shows them as stored. With
    `some`, those of the predictions in the list $1."""
    source = f"SELECT *, {_reference(pseudonyms)} AS evidence FROM ({_stored(asked)})"
    if some:
        source += " WHERE prediction_id IN (SELECT unnest($1::VARCHAR[]))"
    shown = [f'"{name}"' for name in ROW]
    if pseudonyms is not None:
        shown = as_shown(OUTCOME, ROW, '"patient"', policy, pseudonyms)
    return f"SELECT {', '.join(shown)}, prediction_id AS {PREDICTION} FROM ({source}) ORDER BY {PREDICTION}"


def _stored(asked: Asked) -> str:
    return duckdb.sql(compile_outcomes(*asked))


def _reference(pseudonyms: Pseudonyms | None) -> str:
    """The evidence as a FHIR reference; under pseudonyms the id is that of the resource in every other table."""
    if pseudonyms is None:
        return "_evidence_type || '/' || _evidence_id"
    made = (
        f"WHEN '{kind}' THEN '{kind}/' || {pseudonyms.id_sql(kind, '_evidence_id')}"
        for kind in sorted(set(RESOURCES.values()))
    )
    return f"CASE _evidence_type {' '.join(made)} END"
