from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from importlib.resources import files
from typing import Any

import jsonschema
import orjson
import pytest

from bridge.errors import InvalidQuery
from bridge.sources.part10 import read_headers
from cohort.answer import Answer
from cohort.catalogue import code_lists, column_types, question, questions, read_question
from cohort.clinical import load
from cohort.dialects.duckdb import sql
from cohort.generation import Generation
from cohort.lake import Lake
from cohort.question_answer import compile_question
from cohort.question_schema import question_schema
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
    found = {name for name in questions() if ask(generation, question(name), {}, TODAY).rows}
    assert found >= {
        "ct-slice-thickness", "imaging-without-report", "osteosarcoma-ct", "patients-by-age", "series-per-modality",
        "reports-with-words", "thin-slice-chest-ct", "inpatient-studies",
    }  # fmt: skip
    without = ask(generation, question("imaging-without-report"), {"within_years": 100}, TODAY)
    assert set(column(without, "study_instance_uid")) == {s.uid for s in kept if not s.report}
    ages = ask(generation, question("patients-by-age"), {}, TODAY)
    assert sum(column(ages, "patients")) == len({s.mrn for s in kept})
    modalities = ask(generation, question("series-per-modality"), {}, TODAY)
    assert sum(column(modalities, "series")) == sum(len(s.series) for s in kept)


def test_conditions_of_few_codes_are_read_by_code(generation: Generation) -> None:
    document = criteria({"condition": {"codes": {"system": "http://snomed.info/sct", "code": "307576001"}}})
    relation = compile_question(read_question(document), TODAY, generation.column_types)
    assert 'FROM "condition_by_code"' in sql(relation)
    assert 'FROM "condition"' not in sql(relation)


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
        "criteria": {"all": [{"age": {"older_than_years": "$n"}}, {"not": {"patient": {"where": {"gender": "male"}}}}]},
        "return": {"unit": "patient", "columns": ["patient_id"]},
    } | changes


def criteria(criterion: Any, **changes: Any) -> dict[str, Any]:
    return document(criteria={"all": [{"age": {"older_than_years": 1}}, criterion]}, **changes)


def test_criteria_combine(generation: Generation, planned: Hospital) -> None:
    answer = ask(generation, read_question(document()), {"n": 1}, TODAY)
    assert len(answer.rows) == sum(1 for p in planned.patients if p.gender != "M" and p.birth_date < date(2025, 11, 24))
    observed = {"observation": {"where": {"value_number": {"at_least": 100}, "value_unit": "U/L"}}}
    either = document(criteria={"any": [observed, {"condition": {"codes": {"list": "osteosarcoma"}}}]})
    sick = {x.mrn for x in planned.labs if x.value >= 100 and x.unit == "U/L"}
    sick |= {c.mrn for c in planned.conditions if c.code in ("307576001", "9180/3")}
    assert len(ask(generation, read_question(either), {}, TODAY).rows) == len(sick)


INDEX = {"condition": {"codes": {"list": "osteosarcoma"}, "take": "first"}}
STUDIES = {"unit": "study", "columns": ["study_instance_uid"]}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"name": "Bad Name"}, "name:"),
    ({"surprise": 1}, "question.surprise:"),
    ({"criteria": {"weight": {}}}, "criteria.weight:"),
    ({"criteria": {"age": {"older": 1}}}, "criteria.age.older:"),
    ({"criteria": {"age": {"older_than_years": "$m"}}}, "criteria.age.older_than_years:"),
    ({"criteria": {"age": {}}}, "criteria.age:"),
    ({"criteria": {"age": {"at": "index", "older_than_years": 1}}}, "criteria.age.at: there is no index"),
    ({"criteria": {"age": {"older_than_years": -1}}}, "criteria.age.older_than_years:"),
    ({"criteria": {"age": {"older_than_years": 1}, "patient": {}}}, "criteria: exactly one"),
    ({"criteria": {"all": []}}, "criteria.all:"),
    ({"criteria": {"all": [{"any": [{"not": {"x": 1}}]}]}}, "criteria.all[0].any[0].not.x:"),
    ({"criteria": {"at_least": {"count": 2, "of": [{"patient": {}}]}}}, "criteria.at_least.count:"),
    (criteria({"patient": {"where": {"sex": "male"}}}), "criteria.all[1].patient.where.sex: no column"),
    (criteria({"patient": {"where": {"gender": 5}}}), "criteria.all[1].patient.where.gender: text"),
    (criteria({"patient": {"where": {"gender": {"at_least": "a"}}}}), "criteria.all[1].patient.where.gender.at_least:"),
    (criteria({"patient": {"where": {"birth_date": "1980-02-30"}}}), "criteria.all[1].patient.where.birth_date: a day"),
    (criteria({"patient": {"where": {"deceased": "no"}}}), "criteria.all[1].patient.where.deceased:"),
    (criteria({"patient": {"period": {"within_years": 1}}}), "criteria.all[1].patient.period: a patient has no day"),
    (criteria({"encounter": {"where": {"start_time": "x"}}}), "criteria.all[1].encounter.where.start_time:"),
    (criteria({"study": {"codes": {"list": "osteosarcoma"}}}), "criteria.all[1].study.codes: a study has no codes"),
    (criteria({"condition": {"codes": {"list": "nothing"}}}), "criteria.all[1].condition.codes.list: no such"),
    (criteria({"condition": {"codes": [{"system": "s"}]}}), "criteria.all[1].condition.codes[0]: one of"),
    (criteria({"condition": {"codes": {"value_set": "x"}}}), "criteria.all[1].condition.codes.value_set: no such"),
    (
        criteria({"condition": {"codes": {"descendants_of": {"system": "s", "code": "x"}}}}),
        "criteria.all[1].condition.codes.descendants_of: the closure table",
    ),
    (criteria({"condition": {"period": {}}}), "criteria.all[1].condition.period:"),
    (criteria({"condition": {"period": {"from": "soon"}}}), "criteria.all[1].condition.period.from: a day"),
    (criteria({"condition": {"relation": {"to": "index", "before": True}}}), "criteria.all[1].condition.relation.to:"),
    (criteria({"condition": {"relation": {"to": "unit", "before": True}}}), "criteria.all[1].condition.relation.to:"),
    (criteria({"condition": {"then": {"code": "1"}}}), "criteria.all[1].condition.then: needs take"),
    (criteria({"condition": {"take": "first", "times": 2}}), "criteria.all[1].condition.take:"),
    (criteria({"condition": {"times": 0}}), "criteria.all[1].condition.times:"),
    (criteria({"patient": {"times": 2}}), "criteria.all[1].patient.times: speaks of the patient itself"),
    (criteria({"study": {"having": {"report": {"where": {"x": "y"}}}}}), "criteria.all[1].study.having.report.where."),
    (criteria({"study": {"where": {"modality": {"contains": "C"}}}}), "criteria.all[1].study.where.modality.contains:"),
    (
        criteria({"study": {"relation": {"to": "unit", "before": True}}}, **{"return": STUDIES}),
        "criteria.all[1].study.relation.to: speaks of the study itself",
    ),
    (
        criteria({"study": {"relation": {"to": "index", "within_days": 1, "after_days": 2}}}, index=INDEX),
        "criteria.all[1].study.relation: within_days",
    ),
    (criteria({"study": {"relation": {"to": "index"}}}, index=INDEX), "criteria.all[1].study.relation:"),
    ({"index": {"condition": {}}}, "index.condition.take: missing"),
    ({"index": {"patient": {"take": "first"}}}, "index.patient:"),
    ({"return": {"unit": "series", "columns": ["patient_id; DROP TABLE x"]}}, "return.columns[0]:"),
    ({"return": {"unit": "patient", "columns": ["study_instance_uid"]}}, "return.columns[0]:"),
    ({"return": {"unit": "patient", "columns": ["patient_id", "patient_id"]}}, "return.columns:"),
    ({"return": {"unit": "patient", "columns": ["index_date"]}}, "return.columns[0]: the question has no index"),
    ({"return": {"unit": "patient", "columns": ["imaging_study_modality.modality"]}}, "return.columns[0]:"),
    ({"return": {"unit": "patient", "columns": ["day"]}}, "return.columns[0]: day: a patient has no day"),
    ({"return": {"unit": "patient", "group_by": ["identifiers"]}}, "return.group_by[0]: a list"),
    ({"return": {"unit": "planet", "columns": []}}, "return.unit"),
    ({"return": {"unit": "patient"}}, "return"),
    ({"parameters": {"n": {"type": "integer", "default": 99, "maximum": 9, "description": "N"}}}, "parameter n"),
    ({"parameters": {"n": {"type": "integer", "default": 9}}}, "parameters.n.description: missing"),
    ({"parameters": {"n": {"type": "date", "default": 9, "description": "N"}}}, "parameters.n.type:"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "place"), WRONG)
def test_a_wrong_document_is_told_by_its_place(changes: dict[str, Any], place: str) -> None:
    with pytest.raises(InvalidQuery) as caught:
        read_question(document(**changes))
    assert str(caught.value).startswith(place)


@pytest.mark.parametrize("wrong", [None, [], "x", 5, {}, {"name": "q"}])
def test_what_is_no_document_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidQuery):
        read_question(wrong)


def test_a_document_is_bounded_even_where_its_parts_are_the_same() -> None:
    nested: Any = {"patient": {}}
    for _ in range(11):
        nested = {"any": [nested] * 10}
    with pytest.raises(InvalidQuery, match="at most"):
        read_question(document(criteria=nested))
    inner: Any = {"report": {}}
    for _ in range(60):
        inner = {"study": {"having": inner}}
    with pytest.raises(InvalidQuery, match="deep"):
        read_question(document(criteria=inner))


def test_the_json_schema_is_of_the_same_tables_that_documents_are_read_by() -> None:
    published = orjson.loads((files("mappings") / "questions" / "schema.json").read_bytes())
    assert published == question_schema(column_types())


def test_the_json_schema_allows_what_can_be_read() -> None:
    schema = jsonschema.Draft202012Validator(question_schema(column_types()))
    for asked in questions().values():
        schema.validate(asked.document)
    schema.validate(document())


@pytest.mark.parametrize(("changes", "place"), WRONG)
def test_the_json_schema_refuses_what_cannot_but_what_only_the_reader_knows(
    changes: dict[str, Any], place: str
) -> None:
    only_the_reader = (
        "no such", "closure table", "no index", "itself", "has no day", "within_days", "return.columns", "a list",
        "a day",        "older_than_years: ", "at_least.count", "relation.to:",
        "parameter n", "needs take", "take: not", "take:",
    )  # fmt: skip
    schema = jsonschema.Draft202012Validator(question_schema(column_types()))
    with pytest.raises(InvalidQuery) as caught:
        read_question(document(**changes))
    refused = not schema.is_valid(document(**changes))
    assert refused or any(word in str(caught.value) for word in only_the_reader)


@pytest.mark.parametrize("given", [{"n": 0}, {"n": "x"}, {"n": 2.5}, {"m": 1}])
def test_a_wrong_parameter_is_told_by_its_name(generation: Generation, given: dict[str, Any]) -> None:
    with pytest.raises(InvalidQuery, match="parameter"):
        ask(generation, read_question(document()), given, TODAY)


def test_values_are_quoted_never_read_as_sql(generation: Generation) -> None:
    evil = "CT') OR 1=1 --"
    assert ask(generation, question("osteosarcoma-ct"), {"modality": evil}, TODAY).rows == ()
    with pytest.raises(InvalidQuery, match=r"condition\.codes\.list: no such code list"):
        ask(generation, question("osteosarcoma-ct"), {"condition": evil}, TODAY)


def test_every_code_list_names_its_source() -> None:
    assert "osteosarcoma" in code_lists()
