from __future__ import annotations

import builtins
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest

import cohort
from bridge.errors import ConfigError, InvalidQuery
from cohort.opened import Cohort
from hospital import founding_answer
from tests.hospital_lake import TODAY, HospitalLake

DOCUMENT = {
    "name": "children",
    "title": "Children",
    "description": "Patients younger than so many years",
    "parameters": {"years": {"type": "integer", "default": 18, "description": "Younger than"}},
    "criteria": {"age": {"younger_than_years": "$years"}},
    "return": {"unit": "patient", "columns": ["patient_id", "birth_date", "identifiers"]},
}


@pytest.fixture
def opened(hospital: HospitalLake) -> Cohort:
    return cohort.open(str(hospital.root), config=hospital.config)


def test_the_founding_question_has_the_answer_that_the_facts_give(opened: Cohort, hospital: HospitalLake) -> None:
    result = opened.ask("osteosarcoma-ct", date=TODAY)
    at = {name: n for n, name in enumerate(result.columns)}
    found = {(row[at["identifiers"]][0], row[at["study_instance_uid"]]) for row in result.rows}
    assert found == set(founding_answer(hospital.hospital))
    assert len(result) == len(found) > 10
    assert result.generation == opened.generation == "g000001"


def test_a_document_is_asked_with_parameters(opened: Cohort, hospital: HospitalLake) -> None:
    born = {p.birth_date for p in hospital.hospital.patients}
    for years in (18, 30):
        oldest = date(TODAY.year - years, TODAY.month, TODAY.day)
        young = opened.ask(DOCUMENT, {"years": years}, date=TODAY.isoformat())
        assert {row[1] for row in young.rows} == {d.isoformat() for d in born if d > oldest}


def test_every_frame_holds_the_same_with_the_same_types(opened: Cohort) -> None:
    result = opened.sql("SELECT patient_id, birth_date, [1, 2] AS numbers FROM patient ORDER BY 1")
    frame, table, other = result.pandas(), result.arrow(), result.polars()
    assert list(frame["patient_id"]) == table["patient_id"].to_pylist() == list(other["patient_id"])
    assert str(frame["birth_date"].dtype).startswith("datetime64")
    assert str(table.schema.field("birth_date").type).startswith("date32")
    assert [list(n) for n in other["numbers"]] == [[1, 2]] * len(result)
    (count,) = result.relation().query("answer", "SELECT count(*) FROM answer").fetchall()
    assert count == (len(frame),)


def test_no_rows_keep_their_columns_and_types(opened: Cohort) -> None:
    result = opened.sql("SELECT patient_id, birth_date FROM patient WHERE false")
    assert result.pandas().shape == (0, 2)
    assert str(result.arrow().schema.field("birth_date").type).startswith("date32")


def test_an_answer_that_would_be_cut_is_refused(opened: Cohort) -> None:
    assert len(opened.sql("SELECT * FROM patient", limit=1000)) == 24
    with pytest.raises(InvalidQuery, match="more than 5 rows"):
        opened.sql("SELECT * FROM patient", limit=5)
    with pytest.raises(InvalidQuery, match="limit"):
        opened.sql("SELECT * FROM patient", limit=0)


@pytest.mark.parametrize(
    ("question", "parameters", "said"),
    [
        ("none", {}, "no question"),
        ("osteosarcoma-ct", {"x": 1}, "parameter x"),
        ({"name": "a"}, {}, "title: missing"),
    ],
)
def test_what_cannot_be_asked_is_told(opened: Cohort, question: Any, parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidQuery, match=said):
        opened.ask(question, parameters)
    with pytest.raises(InvalidQuery, match="YYYY-MM-DD"):
        opened.ask("osteosarcoma-ct", date="soon")


def test_a_notebook_shows_a_table_without_markup_from_the_data(opened: Cohort) -> None:
    html = opened.sql("SELECT '<img src=x>' AS \"<b>\" FROM patient")._repr_html_()
    assert "&lt;img src=x&gt;" in html and "&lt;b&gt;" in html
    assert "<img" not in html and "<b>" not in html
    assert "24 rows; generation g000001" in html
    assert "2 rows; generation g000001" in repr(opened.sql("SELECT 1 AS one UNION ALL SELECT 2"))


def test_tables_tell_their_columns(opened: Cohort) -> None:
    assert {c.name for c in opened.tables["dicom_series"].columns} >= {"slice_thickness_mm"}
    assert repr(opened).startswith("<Cohort generation g000001")


def test_a_generation_is_opened_by_its_id(hospital: HospitalLake, tmp_path: Path) -> None:
    assert cohort.open(hospital.root, "g000001").generation == "g000001"
    with pytest.raises(InvalidQuery, match="g000009"):
        cohort.open(hospital.root, "g000009")
    with pytest.raises(ConfigError, match="no data"):
        cohort.open(tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("way", "missing", "extra"),
    [("pandas", "pandas", "pandas"), ("arrow", "pyarrow", "arrow"), ("polars", "polars", "polars")],
)
def test_a_library_that_is_not_installed_is_named(
    opened: Cohort, monkeypatch: pytest.MonkeyPatch, way: str, missing: str, extra: str
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any) -> Any:
        if name.partition(".")[0] == missing:
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr("cohort.opened.import_module", without)
    with pytest.raises(ConfigError, match=rf"{missing} is not installed.*\[{extra}\]"):
        getattr(opened.sql("SELECT 1"), way)()


def test_a_query_loads_none_of_the_frames() -> None:
    code = "import cohort, cohort.worker, sys; print(*sys.modules)"
    loaded: Sequence[str] = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert not {"cohort.opened", "pandas", "polars", "pyarrow", "matplotlib", "typer"} & set(loaded)
