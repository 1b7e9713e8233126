"""So many rows of an answer are the first of all of it, whoever sees them."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest

from cohort import question_shown
from cohort.catalogue import questions, read_question
from cohort.dialects import duckdb
from cohort.engine.duckdb import connect
from cohort.engine.rows import executed, rows_of
from cohort.generation import Generation
from cohort.lake import Lake
from cohort.privacy import Policy
from cohort.pseudonym import Pseudonyms
from cohort.question import Question
from cohort.question_answer import compile_question, texts_of
from cohort.returns import JSON, TEXTS
from tests.hospital_lake import NOW, HospitalLake
from tests.unit.test_lake import line

TODAY = NOW.date()
ROWS = Policy(line_level=True, small_cells=1)
PSEUDONYMS = Pseudonyms.of_project(b"k" * 32, "research")
LISTING = [name for name, wanted in questions().items() if wanted.columns]
ALL = 1_000_000


def rows(generation: Generation, wanted: Question, most: int, *, pseudonymous: bool) -> list[tuple[Any, ...]]:
    """Of the first people: so many, and the others of the last one of them."""
    shown = PSEUDONYMS if pseudonymous else None
    sql = question_shown.rows_sql(wanted, TODAY, generation.column_types, ROWS, shown, most)
    with closing(connect(generation, variables=PSEUDONYMS.variables())) as connection:
        return [tuple(row) for row in connection.execute(sql).fetchall()]


@pytest.mark.parametrize("name", LISTING)
def test_the_first_rows_under_pseudonyms_are_the_first_of_all(hospital: HospitalLake, name: str) -> None:
    generation, wanted = hospital.generation, questions()[name]
    everything = rows(generation, wanted, ALL, pseudonymous=True)
    exact = rows(generation, wanted, ALL, pseudonymous=False)
    assert len(everything) == len(exact)
    for most in (1, 3, 10):
        some = rows(generation, wanted, most, pseudonymous=True)
        assert len(some) >= min(most, len(everything))
        assert some == everything[: len(some)]


@pytest.mark.parametrize("name", LISTING)
def test_what_is_known_of_an_answers_columns_is_what_the_engine_says(hospital: HospitalLake, name: str) -> None:
    generation, wanted = hospital.generation, questions()[name]
    columns = generation.column_types
    queries = {
        duckdb.sql(compile_question(wanted, TODAY, columns)): False,
        question_shown.rows_sql(wanted, TODAY, columns, ROWS, PSEUDONYMS, 10): False,
        question_shown.rows_sql(wanted, TODAY, columns, ROWS, None, 10): True,
    }
    with closing(connect(generation, variables=PSEUDONYMS.variables())) as connection:
        for sql, as_json in queries.items():
            known = texts_of(wanted, columns, as_json=as_json)
            described = connection.execute(f"DESCRIBE {sql}").fetchall()
            assert [(name, kind == TEXTS) for name, kind, *_ in described] == [(name, k == TEXTS) for name, k in known]
            assert all(
                str(kind) == "VARCHAR" for (_, kind, *_), (_, k) in zip(described, known, strict=True) if k == JSON
            )


@pytest.mark.parametrize("name", LISTING)
def test_lists_that_the_statement_gives_as_json_are_those_lists(hospital: HospitalLake, name: str) -> None:
    generation, wanted = hospital.generation, questions()[name]
    columns = generation.column_types
    with closing(connect(generation)) as connection:
        answers = []
        for as_json in (False, True):
            sql = duckdb.sql(compile_question(wanted, TODAY, columns, ALL, as_json=as_json))
            known = texts_of(wanted, columns, as_json=as_json)
            described, cursor, lists = executed(connection, sql, as_json=True, known=known)
            answers.append((described, orjson.dumps(rows_of(cursor, ALL, 1 << 30, lists)[0])))
    assert answers[0] == answers[1]


def test_people_without_a_resource_take_nobodys_place(tmp_path: Path) -> None:
    """Their studies are no units; the first rows are those of others."""
    lake = Lake(tmp_path)
    lake.append([line("Patient", f"p{n}", birthDate="1950-01-01") for n in range(3)])
    lake.append([
        line(
            "ImagingStudy", f"s{n}", status="available", subject={"reference": f"Patient/p{n}"}, started="2024-03-01",
            identifier=[{"system": "urn:dicom:uid", "value": f"urn:oid:1.2.{n}"}],
        )
        for n in range(40)
    ])  # fmt: skip
    lake.publish(NOW)
    generation = lake.current()
    assert generation is not None
    wanted = read_question({
        "name": "studies", "title": "Studies", "description": "All.",
        "criteria": {"study": {"where": {"status": "available"}}},
        "return": {"unit": "study", "columns": ["age_years", "study_instance_uid"]},
    })  # fmt: skip
    for pseudonymous in (True, False):
        assert len(rows(generation, wanted, ALL, pseudonymous=pseudonymous)) == 3
        for most in (1, 2, 3):
            assert len(rows(generation, wanted, most, pseudonymous=pseudonymous)) == most
