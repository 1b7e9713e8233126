"""One patient's timeline: conditions, medications, procedures, observations, studies, findings and reports in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import orjson

from bridge.errors import InvalidQuery
from cohort.catalogue import code_lists
from cohort.generation import Generation
from cohort.sandbox import Limits, Run, Task

MOST_EVENTS = 5_000
RELEVANT = "imaging_relevant"
"""The list in mappings/codes of observations that matter to imaging; those of category imaging are shown as well."""


class Kind(StrEnum):
    """What an event is. Events of one moment stand in this order."""

    CONDITION = "condition"
    MEDICATION = "medication"
    PROCEDURE = "procedure"
    OBSERVATION = "observation"
    STUDY = "study"
    FINDING = "finding"
    REPORT = "report"


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    Result  `day` ISO date, None when it is not known (then it stands last); `until` the day a condition ended;
            `time` UTC, ISO 8601, where it is known; `id` of the FHIR resource; `study_instance_uid` of what concerns
            one study
    """

    kind: Kind
    day: str | None
    title: str
    status: str = ""
    detail: str = ""
    time: str | None = None
    until: str | None = None
    id: str = ""
    study_instance_uid: str = ""


@dataclass(frozen=True)
class Timeline:
    """A patient's events in order; `truncated` when there are more than MOST_EVENTS: then the first of them."""

    patient_id: str
    generation: str
    events: tuple[Event, ...]
    truncated: bool

    def as_json(self) -> bytes:
        """{patient_id, generation, truncated, events: [{kind, day, time, until, title, status, detail, id, …}]}."""
        return orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2)


def timeline(generation: Generation, patient: str, run: Run, limits: Limits | None = None) -> Timeline:
    """The events of the patient with this `patient_id`, or with an identifier of this value, as `run` shows them.

    What was entered in error is left out; all else is shown with its status.

    Raises  InvalidQuery when nobody, or more than one patient, is meant
    """
    limits = limits or Limits()
    patient_id = _patient(generation, patient, run, limits)
    parts = dict(_PARTS)
    if "imaging_finding" not in generation.tables:
        del parts[Kind.FINDING]
    relevant = code_lists().get(RELEVANT, [])
    # the lake holds a day without time as its midnight
    bound = [patient_id, [system for system, _ in relevant], [code for _, code in relevant]]
    order = " ".join(f"WHEN '{kind}' THEN {n}" for n, kind in enumerate(Kind))
    query = (
        f"{_HEAD} SELECT * REPLACE (CASE WHEN time <> date_trunc('day', time) THEN time END AS time) "
        f"FROM ({' UNION ALL '.join(parts.values())}) "
        f"ORDER BY day NULLS LAST, time NULLS FIRST, CASE kind {order} END, id LIMIT {MOST_EVENTS + 1}"
    )
    answer = run(generation, Task(query, tuple(bound)), limits)
    names = [name for name, _ in answer.columns]
    rows = [dict(zip(names, row, strict=True)) for row in answer.rows[:MOST_EVENTS]]
    truncated = answer.truncated or len(answer.rows) > MOST_EVENTS
    return Timeline(patient_id, generation.id, tuple(_event(row) for row in rows), truncated)


def _patient(generation: Generation, patient: str, run: Run, limits: Limits) -> str:
    if not 0 < len(patient) <= 200:
        raise InvalidQuery("patient: a patient_id or the value of an identifier is needed, up to 200 characters")
    answer = run(generation, Task(_WHO, (patient,)), limits)
    exact = [str(found) for found, by_id in answer.rows if by_id]
    found = exact or [str(row[0]) for row in answer.rows]
    if len(found) != 1:
        problem = "more than one patient has this identifier: give patient_id" if found else "there is no such patient"
        raise InvalidQuery(f"patient: {problem}")
    return found[0]


def _event(row: Mapping[str, Any]) -> Event:
    text = {name: str(row[name] or "") for name in ("title", "status", "detail", "id", "study_instance_uid")}
    return Event(Kind(row["kind"]), row["day"], time=row["time"], until=row["until"], **text)


_WHO = """
SELECT patient_id, true AS by_id FROM patient WHERE patient_id = $1
UNION SELECT patient_id, false FROM patient_identifier WHERE value = $1 ORDER BY ALL LIMIT 10
"""

_HEAD = "WITH relevant AS (SELECT DISTINCT unnest($2::VARCHAR[]) AS code_system, unnest($3::VARCHAR[]) AS code)"

_PARTS: Mapping[Kind, str] = {
    Kind.CONDITION: """
SELECT 'condition' AS kind, any_value(coalesce(onset_date, recorded_date)) AS day, NULL::TIMESTAMPTZ AS time,
       any_value(abatement_date) AS until, coalesce(min(code_display), min(code), 'condition') AS title,
       any_value(clinical_status) AS status, coalesce(any_value(verification_status), '') AS detail,
       condition_id AS id, NULL::VARCHAR AS study_instance_uid
FROM condition WHERE patient_id = $1 AND coalesce(verification_status, '') <> 'entered-in-error' GROUP BY condition_id
""",
    Kind.MEDICATION: """
SELECT 'medication', any_value(authored_date), NULL, NULL,
       coalesce(any_value(medication_text), min(medication_display), min(medication_code), 'medication'),
       any_value(status), coalesce(any_value(dosage_text), ''), medication_request_id, NULL
FROM medication_request WHERE patient_id = $1 AND status IS DISTINCT FROM 'entered-in-error'
GROUP BY medication_request_id
""",
    Kind.PROCEDURE: """
SELECT 'procedure', any_value(coalesce(performed_date, performed_start_date)), NULL, NULL,
       coalesce(min(code_display), min(code), 'procedure'), any_value(status), '', procedure_id, NULL
FROM "procedure" WHERE patient_id = $1 AND status IS DISTINCT FROM 'entered-in-error' GROUP BY procedure_id
""",
    Kind.OBSERVATION: """
SELECT 'observation', any_value(effective_date), any_value(effective_time), NULL,
       coalesce(min(code_display), min(code), 'observation'), any_value(status),
       coalesce(any_value(value_number || coalesce(' ' || value_unit, '')), any_value(value_text),
                any_value(value_code), ''), observation_id, NULL
FROM observation o WHERE patient_id = $1 AND status IS DISTINCT FROM 'entered-in-error' AND (category_code = 'imaging'
      OR EXISTS (SELECT 1 FROM relevant r WHERE r.code_system = o.code_system AND r.code = o.code))
GROUP BY observation_id
""",
    Kind.STUDY: """
SELECT 'study', s.started_date, s.started_time, NULL, coalesce(s.description, 'imaging study'), s.status,
       concat_ws(', ', (SELECT string_agg(DISTINCT m.modality, ' and ' ORDER BY m.modality)
                        FROM imaging_study_modality m WHERE m.study_instance_uid = s.study_instance_uid),
                 s.number_of_series || ' series', s.number_of_instances || ' images'),
       s.imaging_study_id, s.study_instance_uid
FROM imaging_study s WHERE s.patient_id = $1 AND s.status IS DISTINCT FROM 'entered-in-error'
""",
    Kind.FINDING: """
SELECT 'finding', any_value(coalesce(f.effective_time, f.issued_time))::DATE,
       any_value(coalesce(f.effective_time, f.issued_time)), NULL,
       any_value(coalesce(f.code_text, f.code_display, f.code, 'finding')), any_value(f.status),
       any_value(concat_ws(', ', coalesce(f.value_display, f.value_code, f.value_text,
                                          f.value_number || coalesce(' ' || f.value_unit, '')),
                           CASE WHEN f.asserted_by_ai THEN 'by AI' END, f.device)),
       f.observation_id, any_value(s.study_instance_uid)
FROM imaging_finding f JOIN imaging_study s
     ON s.study_instance_uid = f.study_instance_uid OR s.imaging_study_id = f.imaging_study_id
WHERE s.patient_id = $1 AND f.status IS DISTINCT FROM 'entered-in-error' GROUP BY f.observation_id
""",
    Kind.REPORT: """
SELECT 'report', coalesce(d.issued_time::DATE, d.effective_date), d.issued_time, NULL,
       coalesce(d.code_display, d.code, 'report'), d.status, coalesce(d.conclusion, left(d.report_text, 2000), ''),
       d.diagnostic_report_id, (SELECT min(l.study_instance_uid) FROM diagnostic_report_study l
                                WHERE l.diagnostic_report_id = d.diagnostic_report_id)
FROM diagnostic_report d WHERE d.patient_id = $1 AND d.status IS DISTINCT FROM 'entered-in-error'
""",
}
