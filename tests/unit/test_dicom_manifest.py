from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from pydicom import dcmread

from bridge.errors import InvalidQuery
from cohort.catalogue import question
from cohort.manifest import manifest
from cohort.omop import omop
from cohort.omop_maps import ConceptMap, PersonMap
from cohort.sandbox import run
from cohort.selection import Selection
from hospital import founding_answer
from tests.hospital_lake import TODAY, HospitalLake, resource_line

BASE = "http://127.0.0.1:8042/dicom-web"


def selected(hospital: HospitalLake, name: str) -> Selection:
    return Selection(hospital.generation, question(name), {}, TODAY, run)


def test_it_lists_every_series_of_the_studies_that_answer(hospital: HospitalLake) -> None:
    told = orjson.loads(manifest(selected(hospital, "osteosarcoma-ct")).as_json())
    wanted = {uid for _, uid in founding_answer(hospital.hospital)}
    held: Counter[tuple[str, str]] = Counter()
    for file in hospital.dicom.rglob("*.dcm"):
        header = dcmread(file, specific_tags=["StudyInstanceUID", "SeriesInstanceUID"])
        held[header.StudyInstanceUID, header.SeriesInstanceUID] += 1
    assert {
        (study["study_instance_uid"], series["series_instance_uid"]): series["number_of_instances"]
        for study in told["studies"]
        for series in study["series"]
    } == {key: count for key, count in held.items() if key[0] in wanted}
    assert told["generation"] == "g000001" and told["date"] == "2026-01-01"


def test_addresses_lead_to_study_and_series(hospital: HospitalLake) -> None:
    study = orjson.loads(manifest(selected(hospital, "osteosarcoma-ct")).as_json())["studies"][0]
    base = f"{BASE}/studies/{study['study_instance_uid']}"
    assert study["wado_rs"] == [base]
    assert [s["wado_rs"] for s in study["series"]] == [
        [f"{base}/series/{s['series_instance_uid']}"] for s in study["series"]
    ]


def test_csv_has_one_line_for_each_series(hospital: HospitalLake) -> None:
    found = manifest(selected(hospital, "osteosarcoma-ct"))
    lines = list(csv.DictReader(io.StringIO(found.as_csv().decode())))
    assert [line["series_instance_uid"] for line in lines] == [s["series_instance_uid"] for s in found.series]
    assert lines[0]["wado_rs"].startswith(f"{BASE}/studies/")


def test_a_question_about_series_selects_these_alone(hospital: HospitalLake) -> None:
    assert {s["modality"] for s in manifest(selected(hospital, "ct-slice-thickness")).series} == {"CT"}
    assert {s["modality"] for s in manifest(selected(hospital, "patients-by-age")).series} == {"CT", "MR", "CR", "US"}


def test_more_than_the_limit_is_refused(hospital: HospitalLake) -> None:
    asked = selected(hospital, "osteosarcoma-ct")
    with pytest.raises(InvalidQuery, match="more than 3"):
        manifest(replace(asked, limits=replace(asked.limits, rows=3)))


def test_a_study_that_the_clinical_side_knows_as_well_is_one_study(hospital: HospitalLake, tmp_path: Path) -> None:
    once = manifest(selected(hospital, "osteosarcoma-ct"))
    copy = hospital.copy(tmp_path)
    first = once.series[0]
    series = [{"uid": first["series_instance_uid"], "modality": {"code": "CT"}, "numberOfInstances": 12}]
    uid = {"system": "urn:dicom:uid", "value": f"urn:oid:{first['study_instance_uid']}"}
    subject = {"reference": f"Patient/{first['patient_id']}"}
    known = {"resourceType": "ImagingStudy", "id": "ehr", "identifier": [uid], "subject": subject, "series": series}
    copy.put(resource_line(known | {"status": "available", "modality": [{"code": "CT"}]}))
    assert manifest(selected(copy, "osteosarcoma-ct")).series == once.series
    made = omop(selected(copy, "osteosarcoma-ct"), PersonMap(), ConceptMap())
    assert len(made.tables["image_occurrence"]) == len(once.series)
