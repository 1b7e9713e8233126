"""A question asked of one generation on one day, and what it selects: the patients, studies and series of a cohort.

Every way out of the cohort (Group, OMOP, manifest, fetch) starts here, so all of them speak of the same people.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

from bridge.errors import InvalidQuery
from cohort.catalogue import code_lists
from cohort.generation import Generation
from cohort.question import UNITS, Question, with_values
from cohort.question_sql import compile_question
from cohort.sandbox import Limits, select

KEYS = {"patient": "patient_id", "study": "study_instance_uid", "series": "series_instance_uid"}
EXPORT_LIMITS = Limits(rows=1_000_000, cpu_s=600, deadline_s=600.0, answer_bytes=1_073_741_824)

_STUDIES_OF_PATIENTS = (
    "SELECT DISTINCT s.study_instance_uid, s.patient_id FROM imaging_study s SEMI JOIN asked USING (patient_id) "
    "WHERE s.status = 'available'"
)
_SERIES_OF_STUDIES = (
    "SELECT DISTINCT r.study_instance_uid, r.series_instance_uid FROM imaging_series r "
    "SEMI JOIN selected_study USING (study_instance_uid)"
)


@dataclass(frozen=True)
class Selection:
    """A question with its parameters, the day ages and periods count from, and the generation it is asked of.

    A question about patients selects their available studies; one about studies selects all series of these.
    """

    generation: Generation
    question: Question
    given: Mapping[str, Any]
    today: date
    limits: Limits = field(default=EXPORT_LIMITS)

    @property
    def values(self) -> dict[str, Any]:
        """Every parameter's value. Raises InvalidQuery naming the parameter."""
        return with_values(self.question, self.given)

    def rows(self, query: str) -> list[dict[str, Any]]:
        """The rows of a SELECT over selected_patient (patient_id), selected_study (study_instance_uid, patient_id),
        selected_series (study_instance_uid, series_instance_uid) and the lake's tables.

        Raises  InvalidQuery for parameters the question does not take, and when there are more rows than allowed
        """
        sql, bound = self._asked()
        unit = self.question.unit
        named = {
            "asked": sql,
            "selected_patient": "SELECT DISTINCT patient_id FROM asked",
            "selected_study": _STUDIES_OF_PATIENTS
            if unit == "patient"
            else "SELECT DISTINCT study_instance_uid, patient_id FROM asked",
            "selected_series": _SERIES_OF_STUDIES
            if unit != "series"
            else "SELECT DISTINCT study_instance_uid, series_instance_uid FROM asked",
        }
        head = ", ".join(f"{name} AS ({text})" for name, text in named.items())
        answer = select(self.generation, f"WITH {head} {query}", bound, self.limits)
        if answer.truncated:
            raise InvalidQuery(
                f"the cohort has more than {self.limits.rows} of what was asked for, or they are too large for one "
                "answer: narrow the question, or raise the limit"
            )
        names = [name for name, _ in answer.columns]
        return [dict(zip(names, row, strict=True)) for row in answer.rows]

    def _asked(self) -> tuple[str, list[Any]]:
        """The question, asked for the keys of its units alone."""
        keys = tuple(KEYS[unit] for unit in UNITS[: UNITS.index(self.question.unit) + 1])
        listing = replace(self.question, columns=keys, group_by=())
        return compile_question(listing, self.given, self.today, code_lists())
