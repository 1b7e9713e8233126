"""A question → one SELECT with bound values. Pure. Column and table names come from here, never from a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from bridge.errors import InvalidQuery
from cohort.question import Criterion, Question, with_values

CodeLists = Mapping[str, Sequence[tuple[str, str]]]
"""list name → (system, code)."""

PRESCRIBED_NOT = ("entered-in-error", "cancelled", "draft")
PRESCRIBED_INTENT = ("order", "original-order", "reflex-order", "filler-order", "instance-order")
REPORT_NOT = ("entered-in-error", "cancelled")


@dataclass
class _Builder:
    """Collects bound values in the order their marks appear."""

    date: date
    values: Mapping[str, Any]
    lists: CodeLists
    unit: str
    bound: list[Any] = field(default_factory=list)

    def mark(self, value: Any) -> str:
        self.bound.append(value)
        return f"${len(self.bound)}"

    def marks(self, values: Sequence[Any]) -> str:
        return "(" + ", ".join(self.mark(v) for v in values) + ")"

    def today(self) -> str:
        return f"{self.mark(self.date.isoformat())}::DATE"

    def years_ago(self, years: float) -> str:
        if years == int(years):
            return f"({self.today()} - to_years({self.mark(int(years))}))::DATE"
        return f"({self.today()} - to_months({self.mark(round(years * 12))}))::DATE"


def compile_question(
    question: Question, given: Mapping[str, Any], today: date, lists: CodeLists
) -> tuple[str, list[Any]]:
    """(SQL, bound values) of a question asked on a day. Raises InvalidQuery naming a parameter or a code list.

    Ages are true ages: older than n years means that the n-th birthday lies before the day asked. A period of n
    years includes both its ends.
    """
    builder = _Builder(today, with_values(question, given), lists, question.unit)
    wanted = question.columns or question.group_by
    columns = ", ".join(f'{_column(name, builder)} AS "{name}"' for name in wanted)
    where = _criterion(question.criteria, builder)
    tables = {
        "patient": "patient p",
        "study": "imaging_study s JOIN patient p USING (patient_key)",
        "series": "dicom_series r JOIN imaging_study s USING (study_key) JOIN patient p USING (patient_key)",
    }[question.unit]
    if question.group_by:
        counts = f"count(*) AS {_COUNTED[question.unit]}"
        if question.unit != "patient":
            counts += ", count(DISTINCT p.patient_key) AS patients"
        return f"SELECT {columns}, {counts} FROM {tables} WHERE {where} GROUP BY ALL ORDER BY ALL", builder.bound
    order = {"patient": "p.patient_id", "study": "p.patient_id, s.started_date, s.study_instance_uid"}.get(
        question.unit, "p.patient_id, s.started_date, s.study_instance_uid, r.series_instance_uid"
    )
    return f"SELECT {columns} FROM {tables} WHERE {where} ORDER BY {order}", builder.bound


_COUNTED = {"patient": "patients", "study": "studies", "series": "series"}

_PLAIN = {
    "patient_id": "p.patient_id",
    "birth_date": "p.birth_date",
    "gender": "p.gender",
    "study_instance_uid": "s.study_instance_uid",
    "started_date": "s.started_date",
    "started_month": "date_trunc('month', s.started_date)::DATE",
    "started_year": "year(s.started_date)",
    "description": "s.description",
    "accession_number": "s.accession_number",
    "number_of_series": "s.number_of_series",
    "number_of_instances": "s.number_of_instances",
    "instances_in_series": "r.number_of_instances",
    "modalities": "(SELECT list(DISTINCT m.modality ORDER BY m.modality) FROM imaging_study_modality m "
    "WHERE m.study_key = s.study_key)",
    "identifiers": "(SELECT list(DISTINCT i.value ORDER BY i.value) FROM patient_identifier i "
    "WHERE i.patient_key = p.patient_key)",
    "endpoints": "(SELECT list(DISTINCT e.address || '/studies/' || s.study_instance_uid) FROM imaging_endpoint x "
    "JOIN endpoint e USING (endpoint_id) WHERE x.study_key = s.study_key)",
}


def _column(name: str, builder: _Builder) -> str:
    if name in _PLAIN:
        return _PLAIN[name]
    if name == "age_years":
        return f"date_sub('year', p.birth_date, {builder.today()})"
    if name == "age_decade":
        return f"(date_sub('year', p.birth_date, {builder.today()}) // 10) * 10"
    if name == "medications":
        shown = "coalesce(m.medication_display, m.medication_text, m.medication_code)"
        return (
            f"(SELECT list(x ORDER BY x) FROM (SELECT DISTINCT {shown} "
            "|| coalesce(' (' || m.authored_date || ')', '') AS x "
            f"FROM medication_request m WHERE m.patient_key = p.patient_key AND {_prescribed(builder)}))"
        )
    if name in ("reports", "report_ids"):
        shown = "coalesce(d.report_text, d.conclusion)" if name == "reports" else "d.diagnostic_report_id"
        return f"(SELECT list({shown} ORDER BY d.issued_time, d.diagnostic_report_id) FROM {_reports(builder)})"
    return f"r.{name}"


def _prescribed(builder: _Builder) -> str:
    return f"m.status NOT IN {builder.marks(PRESCRIBED_NOT)} AND m.intent IN {builder.marks(PRESCRIBED_INTENT)}"


def _reports(builder: _Builder) -> str:
    return (
        "diagnostic_report_study l JOIN diagnostic_report d USING (report_key) "
        f"WHERE l.study_key = s.study_key AND d.status NOT IN {builder.marks(REPORT_NOT)}"
    )


def _criterion(criterion: Criterion, builder: _Builder) -> str:
    if criterion.kind in ("all", "any"):
        parts = [_criterion(c, builder) for c in criterion.of]
        return "(" + (" AND " if criterion.kind == "all" else " OR ").join(parts) + ")" if parts else "true"
    if criterion.kind == "not":
        return f"NOT coalesce({_criterion(criterion.of[0], builder)}, false)"
    settings = {name: _value(value, builder) for name, value in criterion.settings.items()}
    return "(" + " AND ".join(_KINDS[criterion.kind](settings, builder) or ["true"]) + ")"


def _value(value: Any, builder: _Builder) -> Any:
    return builder.values[value[1:]] if isinstance(value, str) and value.startswith("$") else value


def _texts(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def _age(settings: Mapping[str, Any], builder: _Builder) -> list[str]:
    signs = {"older_than_years": "<", "at_least_years": "<=", "younger_than_years": ">"}
    return [f"p.birth_date {signs[name]} {builder.years_ago(years)}" for name, years in settings.items()]


def _gender(settings: Mapping[str, Any], builder: _Builder) -> list[str]:
    return [f"p.gender IN {builder.marks(_texts(settings['is']))}"] if "is" in settings else []


def _codes(name: str, alias: str, columns: tuple[str, str], builder: _Builder) -> str:
    found = builder.lists.get(name)
    if not found:
        raise InvalidQuery(f"code list {name}: not in mappings/codes; known: {', '.join(sorted(builder.lists))}")
    pairs = ", ".join(f"({builder.mark(system)}, {builder.mark(code)})" for system, code in found)
    return f"({alias}.{columns[0]}, {alias}.{columns[1]}) IN ({pairs})"


def _event(
    table: str, alias: str, day: str, columns: tuple[str, str], settings: Mapping[str, Any], builder: _Builder
) -> list[str]:
    """A clinical fact about the patient: its code, its day, its status."""
    conditions = [f"{alias}.patient_key = p.patient_key"]
    if "codes" in settings:
        conditions.append(_codes(settings["codes"], alias, columns, builder))
    if "within_years" in settings:
        conditions.append(f"{day} BETWEEN {builder.years_ago(settings['within_years'])} AND {builder.today()}")
    for name, column in (("not_status", "status"), ("not_verification", "verification_status")):
        if name in settings:
            conditions.append(f"coalesce({alias}.{column}, '') NOT IN {builder.marks(_texts(settings[name]))}")
    if "intent" in settings:
        conditions.append(f"{alias}.intent IN {builder.marks(_texts(settings['intent']))}")
    if "unit" in settings:
        conditions.append(f"{alias}.value_unit = {builder.mark(settings['unit'])}")
    for name, sign in (("at_least", ">="), ("at_most", "<=")):
        if name in settings:
            conditions.append(f"{alias}.value_number {sign} {builder.mark(settings[name])}")
    return [f"EXISTS (SELECT 1 FROM {table} {alias} WHERE {' AND '.join(conditions)})"]


def _condition(settings: Mapping[str, Any], builder: _Builder) -> list[str]:
    return _event(
        "condition", "c", "coalesce(c.onset_date, c.recorded_date)", ("code_system", "code"), settings, builder
    )


def _medication(settings: Mapping[str, Any], builder: _Builder) -> list[str]:
    columns = ("medication_system", "medication_code")
    return _event("medication_request", "q", "q.authored_date", columns, settings, builder)


def _procedure(settings: Mapping[str, Any], builder: _Builder) -> list[str]:
    day = "coalesce(o.performed_date, o.performed_start_date)"
    return _event('"procedure"', "o", day, ("code_system", "code"), settings, builder)


def _observation(settings: Mapping[str, Any], builder: _Builder) -> list[str]:
    return _event("observation", "v", "v.effective_date", ("code_system", "code"), settings, builder)


def _report(settings: Mapping[str, Any], builder: _Builder) -> list[str]:
    conditions = ["d.patient_key = p.patient_key"]
    if builder.unit != "patient":
        conditions.append("l.study_key = s.study_key")
    if "not_status" in settings:
        conditions.append(f"d.status NOT IN {builder.marks(_texts(settings['not_status']))}")
    if "text_contains" in settings:
        text = "lower(coalesce(d.report_text, '') || ' ' || coalesce(d.conclusion, ''))"
        conditions.append(f"contains({text}, lower({builder.mark(settings['text_contains'])}))")
    joined = "diagnostic_report d LEFT JOIN diagnostic_report_study l USING (report_key)"
    return [f"EXISTS (SELECT 1 FROM {joined} WHERE {' AND '.join(conditions)})"]


def _study(settings: Mapping[str, Any], builder: _Builder) -> list[str]:
    conditions: list[str] = []
    if "status" in settings:
        conditions.append(f"s.status IN {builder.marks(_texts(settings['status']))}")
    if "modality" in settings:
        conditions.append(
            "EXISTS (SELECT 1 FROM imaging_study_modality m WHERE m.study_key = s.study_key "
            f"AND m.modality IN {builder.marks(_texts(settings['modality']))})"
        )
    if "within_years" in settings:
        conditions.append(f"s.started_date BETWEEN {builder.years_ago(settings['within_years'])} AND {builder.today()}")
    if "description_contains" in settings:
        conditions.append(f"contains(lower(s.description), lower({builder.mark(settings['description_contains'])}))")
    if "has_report" in settings:
        conditions.append(f"{'' if settings['has_report'] else 'NOT '}EXISTS (SELECT 1 FROM {_reports(builder)})")
    if builder.unit != "patient":
        return conditions
    inner = " AND ".join(["s.patient_key = p.patient_key", *conditions])
    return [f"EXISTS (SELECT 1 FROM imaging_study s WHERE {inner})"]


def _series(settings: Mapping[str, Any], builder: _Builder) -> list[str]:
    conditions: list[str] = []
    for name, column in (("modality", "modality"), ("body_part", "body_part_examined")):
        if name in settings:
            conditions.append(f"r.{column} IN {builder.marks(_texts(settings[name]))}")
    for name, sign in (("slice_thickness_at_most_mm", "<="), ("slice_thickness_at_least_mm", ">=")):
        if name in settings:
            conditions.append(f"r.slice_thickness_mm {sign} {builder.mark(settings[name])}")
    if "contrast" in settings:
        conditions.append(f"r.contrast_bolus_agent IS {'NOT ' if settings['contrast'] else ''}NULL")
    if builder.unit == "series":
        return conditions
    if builder.unit == "study":
        inner = " AND ".join(["r.study_key = s.study_key", *conditions])
        return [f"EXISTS (SELECT 1 FROM dicom_series r WHERE {inner})"]
    inner = " AND ".join(["s.patient_key = p.patient_key", *conditions])
    return [f"EXISTS (SELECT 1 FROM dicom_series r JOIN imaging_study s USING (study_key) WHERE {inner})"]


_KINDS = {
    "age": _age,
    "gender": _gender,
    "condition": _condition,
    "medication": _medication,
    "procedure": _procedure,
    "observation": _observation,
    "report": _report,
    "study": _study,
    "series": _series,
}
