"""A question asked of one generation on one day, and what it selects: the patients, studies and series of a cohort.

Every way out of the cohort (Group, OMOP, manifest, fetch) starts here, so all of them speak of the same people.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from bridge.errors import InvalidQuery
from cohort.catalogue import read_question
from cohort.dialects import duckdb
from cohort.generation import Generation
from cohort.question import Question
from cohort.question_document import parameter_values
from cohort.question_members import compile_members
from cohort.sandbox import Limits, Run, Task

EXPORT_LIMITS = Limits(rows=1_000_000, cpu_s=600, deadline_s=600.0, answer_bytes=1_073_741_824)

_PATIENTS = "SELECT DISTINCT p.patient_id, p.patient_key FROM patient p SEMI JOIN asked USING (patient_key)"
_STUDIES = "SELECT DISTINCT s.study_instance_uid, s.patient_id, s.study_key FROM imaging_study s SEMI JOIN asked USING"
_STUDIES_OF_PATIENTS = f"{_STUDIES} (patient_key) WHERE s.status = 'available'"
_SERIES = "SELECT DISTINCT r.study_instance_uid, r.series_instance_uid, r.series_key FROM"
_SERIES_OF_STUDIES = f"{_SERIES} imaging_series r SEMI JOIN selected_study USING (study_key)"


@dataclass(frozen=True)
class Selection:
    """A question with its parameters, the day ages and periods count from, the generation it is asked of, and what runs
    its SQL. `cohort.desk` makes one where patients and studies may be named.

    A question about patients, or what belongs to no study, selects the available studies of the patients; one about
    studies, reports or findings selects all series of these studies.
    """

    generation: Generation
    question: Question
    given: Mapping[str, Any]
    today: date
    run: Run
    limits: Limits = field(default=EXPORT_LIMITS)

    @property
    def values(self) -> dict[str, Any]:
        """Every parameter's value. Raises InvalidQuery naming the parameter."""
        return parameter_values(self.question.parameters, self.given)

    @property
    def asked(self) -> Question:
        """The question with these values in place. Raises InvalidQuery naming the parameter."""
        return read_question(self.question.document, self.given)

    def rows(self, query: str) -> list[dict[str, Any]]:
        """The rows of a SELECT over selected_patient (patient_id), selected_study (study_instance_uid, patient_id),
        selected_series (study_instance_uid, series_instance_uid), each with its integer key, and the lake's tables.

        Raises  InvalidQuery for parameters the question does not take, and when there are more rows than allowed
        """
        members, keys = compile_members(self.asked, self.today, self.generation.column_types)
        named = {
            "asked": duckdb.sql(members),
            "selected_patient": _PATIENTS,
            "selected_study": f"{_STUDIES} (study_key, patient_key)" if "study_key" in keys else _STUDIES_OF_PATIENTS,
            "selected_series": f"{_SERIES} dicom_series r SEMI JOIN asked USING (series_key)"
            if "series_key" in keys
            else _SERIES_OF_STUDIES,
        }
        head = ", ".join(f"{name} AS ({text})" for name, text in named.items())
        answer = self.run(self.generation, Task(f"WITH {head} {query}"), self.limits)
        if answer.truncated:
            raise InvalidQuery(
                f"the cohort has more than {self.limits.rows} of what was asked for, or they are too large for one "
                "answer: narrow the question, or raise the limit"
            )
        names = [name for name, _ in answer.columns]
        return [dict(zip(names, row, strict=True)) for row in answer.rows]
