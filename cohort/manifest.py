"""A cohort as a list of what to fetch: studies, series, instance counts and WADO-RS addresses (PS3.18 10.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson

from cohort.answer import Answer
from cohort.render import as_csv
from cohort.selection import Selection

COLUMNS = (
    "patient_id", "study_instance_uid", "started_date", "series_instance_uid", "modality", "number_of_instances",
    "wado_rs",
)  # fmt: skip
ADDRESSES = (
    "(SELECT list(DISTINCT rtrim(e.address, '/') ORDER BY rtrim(e.address, '/')) FROM imaging_endpoint x "
    "JOIN endpoint e USING (endpoint_id) WHERE x.study_instance_uid = s.study_instance_uid "
    "AND e.connection_type = 'dicom-wado-rs' AND e.status = 'active' AND regexp_matches(e.address, '^https?://'))"
)
"""The WADO-RS service bases of study `s`, from its active Endpoints."""

_SERIES = f"""
SELECT s.patient_id, s.study_instance_uid, min(i.started_date) AS started_date, r.series_instance_uid,
       min(r.modality) AS modality, max(r.number_of_instances) AS number_of_instances, {ADDRESSES} AS addresses
FROM selected_series x JOIN selected_study s USING (study_instance_uid)
JOIN imaging_study i USING (study_instance_uid)
JOIN imaging_series r ON r.study_instance_uid = x.study_instance_uid AND r.series_instance_uid = x.series_instance_uid
GROUP BY s.patient_id, s.study_instance_uid, r.series_instance_uid
ORDER BY s.patient_id, started_date, s.study_instance_uid, r.series_instance_uid
"""
"""Grouped: a study that the clinical side knows as well has two ImagingStudy resources, and is one study here."""


@dataclass(frozen=True)
class Manifest:
    """The series of a cohort in order of patient, date and UID; `head` says what was asked."""

    head: Mapping[str, Any]
    series: Sequence[Mapping[str, Any]]

    def as_json(self) -> bytes:
        """{question, parameters, date, generation, studies: [{…, wado_rs, series: [{…, wado_rs}]}]}; `wado_rs` lists
        the addresses at which the study, or the series, can be asked for. A study without an Endpoint has none."""
        studies: dict[str, dict[str, Any]] = {}
        for row in self.series:
            uid = row["study_instance_uid"]
            study = studies.setdefault(
                uid,
                {
                    "study_instance_uid": uid,
                    "patient_id": row["patient_id"],
                    "started_date": row["started_date"],
                    "number_of_instances": 0,
                    "wado_rs": [f"{address}/studies/{quote(uid)}" for address in row["addresses"] or ()],
                    "series": [],
                },
            )
            study["number_of_instances"] += row["number_of_instances"] or 0
            kept = ("series_instance_uid", "modality", "number_of_instances")
            study["series"].append({name: row[name] for name in kept} | {"wado_rs": series_addresses(row)})
        return orjson.dumps({**self.head, "studies": list(studies.values())}, option=orjson.OPT_INDENT_2)

    def as_csv(self) -> bytes:
        """One line for each series; several addresses are divided by spaces."""
        lines = [{**row, "wado_rs": " ".join(series_addresses(row))} for row in self.series]
        rows = tuple(tuple(line[name] for name in COLUMNS) for line in lines)
        return as_csv(Answer(tuple((name, "VARCHAR") for name in COLUMNS), rows, False, "", 0.0))


def manifest(selection: Selection) -> Manifest:
    """What to fetch of a cohort. Raises InvalidQuery as Selection.rows does."""
    head = {
        "question": selection.question.name,
        "parameters": selection.values,
        "date": selection.today.isoformat(),
        "generation": selection.generation.id,
    }
    return Manifest(head, selection.rows(_SERIES))


def series_addresses(row: Mapping[str, Any]) -> list[str]:
    """Where a series can be asked for, from a row with its UIDs and the `addresses` of its study."""
    path = f"studies/{quote(row['study_instance_uid'])}/series/{quote(row['series_instance_uid'])}"
    return [f"{address}/{path}" for address in row["addresses"] or ()]
