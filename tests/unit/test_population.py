"""The hospital that benchmarks are made of: valid FHIR, the same by the same seed, and a lake of it answers the ready
questions as SQL that was written apart does."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from fhir.resources.R4B import get_fhir_model_class

from bench import naive_questions
from bench.naive_questions import QUERIES
from bench.population import TODAY, Population
from bench.population_files import naive, write
from cohort.catalogue import column_types, question, questions, read_question
from cohort.clinical import load
from cohort.dialects import duckdb as dialect
from cohort.engine.duckdb import connect
from cohort.lake import Lake
from cohort.question_answer import compile_question

PATIENTS, SEED = 250, 7

EVERY_STUDY = {
    "name": "every-study",
    "title": "Every study",
    "description": "Every available study",
    "criteria": {"study": {"where": {"status": "available"}}},
    "return": {"unit": "study", "columns": ["patient_id", "study_instance_uid"]},
}


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    """A connection to a lake of the hospital, and one to its naive Parquet."""
    folder = tmp_path_factory.mktemp("population")
    lake = Lake(folder / "lake")
    for clinical, bridge in write(Population(PATIENTS, SEED), folder):
        assert load([clinical], lake, datetime.now(UTC)).parked_lines == 0
        for number, file in enumerate(bridge):
            file.rename(lake.root / "delta" / f"{number:020}-{number:032x}.ndjson")
    generation = lake.publish(datetime.now(UTC))
    assert generation is not None
    assert lake.parked(1) == []
    naive(folder)
    ours, theirs = connect(generation), naive_questions.connect(folder / "naive", memory_limit_mb=1024)
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.mark.parametrize("name", list(questions()))
def test_a_ready_question_is_answered_as_by_hand(engines: tuple[Any, Any], name: str) -> None:
    ours, theirs = engines
    sql = dialect.sql(compile_question(question(name), TODAY, column_types()))
    assert sorted(map(repr, ours.execute(sql).fetchall())) == sorted(
        map(repr, theirs.execute(QUERIES[name]).fetchall())
    )


@pytest.mark.parametrize("name", list(questions()))
def test_some_rows_are_so_many_of_the_whole_answer_in_its_order(engines: tuple[Any, Any], name: str) -> None:
    ours, _ = engines
    asked = question(name), TODAY, column_types()
    everything = ours.execute(dialect.sql(compile_question(*asked))).fetchall()
    places = {repr(row): place for place, row in enumerate(everything)}
    for most in (1, 7, len(everything) + 1):
        found = ours.execute(dialect.sql(compile_question(*asked, most))).fetchall()
        assert len(found) == min(most, len(everything))
        assert [places[repr(row)] for row in found] == sorted(places[repr(row)] for row in found)
        assert question(name).columns or found == everything[:most]


@pytest.mark.parametrize("most", [1, 2, 5])
def test_some_rows_are_of_the_patients_whose_keys_come_first(engines: tuple[Any, Any], most: int) -> None:
    ours, _ = engines
    asked = read_question(EVERY_STUDY), TODAY, column_types()
    keys = dict(ours.execute("SELECT patient_id, patient_key FROM patient").fetchall())
    everything = [row[0] for row in ours.execute(dialect.sql(compile_question(*asked))).fetchall()]
    found = [row[0] for row in ours.execute(dialect.sql(compile_question(*asked, most))).fetchall()]
    assert sorted(keys[one] for one in found) == sorted(keys[one] for one in everything)[:most]


def test_most_ready_questions_find_somebody(engines: tuple[Any, Any]) -> None:
    _, theirs = engines
    answered = [name for name, query in QUERIES.items() if theirs.execute(query).fetchall()]
    assert len(answered) >= 15


def test_the_same_seed_makes_the_same_lines_which_are_valid(tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        for clinical, bridge in write(Population(40, SEED), tmp_path / name):
            files = [*sorted(clinical.iterdir()), *bridge]
            made.append({file.name: sorted(file.read_bytes().splitlines()) for file in files})
        shutil.rmtree(tmp_path / name)
    first, second = made
    assert first == second
    for lines in first.values():
        for line in map(orjson.loads, lines[:20]):
            resource = line.get("resource", line)
            if "resourceType" in resource:
                get_fhir_model_class(resource["resourceType"]).model_validate(resource)


def test_a_hundredth_of_the_patients_has_a_tenth_of_the_studies(tmp_path: Path) -> None:
    studies: dict[str, int] = {}
    for _, bridge in write(Population(1000, SEED), tmp_path):
        for line in map(orjson.loads, bridge[1].read_bytes().splitlines()):
            who = line["resource"]["subject"]["reference"]
            studies[who] = studies.get(who, 0) + 1
    most = sorted(studies.values(), reverse=True)
    assert sum(most[:10]) > sum(most) / 10
