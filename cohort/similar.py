"""Patients alike: who shares stated features with a patient or a study, in which treatments and outcomes.

The features become a cohort question, so that they mean what they mean there. Nobody alike is named; all is counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from bridge.errors import InvalidQuery
from cohort.answer import Answer
from cohort.catalogue import read_question
from cohort.dialects import duckdb
from cohort.generation import Generation
from cohort.outcome import Definition
from cohort.outcome_rows import compile_outcomes
from cohort.privacy import Policy
from cohort.pseudonym import Pseudonyms
from cohort.question_members import compile_members
from cohort.returns import Columns
from cohort.sandbox import Limits, Run, Task

FEATURES = ("sex", "age", "condition", "modality", "finding")
"""The same gender; born within so many years; one of the same conditions; a study with one of the same modalities; one
of the same findings. Of a study: its modalities and findings."""

MOST_YEARS, MOST_SHOWN = 50, 50
DOUBTFUL = ("unconfirmed", "provisional", "differential", "refuted", "entered-in-error")
ABSENT = ("2667000", "373067005")
_LINES = ("what", "code_system", "code", "display")


@dataclass(frozen=True)
class Alike:
    """Whom others shall be like: a patient (`patient_id` or an identifier's value) or a study (its UID), as people see
    them; in which features; born at most `years` apart; with which outcomes of theirs (None: without)."""

    whom: str
    features: tuple[str, ...] = ("sex", "age", "condition")
    years: int = 5
    outcome: Definition | None = None

    def check(self) -> None:
        """Raises InvalidQuery naming what is wrong."""
        for feature in self.features:
            if feature not in FEATURES:
                raise InvalidQuery(f"alike: found {feature[:60]!r}; allowed: {', '.join(FEATURES)}")
        if not self.features:
            raise InvalidQuery(f"alike: at least one is needed of {', '.join(FEATURES)}")
        if not 0 <= self.years <= MOST_YEARS:
            raise InvalidQuery(f"years: allowed are 0 to {MOST_YEARS}")
        if not 0 < len(self.whom) <= 200:
            raise InvalidQuery("whom: a patient or a study is needed, up to 200 characters")


def similar(
    generation: Generation, alike: Alike, today: date, policy: Policy, pseudonyms: Pseudonyms | None, run: Run
) -> Answer:
    """One line for all patients alike, for those who died, for each treatment and each outcome, with how many patients,
    the most frequent first.

    Raises  InvalidQuery when nobody or several are meant, and for a feature that the patient or the study does not have
    """
    alike.check()
    variables = pseudonyms.variables() if pseudonyms else {}
    patient, study = _whom(run(generation, Task(_whom_sql(pseudonyms), (alike.whom,), variables=variables), None))
    found = run(generation, Task(_PROFILE, (patient, study)), None)
    profile = dict(zip((name for name, _ in found.columns), found.rows[0], strict=True))
    question = read_question(_document(alike, profile))
    members, _ = compile_members(question, today, generation.column_types)
    counted = policy.coarse(_counts_sql(duckdb.sql(members), alike.outcome, today, generation.column_types), _LINES, ())
    shown = (
        f"SELECT * FROM ({counted}) QUALIFY row_number() OVER (PARTITION BY what ORDER BY patients DESC, code_system, "
        f"code) <= {MOST_SHOWN} ORDER BY what <> 'alike', what, patients DESC, code_system, code"
    )
    return run(generation, Task(shown, (patient,)), Limits(rows=10_000, deadline_s=120.0, cpu_s=240, memory_mb=2048))


def _whom_sql(pseudonyms: Pseudonyms | None) -> str:
    """SQL: patient_key and study_key of whom $1 names."""
    if pseudonyms is None:
        by = ("patient_id", "value", "study_instance_uid")
    else:
        by = (
            pseudonyms.id_sql("Patient", "patient_id"),
            pseudonyms.id_sql("Identifier", "value"),
            pseudonyms.uid_sql("UID", "study_instance_uid"),
        )
    return (
        f"SELECT patient_key, NULL::BIGINT AS study_key FROM patient WHERE {by[0]}::VARCHAR = $1 "
        f"UNION SELECT patient_key, NULL FROM patient_identifier WHERE {by[1]}::VARCHAR = $1 "
        f"UNION SELECT patient_key, study_key FROM imaging_study WHERE {by[2]}::VARCHAR = $1"
    )


def _whom(found: Answer) -> tuple[int, int | None]:
    if len({patient for patient, _ in found.rows}) != 1:
        problem = "more than one patient is meant" if found.rows else "there is no such patient or study"
        raise InvalidQuery(f"whom: {problem}")
    patient = found.rows[0][0]
    studies = [study for _, study in found.rows if study is not None]
    return int(patient), int(studies[0]) if studies else None


def _quoted(values: Sequence[str]) -> str:
    return ", ".join(f"'{value}'" for value in values)


_PROFILE = f"""
SELECT p.gender AS sex, p.birth_date AS age,
  (SELECT list(DISTINCT [code_system, code]) FROM condition WHERE patient_key = $1 AND code IS NOT NULL
     AND code_system IS NOT NULL AND coalesce(verification_status, '') NOT IN ({_quoted(DOUBTFUL)})) AS condition,
  (SELECT list(DISTINCT m.modality) FROM imaging_study s JOIN imaging_study_modality m USING (study_key)
     WHERE s.patient_key = $1 AND ($2 IS NULL OR s.study_key = $2) AND m.modality IS NOT NULL) AS modality,
  (SELECT list(DISTINCT [f.code_system, f.code])
     FROM imaging_finding f LEFT JOIN imaging_study s USING (imaging_study_id)
     WHERE f.patient_key = $1 AND ($2 IS NULL OR coalesce(s.study_key, f.study_key) = $2) AND f.code IS NOT NULL
     AND f.code_system IS NOT NULL AND coalesce(f.status, '') NOT IN ('cancelled', 'entered-in-error')
     AND coalesce(f.value_code, '') NOT IN ({_quoted(ABSENT)})) AS finding
FROM patient p WHERE p.patient_key = $1
"""


def _document(alike: Alike, profile: Mapping[str, Any]) -> dict[str, Any]:
    """The cohort question of those alike."""
    for feature in alike.features:
        if not profile[feature]:
            raise InvalidQuery(f"alike: {feature} is not known of whom is asked for: leave it out")
    return {
        "name": "similar", "title": "Patients alike", "description": "Patients who share the stated features.",
        "criteria": {"all": [_criterion(f, profile[f], alike.years) for f in dict.fromkeys(alike.features)]},
        "return": {"unit": "patient", "columns": ["patient_id"]},
    }  # fmt: skip


def _criterion(feature: str, value: Any, years: int) -> dict[str, Any]:
    match feature:
        case "sex":
            return {"patient": {"where": {"gender": value}}}
        case "age":
            return {"patient": {"where": {"birth_date": _around(date.fromisoformat(value), years)}}}
        case "condition":
            where: dict[str, Any] = {"verification_status": {"not": list(DOUBTFUL)}}
            return {"condition": {"codes": _codes(value), "where": where}}
        case "modality":
            return {"study": {"where": {"modality": sorted(value), "status": "available"}}}
        case _:
            where = {"status": {"not": ["cancelled", "entered-in-error"]}, "value_code": {"not": list(ABSENT)}}
            return {"finding": {"codes": _codes(value), "where": where}}


def _around(born: date, years: int) -> dict[str, Any]:
    return {"at_least": _moved(born, -years), "at_most": _moved(born, years)}


def _moved(day: date, years: int) -> date:
    """The same day so many years later; 28 February for the 29th where there is none."""
    try:
        return day.replace(year=day.year + years)
    except ValueError:
        return day.replace(year=day.year + years, day=28)


def _codes(codes: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    return [{"system": system, "code": code} for system, code in sorted(map(tuple, codes))]


def _counts_sql(members: str, definition: Definition | None, today: date, columns: Columns) -> str:
    """SQL: `_LINES` and how many of those alike, without the patient $1, each line stands for."""
    parts = [
        "SELECT 'alike' AS what, '' AS code_system, '' AS code, '' AS display, patient_key FROM alike",
        "SELECT 'died', '', '', '', patient_key FROM alike JOIN patient USING (patient_key) "
        "WHERE deceased OR deceased_date IS NOT NULL",
        "SELECT 'treatment: medication', coalesce(medication_system, ''), "
        "coalesce(medication_code, medication_text, ''), medication_display, patient_key "
        "FROM alike JOIN medication_request USING (patient_key) "
        "WHERE status NOT IN ('entered-in-error', 'cancelled', 'draft')",
        "SELECT 'treatment: procedure', coalesce(code_system, ''), code, code_display, patient_key "
        "FROM alike JOIN \"procedure\" USING (patient_key) WHERE status = 'completed' AND code IS NOT NULL",
    ]
    if definition is not None:
        rows = duckdb.sql(compile_outcomes(definition, today, columns))
        parts.append(
            f"SELECT 'outcome: {definition.name}', '', r.outcome, '', patient_key "
            f"FROM alike JOIN patient USING (patient_key) JOIN ({rows}) r ON r.patient = patient_id"
        )
    return (
        f"WITH alike AS (SELECT patient_key FROM ({members}) WHERE patient_key <> $1) "
        "SELECT what, code_system, code, min(display) AS display, count(DISTINCT patient_key) AS patients "
        f"FROM ({' UNION ALL '.join(parts)}) GROUP BY what, code_system, code"
    )
