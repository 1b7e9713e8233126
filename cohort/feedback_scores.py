"""Score cards of a model's predictions in the lake."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING

from bridge.errors import ConfigError, InvalidQuery
from cohort.answer import Answer
from cohort.feedback import COMPARED, MOST_PREDICTIONS, Showing, Wanted
from cohort.generation import Generation
from cohort.outcome_rows import compile_outcomes
from cohort.outcome_shown import rows_sql
from cohort.sandbox import Task
from cohort.scores.asked import Asked

if TYPE_CHECKING:
    from cohort.scores.report import Report


def scores(
    generation: Generation, wanted: Wanted, asked: Asked, today: date, showing: Showing
) -> tuple[Report, Answer]:
    """The report of all predictions of a model, as the policy has it, and the rows it is made of.

    The rows name nobody and no site where rows under pseudonyms would not; their dates are as stored, since nothing but
    months is told of them.

    Raises  ConfigError without the extra `scores`; InvalidQuery for parameters, and where there are no predictions, or
            more than MOST_PREDICTIONS
    """
    try:
        from cohort.scores.report import report
        from cohort.scores.rows import rows_of_records
    except ImportError:
        raise ConfigError("scikit-learn and SciPy are not installed: pip install 'imaging-bridge[scores]'") from None
    rows = compile_outcomes(wanted.asked, wanted.on or today, generation.column_types, wanted.model, wanted.version)
    sql = rows_sql(rows, replace(showing.policy, dates="kept"), showing.pseudonyms)
    answer = showing.run(generation, Task(sql, variables=showing.variables), COMPARED)
    if answer.truncated:
        raise InvalidQuery(f"there are more than {MOST_PREDICTIONS} predictions: name a model and its version")
    names = [name for name, _ in answer.columns]
    return report(rows_of_records(names, answer.rows), asked, showing.policy), answer
