from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet
import pytest
from typer.testing import CliRunner, Result

from bridge.errors import ProjectError
from cohort.cli import app
from cohort.omop import TABLES
from cohort.omop_maps import CONCEPTS, PERSONS
from tests.hospital_lake import HospitalLake
from tests.validity import told_wrong

QUESTION = ["osteosarcoma-ct", "--date", "2026-01-01"]
Run = Callable[..., Result]


@pytest.fixture
def run(hospital: HospitalLake) -> Run:
    def invoke(*arguments: str | Path) -> Result:
        seen = [] if "--config" in arguments else ["--config", str(hospital.config)]
        result = CliRunner().invoke(app, [*map(str, arguments), "--lake", str(hospital.root), *seen])
        if isinstance(result.exception, ProjectError):
            raise result.exception
        return result

    return invoke


def test_a_group_is_written_to_a_file_or_shown(run: Run, tmp_path: Path) -> None:
    assert run("group", *QUESTION, "--fhir", "r5", "-o", tmp_path / "g.json").exit_code == 0
    assert told_wrong(orjson.loads((tmp_path / "g.json").read_bytes()), "r5") == []
    shown = run("group", *QUESTION, "--param", "older_than_years=60")
    first = orjson.loads(shown.stdout_bytes)["characteristic"][0]
    assert first["valueCodeableConcept"]["text"] == "age today: older than 60 years"


def test_a_manifest_is_json_or_csv(run: Run, tmp_path: Path) -> None:
    assert run("manifest", *QUESTION, "--format", "csv", "--output", tmp_path / "m.csv").exit_code == 0
    with (tmp_path / "m.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    told = orjson.loads(run("manifest", *QUESTION).stdout_bytes)
    assert len(lines) == sum(len(s["series"]) for s in told["studies"]) > 10


def test_omop_tables_are_written_and_written_anew(run: Run, tmp_path: Path) -> None:
    to = tmp_path / "omop"
    first = run("omop", *QUESTION, "--to", to)
    assert first.exit_code == 0
    assert "concept_map.csv" in first.stdout
    rows = pyarrow.parquet.read_table(to / "image_occurrence.parquet").num_rows
    assert f"image_occurrence: {rows} rows" in first.stdout
    assert {p.name for p in to.iterdir()} == {*(f"{t}.parquet" for t in TABLES), PERSONS, CONCEPTS, "left_out.csv"}
    (to / PERSONS).write_text("patient_id,person_id\npat-mrn000001,9000\n", "utf-8")
    assert run("omop", *QUESTION, "--to", to, "--format", "csv").exit_code == 0
    with (to / "image_occurrence.csv").open(encoding="utf-8", newline="") as file:
        assert "9000" in {line["person_id"] for line in csv.DictReader(file)}


def test_a_timeline_is_shown_drawn_or_json(run: Run, tmp_path: Path) -> None:
    assert "Osteosarcoma" in run("timeline", "MRN000001").stdout
    assert orjson.loads(run("timeline", "MRN000001", "--json").stdout_bytes)["patient_id"] == "pat-mrn000001"
    assert run("timeline", "MRN000001", "--plot", tmp_path / "t.png").exit_code == 0
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.glob("*.part")) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["group", "nothing"], "no question 'nothing'"),
        (["manifest", *QUESTION, "--param", "x=1"], "parameter x"),
        (["omop", *QUESTION, "--to", "/proc/nowhere/omop"], "cannot be made"),
        (["group", *QUESTION, "--output", "/proc/nowhere/g.json"], "cannot be written"),
        (["timeline", "nobody"], "no such patient"),
        (["timeline", "MRN000001", "--plot", "x.pdf"], "--plot"),
        (["fetch", *QUESTION, "--to", "/proc/nowhere/images"], "cannot be made"),
        (["fetch", *QUESTION, "--to", "x", "--from", "archive:104"], "--from"),
        (["fetch", *QUESTION, "--to", "x", "--from", "A@h:99999"], "--from"),
        (["fetch", *QUESTION, "--to", "x", "--from", "A TITLE THAT IS TOO LONG@h:104"], "AE title"),
        (["fetch", *QUESTION, "--to", "x", "--config", "/nowhere.toml"], "no such file"),
    ],
)
def test_what_cannot_be_done_is_told(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: Sequence[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ProjectError, match=said):
        run(*arguments)
    assert list(tmp_path.rglob("*.dcm")) == []


def test_fetch_says_what_is_missing_and_why(run: Run, tmp_path: Path) -> None:
    done: Any = run("fetch", *QUESTION, "--to", tmp_path / "images", "--from", "NOBODY@127.0.0.1:1", "--parallel", "1")
    assert done.exit_code == 1
    assert "0 of" in done.stdout
    assert "NOBODY at 127.0.0.1:1" in done.stderr and "… and of" in done.stderr
    assert (tmp_path / "images" / "files.csv").read_text("utf-8").count("\n") == 1
