from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import pytest

from bridge.errors import InvalidQuery
from bridge.sources.part10 import read_headers
from cohort.answer import Answer
from cohort.catalogue import code_lists, question, questions
from cohort.clinical import load
from cohort.generation import Generation
from cohort.lake import Lake
from cohort.question import parse_question
from cohort.sandbox import ask, run_sql
from hospital import Hospital, founding_answer, plan, write
from tests.builders import a_translator

TODAY = date(2026, 11, 24)


@pytest.fixture(scope="module")
def planned() -> Hospital:
    return plan(60, 7, TODAY)


@pytest.fixture(scope="module")
def generation(planned: Hospital, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generation]:
    """The hospital's clinical files, and its studies translated as the bridge does it."""
    folder = tmp_path_factory.mktemp("hospital")
    write(planned, folder)
    lake = Lake(folder / "lake")
    load([folder / "clinical"], lake, datetime.now(UTC))
    by_study: dict[str, list[Any]] = {}
    for path in sorted((folder / "dicom").rglob("*.dcm")):
        headers = read_headers(path)
        by_study.setdefault(headers.text("StudyInstanceUID"), []).append(headers)
    for uid, instances in by_study.items():
        lake.append(lines(uid, instances))
    published = lake.publish(datetime.now(UTC))
    assert published is not None
    yield published


def lines(uid: str, instances: list[Any]) -> Iterator[dict[str, Any]]:
    translator = a_translator(endpoints={"a": "http://pacs/dicom-web"})
    result = translator.translate(uid, {"a": instances})
    for content in (result.patient, *result.resources):
        assert content is not None
        yield {
            "kind": "resource", "origin": "bridge", "type": content["resourceType"], "id": content["id"], "revision": 1,
            "deleted": False, "resource": content,
        }  # fmt: skip
    for table, rows in translator.rows(uid, {"a": instances}).items():
        yield {"kind": "rows", "table": table, "key": uid, "revision": 1, "rows": list(rows)}


def column(answer: Answer, name: str) -> list[Any]:
    position = [c for c, _ in answer.columns].index(name)
    return [row[position] for row in answer.rows]


def test_the_founding_question_finds_exactly_what_the_facts_say(generation: Generation, planned: Hospital) -> None:
    answer = ask(generation, question("osteosarcoma-ct"), {}, TODAY)
    found = sorted(
        zip([i[0] for i in column(answer, "identifiers")], column(answer, "study_instance_uid"), strict=True)
    )
    assert tuple(found) == founding_answer(planned)
    assert len(found) >= 20


def test_the_founding_answer_carries_reports_medications_and_places(generation: Generation, planned: Hospital) -> None:
    answer = ask(generation, question("osteosarcoma-ct"), {}, TODAY)
    by_uid = {s.uid: s for s in planned.studies}
    for uid, reports, where in zip(
        column(answer, "study_instance_uid"), column(answer, "reports"), column(answer, "endpoints"), strict=True
    ):
        assert bool(reports) == bool(by_uid[uid].report)
        assert all(r.startswith("SYNTHETIC REPORT. CT") for r in reports or [])
        assert where == [f"http://pacs/dicom-web/studies/{uid}"]
    prescribed = {
        p.mrn: sum(
            1 for m in planned.medications
            if m.mrn == p.mrn and m.intent == "order" and m.status not in ("cancelled", "entered-in-error")
        )
        for p in planned.patients
    }  # fmt: skip
    for mrn, medications in zip(column(answer, "identifiers"), column(answer, "medications"), strict=True):
        assert len(medications or []) == prescribed[mrn[0]]
    assert all(age > 44 for age in column(answer, "age_years"))


@pytest.mark.parametrize(
    ("given", "compare"),
    [({"older_than_years": 0}, "more"), ({"within_years": 50}, "more"), ({"older_than_years": 120}, "none")],
)
def test_its_parameters_change_the_answer(generation: Generation, given: dict[str, Any], compare: str) -> None:
    usual = len(ask(generation, question("osteosarcoma-ct"), {}, TODAY).rows)
    found = len(ask(generation, question("osteosarcoma-ct"), given, TODAY).rows)
    assert found == 0 if compare == "none" else found > usual


def test_the_45th_birthday_is_the_boundary(generation: Generation, planned: Hospital) -> None:
    born = {p.mrn: p.birth_date for p in planned.patients}
    found = {i[0] for i in column(ask(generation, question("osteosarcoma-ct"), {}, TODAY), "identifiers")}
    on_the_day = [mrn for mrn, b in born.items() if b == date(1981, 11, 24)]
    the_day_before = [mrn for mrn, b in born.items() if b == date(1981, 11, 23)]
    assert on_the_day
    assert the_day_before
    assert not found & set(on_the_day)
    assert found >= set(the_day_before)


def test_every_ready_question_answers(generation: Generation, planned: Hospital) -> None:
    kept = [s for s in planned.studies if s.archived]
    for name in questions():
        assert ask(generation, question(name), {}, TODAY).rows, name
    without = ask(generation, question("imaging-without-report"), {"within_years": 100}, TODAY)
    assert set(column(without, "study_instance_uid")) == {s.uid for s in kept if not s.report}
    ages = ask(generation, question("patients-by-age"), {}, TODAY)
    assert sum(column(ages, "patients")) == len({s.mrn for s in kept})
    modalities = ask(generation, question("series-per-modality"), {}, TODAY)
    assert sum(column(modalities, "series")) == sum(len(s.series) for s in kept)


def test_imaging_patients_became_the_clinical_ones(generation: Generation, planned: Hospital) -> None:
    assert run_sql(generation, "SELECT DISTINCT origin FROM patient").rows == (("clinical",),)
    assert run_sql(generation, "SELECT count(*) FROM patient").rows == ((len(planned.patients),),)


def test_reports_that_name_an_accession_only_found_their_study(generation: Generation, planned: Hospital) -> None:
    by_accession = {s.uid for s in planned.studies if s.archived and s.report == "accession"}
    sql = "SELECT study_instance_uid FROM diagnostic_report_study WHERE accession_number IS NOT NULL"
    assert {row[0] for row in run_sql(generation, sql).rows if row[0]} == by_accession


def document(**changes: Any) -> dict[str, Any]:
    return {
        "name": "q",
        "title": "T",
        "description": "D",
        "parameters": {"n": {"type": "integer", "default": 5, "minimum": 1, "maximum": 9, "description": "N"}},
        "criteria": {"all": [{"age": {"older_than_years": "$n"}}, {"not": {"gender": {"is": ["male"]}}}]},
        "return": {"unit": "patient", "columns": ["patient_id"]},
    } | changes


def test_criteria_combine(generation: Generation, planned: Hospital) -> None:
    answer = ask(generation, parse_question(document()), {"n": 1}, TODAY)
    assert len(answer.rows) == sum(1 for p in planned.patients if p.gender != "M" and p.birth_date < date(2025, 11, 24))
    observed = {"observation": {"at_least": 100, "unit": "U/L"}}
    either = document(criteria={"any": [observed, {"condition": {"codes": "osteosarcoma"}}]})
    sick = {x.mrn for x in planned.labs if x.value >= 100 and x.unit == "U/L"}
    sick |= {c.mrn for c in planned.conditions if c.code in ("307576001", "9180/3")}
    assert len(ask(generation, parse_question(either), {}, TODAY).rows) == len(sick)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"name": "Bad Name"}, "name"),
        ({"surprise": 1}, "question.surprise"),
        ({"criteria": {"weight": {}}}, "criteria"),
        ({"criteria": {"age": {"older": 1}}}, "criteria.age.older"),
        ({"criteria": {"age": {"older_than_years": "$m"}}}, "criteria.age.older_than_years"),
        ({"criteria": {"all": []}}, "criteria.all"),
        ({"criteria": {"gender": {"is": "male"}}}, "criteria.gender.is"),
        ({"return": {"unit": "series", "columns": ["patient_id; DROP TABLE x"]}}, "return.columns"),
        ({"return": {"unit": "patient", "columns": ["study_instance_uid"]}}, "return.columns"),
        ({"return": {"unit": "planet", "columns": []}}, "return.unit"),
        ({"return": {"unit": "patient"}}, "return"),
        ({"parameters": {"n": {"type": "integer", "default": 99, "maximum": 9, "description": "N"}}}, "parameter n"),
    ],
)
def test_a_wrong_document_is_told_by_its_place(changes: dict[str, Any], place: str) -> None:
    with pytest.raises(InvalidQuery) as caught:
        parse_question(document(**changes))
    assert str(caught.value).startswith(place)


@pytest.mark.parametrize("given", [{"n": 0}, {"n": "x"}, {"n": 2.5}, {"m": 1}])
def test_a_wrong_parameter_is_told_by_its_name(generation: Generation, given: dict[str, Any]) -> None:
    with pytest.raises(InvalidQuery, match="parameter"):
        ask(generation, parse_question(document()), given, TODAY)


def test_values_are_bound_never_pasted(generation: Generation) -> None:
    evil = "CT') OR 1=1 --"
    assert ask(generation, question("osteosarcoma-ct"), {"modality": evil}, TODAY).rows == ()
    with pytest.raises(InvalidQuery, match="code list"):
        ask(generation, question("osteosarcoma-ct"), {"condition": evil}, TODAY)


def test_every_code_list_names_its_source() -> None:
    assert "osteosarcoma" in code_lists()
