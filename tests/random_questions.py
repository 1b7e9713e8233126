"""Small random tables of a lake, and random questions about them: the same for the same seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any

from cohort.catalogue import column_types
from cohort.keys import KEYS, key
from cohort.kinds import KINDS, above, scope

TODAY = date(2024, 2, 29)
SYSTEM, OTHER = "http://snomed.info/sct", "http://loinc.org"
CODES = [(SYSTEM, "a"), (SYSTEM, "b"), (OTHER, "a"), (OTHER, "c")]
PATIENTS, STUDIES = [f"p{n}" for n in range(6)], [f"1.2.{n}" for n in range(9)]
WORDS: dict[str, list[Any]] = {
    "gender": ["male", "female", None],
    "status": ["final", "cancelled", "entered-in-error", "available", None],
    "intent": ["order", "plan", "instance-order", None],
    "verification_status": ["confirmed", "refuted", None],
    "modality": ["CT", "MR", None],
    "report_text": ["Nodule in the LUNG", "no nodule", None],
    "conclusion": ["Effusion", "normal", None],
    "value_unit": ["mg/dL", "g/L", None],
    "manufacturer": ["Fictive", "Example", None],
    "body_part_examined": ["CHEST", "KNEE", None],
}
TESTED = {
    "patient": ["gender", "birth_date", "deceased"],
    "condition": ["verification_status", "code"],
    "medication": ["status", "intent"],
    "procedure": ["status"],
    "encounter": ["status"],
    "implant": ["status", "manufacturer", "diameter_number"],
    "observation": ["value_number", "value_unit"],
    "report": ["text", "status"],
    "finding": ["value_number"],
    "study": ["modality", "status", "number_of_series"],
    "series": ["modality", "slice_thickness_mm", "manufacturer"],
    "acquisition": ["slice_thickness_mm"],
}


def day(r: Random) -> date | None:
    """A day near the day asked, or near its anniversaries; sometimes none."""
    if r.random() < 0.1:
        return None
    base = r.choice([TODAY, date(2023, 2, 28), date(2022, 3, 1), date(2020, 2, 29)])
    return base + timedelta(days=r.choice([-31, -30, -2, -1, 0, 0, 1, 2, 30]))


def tables(seed: int) -> dict[str, list[dict[str, Any]]]:
    """table → rows, with every column of the lake's tables."""
    r = Random(seed)
    made: dict[str, list[dict[str, Any]]] = {name: [] for name in column_types()}
    for n, patient in enumerate(PATIENTS[:5]):  # the last one is known to no table of patients
        born = r.choice([date(1980, 2, 29), date(1979, 2, 28), date(1979, 3, 1), date(2020, 2, 29), None])
        made["patient"].append(cells(r, "patient", patient_id=patient, birth_date=born))
        for _ in range(r.randrange(3)):
            value = r.choice(["1", "2"])
            made["patient_identifier"].append(cells(r, "patient_identifier", patient_id=patient, value=f"{n}-{value}"))
    for uid in STUDIES:
        of_study = {"study_instance_uid": uid, "patient_id": r.choice(PATIENTS)}
        modalities = r.sample(["CT", "MR", "SR"], r.randrange(3))
        own = of_study | {"imaging_study_id": f"i{uid}", "modalities": sorted(modalities)}
        own |= {"modalities_in_study": "".join(f"\\{m}" for m in sorted(modalities)) + "\\" * bool(modalities)}
        made["imaging_study"].append(cells(r, "imaging_study", **own))
        for modality in modalities:
            made["imaging_study_modality"].append(of_study | {"modality": modality})
        for n in range(r.randrange(3)):
            series = f"{uid}.{n}"
            made["dicom_series"].append(cells(r, "dicom_series", study_instance_uid=uid, series_instance_uid=series))
            made["dicom_instance"].append(
                cells(
                    r,
                    "dicom_instance",
                    study_instance_uid=uid,
                    series_instance_uid=series,
                    sop_instance_uid=f"{series}.1",
                )
            )
        if r.random() < 0.5:
            made["imaging_endpoint"].append(of_study | {"endpoint_id": "e1"})
    made["endpoint"].append(cells(r, "endpoint", endpoint_id="e1", address="https://pacs.example"))
    for n, (system, code) in enumerate(CODES[:3]):
        made["device"].append(cells(r, "device", device_id=f"d{n}", type_system=system, type_code=code))
    for kind in ("condition", "medication", "procedure", "encounter", "observation", "report", "finding"):
        spec = KINDS[kind]
        for n in range(r.randrange(10, 16)):
            own = {spec.id: f"{kind[0]}{n}", "patient_id": r.choice(PATIENTS)}
            if kind == "finding":
                own |= {"imaging_study_id": None, "study_instance_uid": None}
            row = cells(r, spec.table, **own)
            for _ in range(r.choice([1, 1, 2]) if spec.codings else 1):
                if spec.codes:
                    row = row | dict(zip(spec.codes, r.choice([*CODES, (None, None)]), strict=True))
                if kind == "finding":
                    uid = r.choice([*STUDIES, "gone"])
                    row |= r.choice([{"imaging_study_id": f"i{uid}"}, {"study_instance_uid": uid}, {}])
                if row not in made[spec.table]:
                    made[spec.table].append(row)
    for procedure in r.sample(made["procedure"], 6):
        own = {
            c: procedure[c] for c in ("procedure_id", "patient_id", "performed_date", "performed_start_date", "status")
        }
        for device in r.sample(["d0", "d1", "d2", "gone", None], r.choice([1, 1, 2])):
            made["procedure_device"].append(cells(r, "procedure_device", device_id=device, **own))
    for report in made["diagnostic_report"]:
        own = [s["study_instance_uid"] for s in made["imaging_study"] if s["patient_id"] == report["patient_id"]]
        about = own if r.random() < 0.7 else [*STUDIES, "1.9"]
        for uid in r.sample(about, min(len(about), r.randrange(3))):
            link = cells(r, "diagnostic_report_study", study_instance_uid=uid, patient_id=report["patient_id"])
            link |= {c: report[c] for c in ("diagnostic_report_id", "status")}
            made["diagnostic_report_study"].append(link)
    made["disputed_study"] = disputed(made)
    made["condition_by_code"] = made["condition"]
    for rows in made.values():
        for row in rows:
            row |= {name: row.get(of) and key(row[of]) for of, name in KEYS.items() if of in row}
            row["subject_key"] = row.get("patient_key")
    return made


def disputed(made: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The studies of which studies and reports name several patients, or none."""
    named: dict[str, set[str | None]] = {}
    for row in (*made["imaging_study"], *made["diagnostic_report_study"]):
        if row["study_instance_uid"] is not None:
            named.setdefault(row["study_instance_uid"], set()).add(row["patient_id"])
    return [{"study_instance_uid": uid} for uid, who in sorted(named.items()) if len(who) > 1 or None in who]


def cells(r: Random, table: str, **own: Any) -> dict[str, Any]:
    """A row with random values in the columns that are not given."""
    row: dict[str, Any] = {}
    for column, kind in column_types()[table].items():
        if column in WORDS:
            row[column] = r.choice(WORDS[column])
        elif kind == "DATE":
            row[column] = day(r)
        elif kind.startswith("TIMESTAMP"):
            on = day(r)
            row[column] = on and datetime(on.year, on.month, on.day, r.randrange(24), tzinfo=UTC)
        elif kind == "DOUBLE":
            row[column] = r.choice([0.5, 1.0, 2.5, None])
        elif kind in ("INTEGER", "BIGINT"):
            row[column] = r.choice([0, 1, 2, None])
        else:
            row[column] = r.choice([True, False, None]) if kind == "BOOLEAN" else r.choice(["x", "y", None])
    return row | own


def document(seed: int) -> dict[str, Any]:
    """A question document that can be read."""
    r = Random(seed)
    unit = r.choice(["patient", "patient", "study", "study", "series", "acquisition", "report", "medication", "finding",
                     "observation", "encounter", "condition"])  # fmt: skip
    indexed = r.random() < 0.5
    made: dict[str, Any] = {"name": "q", "title": "Random", "description": "A random question"}
    if indexed:
        kind = r.choice([k for k in KINDS if k != "patient"])
        settings = event(r, kind, "patient", indexed=False, depth=1)
        for key in ("relation", "times", "of", "then", "take"):
            settings.pop(key, None)
        made["index"] = {kind: settings | {"take": r.choice(["first", "last"])}}
    made["criteria"] = criterion(r, unit, indexed=indexed, depth=0)
    return made | {"return": returns(r, unit, indexed=indexed)}


def returns(r: Random, unit: str, *, indexed: bool) -> dict[str, Any]:
    """Columns of the unit, of what it belongs to and of other tables, or counts, which are not by lists."""
    types = column_types()[KINDS[unit].table]
    own = [c for c in types if not types[c].startswith("TIME")]
    columns = [*r.sample(own, 2), "age_years", "age_decade", "patient.gender" if unit != "patient" else "gender"]
    if unit != "patient":
        columns += ["age_at_day_years", "day"]
    if indexed:
        columns += ["index_date", "age_at_index_years"]
    if "study" in (unit, *above(unit)):
        columns += ["study.description" if unit != "study" else "description", "started_month", "started_year"]
    lists = ["identifiers", "medications", "reports", "report_ids", "condition.code"]
    if "study" in (unit, *above(unit), "finding") and unit not in ("report", "patient", "medication", "finding"):
        lists += ["modalities", "endpoints"] if "study" in KINDS[unit].levels else []
    chosen = list(dict.fromkeys(r.sample(columns, r.randrange(1, 4))))
    if r.random() < 0.3:
        return {"unit": unit, "group_by": [c for c in chosen if c != "modalities"] or ["age_decade"]}
    return {"unit": unit, "columns": list(dict.fromkeys([KINDS[unit].id, *chosen, *r.sample(lists, r.randrange(3))]))}


def criterion(r: Random, unit: str, *, indexed: bool, depth: int) -> dict[str, Any]:
    """A criterion, nested three deep at most."""
    choice = r.random()
    if depth < 3 and choice < (0.75 if depth == 0 else 0.25):
        of = [criterion(r, unit, indexed=indexed, depth=depth + 1) for _ in range(r.randrange(1, 4))]
        kind = r.choice(["all", "all", "any", "not", "at_least"])
        if kind == "not":
            return {"not": of[0]}
        return {kind: of if kind != "at_least" else {"count": r.randrange(1, len(of) + 1), "of": of}}
    if choice > 0.85:
        at = r.choice(["today", *(["index"] if indexed else []), *(["unit"] if unit != "patient" else [])])
        return {
            "age": {
                "at": at,
                r.choice(["older_than_years", "at_least_years", "younger_than_years"]): r.choice([4, 44, 45]),
            }
        }
    kind = r.choice(list(KINDS))
    return {kind: event(r, kind, unit, indexed=indexed, depth=depth)}


def event(r: Random, kind: str, unit: str, *, indexed: bool, depth: int) -> dict[str, Any]:
    """The settings of an event criterion."""
    made: dict[str, Any] = {}
    spec = KINDS[kind]
    if spec.codes and r.random() < 0.4:
        system, code = r.choice(CODES)
        made["codes"] = r.choice([{"system": system, "code": code}, [{"system": SYSTEM, "code": ["a", "b"]}]])
    if r.random() < 0.5:
        made["where"] = tests(r, kind)
    if r.random() < 0.15:
        made["of"] = "patient"
    whose = scope(unit, kind, made.get("of", ""))
    if spec.day and r.random() < 0.3:
        made["period"] = r.choice(
            [{"within_years": r.choice([1, 2])}, {"within_days": 1}, {"at_least_days_ago": 1},
             {"from": date(2022, 3, 1)}, {"until": "2023-02-28", "from": "2020-02-29"}]
        )  # fmt: skip
    tos = [*(["index"] if indexed else []), *(["unit"] if KINDS[unit].day and whose != "self" else [])]
    if spec.day and tos and r.random() < 0.6:
        made["relation"] = {"to": r.choice(tos)} | r.choice(
            [{"within_days": 30}, {"before_days": 30}, {"after_days": 1, "before_days": 2}, {"before": True},
             {"after": True, "after_days": 400}, {"overlaps": True}]
        )  # fmt: skip
    if spec.day and r.random() < 0.2:
        made["take"] = r.choice(["first", "last"])
        if r.random() < 0.5:
            made["then"] = tests(r, kind)
    elif whose != "self" and kind != "patient" and r.random() < 0.2:
        made["times"] = r.choice([2, 3])
    if depth < 2 and r.random() < 0.2:
        made["having"] = criterion(r, kind, indexed=False, depth=2)
    return made


def tests(r: Random, kind: str) -> dict[str, Any]:
    """A test of a column."""
    column = r.choice(TESTED[kind])
    if column == "modality" and kind == "study":
        return {column: r.choice(["CT", {"not": "MR"}, {"is": ["CT", "MR"]}])}
    if column in ("value_number", "slice_thickness_mm", "number_of_series", "diameter_number"):
        return {column: r.choice([1, {"at_least": 1}, {"less_than": 2.5}, {"more_than": 0.5, "at_most": 1}])}
    if column == "birth_date":
        return {column: r.choice([{"at_least": "1979-03-01"}, {"present": False}])}
    if column == "deceased":
        return {column: r.choice([True, {"not": True}])}
    if column in ("text", "code"):
        word = "nodule" if column == "text" else "A"
        return {column: r.choice([{"contains": word}, {"starts_with": ["No", "b"]}])}
    known = [w for w in WORDS[column] if w is not None]
    return {column: r.choice([r.choice(known), known[:2], {"not": r.choice(known)}, {"present": r.random() < 0.5}])}
