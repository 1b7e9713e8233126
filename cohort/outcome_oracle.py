"""The judge of outcomes: evaluates a definition row by row in plain Python, slowly. Pure.

It shares no code with the compiler. For small data: tests hold the engine to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from cohort.kinds import LINKED
from cohort.oracle import Tables, events
from cohort.outcome import Definition, Evidence
from cohort.question import Event

Row = dict[str, Any]
_YES, _NO = ("52101004", "373066001"), ("2667000", "373067005")
_NOT_SCANNED = {"SR", "PR", "KO", "SEG", "REG", "DOC", "AU", "RTSTRUCT", "RTPLAN", "RTDOSE", "RTRECORD"}
_CONTACT = ("condition", "procedure", "observation", "report", "medication", "encounter", "study")
_TYPES = {
    "condition": "Condition", "procedure": "Procedure", "observation": "Observation", "report": "DiagnosticReport",
    "finding": "Observation", "medication": "MedicationRequest", "encounter": "Encounter", "implant": "Procedure",
    "death": "Patient",
}  # fmt: skip


def rows(definition: Definition, tables: Tables, today: date, model: str = "", version: str | None = None) -> list[Row]:
    """The rows as `cohort.outcome_rows` defines them, in order of the predictions' ids."""
    made = (_row(definition, tables, today, cells) for cells in _predictions(definition, tables))
    wanted = [r for r in made if r and (not model or r["model"] == model)]
    return sorted(
        (r for r in wanted if version is None or r["model_version"] == version), key=lambda r: str(r["prediction_id"])
    )


def _predictions(definition: Definition, tables: Tables) -> list[list[Mapping[str, Any]]]:
    wanted = {id_ for id_, *_ in events(definition.finding, tables, date.max)}
    found: dict[Any, list[Mapping[str, Any]]] = {}
    for cells in tables.get("imaging_finding", ()):
        never = cells["status"] == "cancelled" or (cells["status"] == "entered-in-error" and cells["made_time"] is None)
        if cells["observation_id"] in wanted and cells["asserted_by_ai"] and not never and cells["status"] is not None:
            found.setdefault(cells["observation_id"], []).append(cells)
    return list(found.values())


def _row(definition: Definition, tables: Tables, today: date, cells: list[Mapping[str, Any]]) -> Row | None:
    one = cells[0]
    patient = next((p for p in tables["patient"] if p["patient_id"] == one["patient_id"]), None)
    if patient is None:
        return None
    study = _study(tables, cells)
    started = study["started_date"] if study else None
    made_at = one["made_time"] or one["issued_time"] or one["effective_time"]
    seen = started or _day(one["effective_time"]) or _day(one["issued_time"])
    if made_at is None or _day(made_at) > today:
        return None
    index = seen if definition.index == "study" else _day(made_at)
    answer, score = _answer(definition, one), None
    certain = _certain(one)
    if certain is not None:
        score = 1.0 - certain if definition.certain_of_answer and answer is False else certain
        score = score if 0 <= score <= 1 else None
    predicted = answer if score is None else score >= definition.threshold
    number = one["made_value_number"] if one["made_time"] else one["value_number"]
    own = {"patient": one["patient_id"], "study": study["study_key"] if study else None, "number": number}
    found = _evidence(definition, tables, today, own, index) if index else None
    device = next((d for d in tables.get("device", ()) if d["device_id"] == one["device_id"]), {})
    agrees, at = _reader(definition, tables, today, one, own, predicted)
    return {
        "prediction_id": one["observation_id"], "patient": one["patient_id"],
        "study_instance_uid": study["study_instance_uid"] if study else None,
        "model": device.get("model") or one["device"], "model_version": device.get("version"),
        "finding_system": one["code_system"], "finding_code": one["code"], "score": score,
        "threshold": definition.threshold, "predicted": predicted,
        "outcome": found[3] if found else _without(definition, tables, today, own["patient"], index),
        "evidence_kind": found[2] if found else None, "evidence_date": found[0] if found else None,
        "index_date": index, "predicted_at": made_at,
        "delay_days": (found[0] - index).days if found and index else None,
        "reader_agrees": agrees, "reader_at": at if agrees is not None else None,
        **_scanner(tables, one, study), "site": _site(tables, study), "age_band": _band(patient["birth_date"], index),
        "sex": patient["gender"], "_evidence_type": _TYPES[found[2]] if found else None,
        "_evidence_id": found[1] if found else None,
    }  # fmt: skip


def _study(tables: Tables, cells: list[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Of the studies it is about the one with the lowest key; one that the lake does not have is none."""
    keys = set()
    for c in cells:
        referred = [
            s["study_key"] for s in tables.get("imaging_study", ()) if s["imaging_study_id"] == c["imaging_study_id"]
        ]
        keys |= set(referred) if referred and c["imaging_study_id"] is not None else {c["study_key"]} - {None}
    lowest = min(keys, default=None)
    known = next((s for s in tables.get("imaging_study", ()) if s["study_key"] == lowest), None)
    if known is None and lowest is not None:
        return {"study_key": lowest, "study_instance_uid": None, "started_date": None}
    return known


def _answer(definition: Definition, one: Mapping[str, Any]) -> bool | None:
    code = one["made_value_code"] if one["made_time"] else one["value_code"]
    if definition.positive and code is not None:
        return code in {c for _, c in definition.positive}
    if code in _YES:
        return True
    return False if code in _NO else one["value_boolean"]


def _certain(one: Mapping[str, Any]) -> float | None:
    if one["made_time"]:
        percent = one["made_confidence_percent"]
        return None if percent is None else float(percent) / 100
    if one["confidence_percent"] is not None:
        return float(one["confidence_percent"]) / 100
    fraction = one["confidence_fraction"]
    return None if fraction is None else float(fraction)


Fact = tuple[Any, Any, str, Any]
"""(day, id, kind, the table's rows)."""

Found = tuple[Any, Any, str, str]


def _evidence(definition: Definition, tables: Tables, today: date, own: Mapping[str, Any], index: date) -> Found | None:
    """(day, id, kind, outcome) of the fact that counts."""
    ranked = []
    for n, rule in enumerate(definition.evidence):
        first, last = index - timedelta(rule.before_days), index + timedelta(rule.after_days)
        for day, id_, kind, cells in _facts(rule, tables, today, own):
            if day is None or not first <= day <= min(last, today):
                continue
            ranked += [(n, day, id_, kind, outcome) for outcome in _outcomes(rule, cells, own["number"])]
    order = {
        "listed": lambda r: (r[0], r[1], r[2], r[4]),
        "earliest": lambda r: (r[1], r[0], r[2], r[4]),
        "latest": lambda r: (-r[1].toordinal(), r[0], r[2], r[4]),
    }[definition.precedence.value]
    first_one = min(ranked, key=order, default=None)
    return first_one[1:] if first_one else None


def _facts(rule: Evidence, tables: Tables, today: date, own: Mapping[str, Any]) -> list[Fact]:
    if rule.event is None:
        return [
            (p["deceased_date"], p["patient_id"], "death", ())
            for p in tables["patient"]
            if p["patient_id"] == own["patient"]
        ]
    kind, made = rule.event.kind, []
    uids = {s["study_instance_uid"] for s in tables.get("imaging_study", ()) if s["study_key"] == own["study"]}
    for id_, patient, day, studies, cells in events(rule.event, tables, today):
        of_study = kind in LINKED and not rule.event.of
        if bool(uids & studies) if of_study else patient == own["patient"]:
            made.append((day, id_, kind, cells))
    return made


def _outcomes(rule: Evidence, cells: Any, predicted: float | None) -> list[str]:
    if rule.agreement is None:
        return [rule.outcome.value]
    column, within = rule.agreement.column, rule.agreement.within
    numbers = [c[column] for c in cells if predicted is not None and c[column] is not None]
    return ["confirmed" if abs(number - predicted) <= within else "refuted" for number in numbers]


def _without(definition: Definition, tables: Tables, today: date, patient: Any, index: date | None) -> str:
    if index is None:
        return "censored"
    if today < index + timedelta(definition.within_days):
        return "pending"
    days = [p["deceased_date"] for p in tables["patient"] if p["patient_id"] == patient]
    days += [day for kind in _CONTACT for _, who, day, *_ in events(Event(kind), tables, today) if who == patient]
    last = max((d for d in days if d is not None and d <= today), default=None)
    enough = last is not None and last >= index + timedelta(definition.follow_up_days)
    return definition.without_evidence.value if enough else "censored"


def _reader(
    definition: Definition, tables: Tables, today: date, one: Mapping[str, Any], own: Mapping[str, Any],
    predicted: bool | None,
) -> tuple[bool | None, datetime | None]:  # fmt: skip
    before, now = one["made_value_code"], one["value_code"]
    changed = one["made_time"] and before is not None and now is not None and before != now
    if one["status"] == "entered-in-error" or changed:
        return False, one["issued_time"]
    if one["asserted_by_clinician"]:
        return True, one["issued_time"]
    found = []
    for n, rule in enumerate(definition.reader):
        for day, id_, kind, _ in _facts(rule, tables, today, own):
            found.append((n, day or date.max, id_, kind, rule.outcome.value))
    if not found or predicted is None:
        return None, None
    _, day, id_, kind, outcome = min(found)
    issued = [r["issued_time"] for r in tables.get("diagnostic_report", ()) if r["diagnostic_report_id"] == id_]
    at = issued[0] if kind == "report" and issued else None
    midnight = datetime.combine(day, time(), UTC) if day != date.max else None
    return (outcome == "confirmed") == predicted, at or midnight


def _scanner(tables: Tables, one: Mapping[str, Any], study: Mapping[str, Any] | None) -> Row:
    names = {"modality": "modality", "manufacturer": "manufacturer", "model_name": "manufacturer_model_name"}
    all_series = tables.get("dicom_series", ())
    own: Mapping[str, Any] = next(
        (s for s in all_series if one["series_key"] is not None and s["series_key"] == one["series_key"]), {}
    )
    mine = [
        s for s in all_series if study and s["study_key"] == study["study_key"] and s["modality"] not in _NOT_SCANNED
    ]
    order = sorted(mine, key=lambda s: (s["series_number"] is None, s["series_number"] or 0, s["series_instance_uid"]))
    first: Mapping[str, Any] = order[0] if order else {}
    return {n: own.get(c) if own.get(c) is not None else first.get(c) for n, c in names.items()}


def _site(tables: Tables, study: Mapping[str, Any] | None) -> Any:
    named = [
        s["institution_name"] for s in tables.get("dicom_study", ()) if study and s["study_key"] == study["study_key"]
    ]
    return named[0] if named else None


def _band(born: date | None, day: date | None) -> str | None:
    if born is None or day is None or born > day:
        return None
    decade = (day.year - born.year - ((day.month, day.day) < (born.month, born.day))) // 10 * 10
    return "90+" if decade >= 90 else f"{decade}-{decade + 9}"


def _day(moment: Any) -> Any:
    return moment.astimezone(UTC).date() if moment else None
