"""How many remain after each criterion; two cohorts beside each other; both drawn; the commands."""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from bridge.errors import ConfigError, InvalidQuery
from cohort.answer import Answer
from cohort.catalogue import question, read_question
from cohort.cli import app
from cohort.generation import Generation
from cohort.plots import attrition_plot, comparison_plot
from cohort.question_words import in_words
from cohort.sandbox import attrition, compare
from tests.policies import EVERYTHING_TOML
from tests.question_cases import cases, generation

TODAY = date(2026, 11, 24)
CASES = cases()


@pytest.fixture(scope="module")
def osteosarcoma(tmp_path_factory: pytest.TempPathFactory) -> Generation:
    return generation(CASES["osteosarcoma-ct"], tmp_path_factory.mktemp("osteosarcoma"))


@pytest.fixture(scope="module")
def staging(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("staging")
    generation(CASES["cancer-staging"], folder)
    return folder / "lake"


def test_attrition_counts_what_remains_after_each_criterion(osteosarcoma: Generation) -> None:
    answer = attrition(osteosarcoma, question("osteosarcoma-ct"), {}, TODAY)
    assert [name for name, _ in answer.columns] == ["step", "criterion", "units", "patients"]
    assert answer.rows == (
        (0, "All: study", 11, 10),
        (1, "Older than the age given", 9, 8),  # without `today` and `unknown-birth`
        (2, "Diagnosis in the last years", 7, 6),  # without `refuted` and `too-early`
        (3, "Imaging study of the modality", 5, 5),  # without the MR and the cancelled study
    )


def test_attrition_begins_with_the_index_event(tmp_path: Path) -> None:
    made = generation(CASES["stroke-imaged-within-a-day"], tmp_path)
    answer = attrition(made, question("stroke-imaged-within-a-day"), {}, TODAY)
    assert [row[2:] for row in answer.rows] == [(7, 7), (6, 6), (5, 5), (2, 2)]
    assert answer.rows[1][1].startswith("Index event: condition: code 230690007")


def test_a_comparison_counts_patients_of_both(osteosarcoma: Generation) -> None:
    first = read_question(question("osteosarcoma-ct").document)
    second = read_question(question("osteosarcoma-ct").document, {"older_than_years": 60, "modality": "MR"})
    rows = {tuple(row[:2]): row[2:] for row in compare(osteosarcoma, first, second, TODAY).rows}
    assert rows["patients", "all"] == (5, 1)
    assert ("in_both", "all") not in rows
    assert rows["age_decade", "40"] == (3, 0)
    assert rows["age_decade", "70"] == (2, 1)
    assert rows["gender", "female"] == (4, 1)
    assert rows["modality", "CT"] == (5, 0)
    assert rows["modality", "MR"] == (1, 1)
    assert rows["condition", "307576001"] == (3, 1)


def test_the_same_cohort_twice_is_in_both(osteosarcoma: Generation) -> None:
    asked = read_question(question("osteosarcoma-ct").document)
    rows = {tuple(row[:2]): row[2:] for row in compare(osteosarcoma, asked, asked, TODAY).rows}
    assert rows["in_both", "all"] == (5, 5)


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_last_step_of_an_attrition_is_the_answer(name: str, tmp_path: Path) -> None:
    from cohort.attrition import compile_attrition
    from cohort.catalogue import column_types
    from cohort.dialects.duckdb import sql
    from cohort.engine.duckdb import connect
    from cohort.event_rows import EventRows
    from cohort.question_rows import Compiler

    connection = connect(generation(CASES[name], tmp_path))
    for ask in CASES[name]["asks"]:
        asked = read_question(question(name).document, ask.get("parameters", {}))
        told = connection.execute(sql(compile_attrition(asked, ask["date"], column_types()))).fetchall()
        units = Compiler(EventRows(ask["date"], column_types())).units(asked).relation
        rows = connection.execute(sql(units)).fetchall()
        assert told[-1][2] == len(rows)
        assert [row[2] for row in told] == sorted((row[2] for row in told), reverse=True)


def test_plots_are_written(osteosarcoma: Generation) -> None:
    asked = read_question(question("osteosarcoma-ct").document)
    counts = attrition(osteosarcoma, question("osteosarcoma-ct"), {}, TODAY)
    assert b"Older than the age given" in _with_text(attrition_plot, counts)
    assert attrition_plot(counts, "png").startswith(b"\x89PNG")
    compared = compare(osteosarcoma, asked, asked, TODAY)
    assert comparison_plot(compared, ("A", "B $x$")).startswith(b"<?xml")
    assert comparison_plot(Answer(compared.columns, (), False, "g", 0.0), ("A", "B")).startswith(b"<?xml")


def _with_text(draw: Any, answer: Answer) -> bytes:
    import matplotlib as mpl

    with mpl.rc_context({"svg.fonttype": "none"}):
        drawn: bytes = draw(answer)
    return drawn


def test_without_matplotlib_a_plot_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"imaging-bridge\[plot\]"):
        attrition_plot(Answer((), (), False, "g", 0.0))


def test_criteria_are_told_in_words() -> None:
    asked = read_question(question("contrast-ct-high-creatinine").document)
    words = [in_words(c) for c in asked.criteria.of]  # type: ignore[union-attr]
    assert words == ["study: status available", "CT series with contrast", "Last creatinine above the limit"]
    document = dict(question("contrast-ct-high-creatinine").document)
    unlabelled = [{k: v for k, v in c.items() if k != "label"} for c in document["criteria"]["all"]]
    asked = read_question(document | {"criteria": {"all": unlabelled}})
    assert in_words(asked.criteria.of[2]) == (  # type: ignore[union-attr]
        "observation: code 2160-0; value unit mg/dL; status not cancelled or entered-in-error; "
        "30 days before to 0 days after the day of the row; the last; it has value number more than 1.5"
    )


def run(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


def test_the_commands_ask_count_compare_and_draw(staging: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump(question("cancer-staging").document))
    settings = tmp_path / "bridge.toml"
    settings.write_text(EVERYTHING_TOML)
    here = ["--lake", str(staging), "--config", str(settings), "--date", "2026-08-01", "--format", "csv"]
    done = run("ask", str(own), *here)
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[1].startswith("both,2024-02-29,59")
    plot = tmp_path / "attrition.svg"
    done = run("ask", "cancer-staging", *here, "--attrition", "--plot", str(plot))
    assert done.exit_code == 0, done.output
    assert [line.split(",")[-1] for line in done.output.splitlines()] == ["patients", "4", "3", "1"]
    assert plot.read_bytes().startswith(b"<?xml")
    plot = tmp_path / "comparison.png"
    done = run("compare", "cancer-staging", "cancer-staging", "--second", "days=3650", *here, "--plot", str(plot))
    assert done.exit_code == 0, done.output
    assert "patients,all,1,2" in done.output
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_without_settings_attrition_and_comparison_tell_of_few_nothing_and_are_drawn(
    staging: Path, tmp_path: Path
) -> None:
    here = ["--lake", str(staging), "--date", "2026-08-01", "--format", "csv"]
    plot = tmp_path / "attrition.svg"
    done = run("ask", "cancer-staging", *here, "--attrition", "--plot", str(plot))
    assert done.exit_code == 0, done.output
    assert [line.split(",")[-2:] for line in done.stdout.splitlines()[1:]] == [["", ""]] * 3
    assert "fewer than 10 patients" in done.stderr
    assert plot.read_bytes().startswith(b"<?xml")
    plot = tmp_path / "comparison.svg"
    done = run("compare", "cancer-staging", "cancer-staging", *here, "--plot", str(plot))
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == ["measure,value,first,second", "patients,all,,", "in_both,all,,"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["ask", "cancer-staging", "--plot", "x.svg"], "--plot: needs --attrition"),
        (["ask", "cancer-staging", "--attrition", "--plot", "x.pdf"], "must end in .svg or .png"),
        (["ask", "cancer-staging", "--engine", "excel"], "--engine"),
        (["ask", "none"], "no question"),
        (["ask", "none.yaml"], "cannot be read"),
        (["compare", "cancer-staging", "repeated-ct", "--first", "times=2"], "parameter times: unknown"),
    ],
)
def test_a_wrong_command_is_told(words: list[str], told: str, staging: Path) -> None:
    done = run(*words, "--lake", str(staging))
    assert isinstance(done.exception, InvalidQuery)
    assert told in str(done.exception)


@pytest.mark.parametrize("content", [b"a: [", b"\xff\xfe\x00", b"- " * 200_000, b"a: !!python/object:os.system x"])
def test_a_file_that_is_no_document_is_told(content: bytes, tmp_path: Path) -> None:
    from cohort.catalogue import question_file

    (tmp_path / "q.yaml").write_bytes(content)
    with pytest.raises(InvalidQuery, match=r"q\.yaml"):
        question_file(tmp_path / "q.yaml")
    (tmp_path / "q.json").write_bytes(b"{")
    with pytest.raises(InvalidQuery, match="not JSON"):
        question_file(tmp_path / "q.json")
