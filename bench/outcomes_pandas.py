"""The same outcomes in pandas, as somebody would write them for this one definition. For bench.outcomes.

Reads the files of the lake's tables, only the columns it needs; prints how long reading and joining took, its peak
memory, and how many predictions have which outcome and class.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import Any

import orjson
import pandas as pd

from bench.outcome_lake import BENIGN, CANCER, NODULE, PATHOLOGY

WITHIN, FOLLOW_UP = 730, 365


def main() -> None:
    files: dict[str, list[str]] = orjson.loads(Path(sys.argv[1]).read_bytes())
    today = pd.Timestamp(sys.argv[2])
    started = time.monotonic()

    def read(table: str, *columns: str) -> Any:
        return pd.concat([pd.read_parquet(path, columns=list(columns)) for path in files[table]])

    findings = read("imaging_finding", "observation_id", "patient_key", "study_key", "status", "asserted_by_ai", "code",
                    "value_code", "confidence_percent", "device_id")  # fmt: skip
    studies = read("imaging_study", "study_key", "patient_key", "started_date")
    pathology = read("observation", "observation_id", "patient_key", "effective_date", "status", "code", "value_code")
    conditions = read("condition", "condition_id", "patient_key", "onset_date", "verification_status", "code")
    procedures = read("procedure", "patient_key", "performed_date")
    visits = read("encounter", "patient_key", "start_time")
    people = read("patient", "patient_key", "deceased_date", "birth_date", "gender")
    series = read("dicom_series", "study_key", "series_number", "series_instance_uid", "manufacturer",
                  "manufacturer_model_name", "modality")  # fmt: skip
    sites = read("dicom_study", "study_key", "institution_name")
    devices = read("device", "device_id", "model", "version")
    read_s, started = time.monotonic() - started, time.monotonic()

    rows = findings[findings.asserted_by_ai & (findings.code == NODULE)].merge(devices, on="device_id", how="left")
    rows = rows.merge(studies[["study_key", "started_date"]], on="study_key", how="left")
    rows = rows.merge(people, on="patient_key").merge(sites, on="study_key", how="left")
    first = series.sort_values(["study_key", "series_number", "series_instance_uid"]).drop_duplicates("study_key")
    rows = rows.merge(first, on="study_key", how="left")
    rows["index"] = pd.to_datetime(rows.started_date)
    sure = rows.confidence_percent / 100
    rows["score"] = sure.where(rows.value_code != "2667000", 1 - sure)
    rows["predicted"] = rows.score >= 0.5

    pathology = pathology[(pathology.code == PATHOLOGY) & pathology.status.isin(["final", "amended", "corrected"])]
    found = pathology[pathology.value_code.isin([CANCER, "363358000"])]
    cancer = conditions[(conditions.code == CANCER) & (conditions.verification_status == "confirmed")]
    facts = pd.concat([
        _facts(found, "observation_id", "effective_date", 0, "confirmed"),
        _facts(pathology[pathology.value_code == BENIGN], "observation_id", "effective_date", 1, "refuted"),
        _facts(cancer, "condition_id", "onset_date", 2, "confirmed"),
    ])  # fmt: skip
    pairs = rows[["observation_id", "patient_key", "index"]].merge(facts, on="patient_key")
    delay = (pairs.day - pairs["index"]).dt.days
    pairs = pairs[(delay >= 0) & (delay <= WITHIN) & (pairs.day <= today)]
    best = pairs.sort_values(["rule", "day", "id"]).drop_duplicates("observation_id")
    rows = rows.merge(best[["observation_id", "outcome", "day", "id"]], on="observation_id", how="left")

    days = [(pathology, "effective_date"), (conditions, "onset_date"), (procedures, "performed_date"),
            (visits, "start_time"), (studies, "started_date"), (people, "deceased_date")]  # fmt: skip
    seen = pd.concat([_days(frame, column) for frame, column in days])
    last = seen[seen.day <= today].groupby("patient_key").day.max().rename("last")
    rows = rows.merge(last, on="patient_key", how="left")
    undecided = rows.outcome.isna()
    over = rows["index"] + pd.Timedelta(days=WITHIN) <= today
    followed = rows["last"] >= rows["index"] + pd.Timedelta(days=FOLLOW_UP)
    rows.loc[undecided & ~over, "outcome"] = "pending"
    rows.loc[undecided & over & followed, "outcome"] = "refuted"
    rows.loc[undecided & over & ~followed, "outcome"] = "censored"
    counts = rows.groupby(["outcome", "predicted"]).size()
    told = {
        "read_s": read_s,
        "join_s": time.monotonic() - started,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "counts": sorted([str(o), bool(p), int(n)] for (o, p), n in counts.items()),
        "evidence": int(pd.util.hash_pandas_object(rows.id.dropna().sort_values(), index=False).sum() % 2**53),
        "decided": int(rows.id.notna().sum()),
    }
    sys.stdout.write(orjson.dumps(told).decode())


def _facts(frame: Any, id_: str, day: str, rule: int, outcome: str) -> Any:
    made = frame[["patient_key", id_, day]].rename(columns={id_: "id", day: "day"})
    return made.assign(rule=rule, outcome=outcome, day=pd.to_datetime(made.day))


def _days(frame: Any, column: str) -> Any:
    day = pd.to_datetime(frame[column])
    return pd.DataFrame({"patient_key": frame.patient_key, "day": day.dt.tz_localize(None) if day.dt.tz else day})


if __name__ == "__main__":
    main()
