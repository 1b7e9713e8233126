"""`cohort scores`, and the rows it reads."""

from __future__ import annotations

import csv
import io
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from pydantic import TypeAdapter
from typer.testing import CliRunner, Result

from bridge.errors import ConfigError, InvalidQuery, ProjectError
from cohort.cli import app
from cohort.scores.report import Report
from cohort.scores.rows import COLUMNS, read_rows, rows_of
from cohort.scores.slices import slices
from tests.policies import EVERYTHING_TOML
from tests.score_rows import a_row, a_table, some_rows
from tests.unit.test_score_drift import rows_by_month

SCHEMA = Path(__file__).parents[2] / "docs" / "score-report.schema.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("scores")
    table = a_table([a_row(n, **one) for n, one in enumerate(rows_by_month(each=40))])
    pyarrow.parquet.write_table(table, made / "rows.parquet")
    pyarrow.csv.write_csv(table, made / "rows.csv")
    (made / "bridge.toml").write_text(EVERYTHING_TOML)
    return made


def run(*words: str | Path) -> Result:
    result = CliRunner().invoke(app, ["scores", *map(str, words)])
    if isinstance(result.exception, ProjectError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def test_a_report_is_json_and_the_same_from_parquet_and_csv(folder: Path) -> None:
    config = ["--config", folder / "bridge.toml"]
    told = run("nodules@1.0", "--rows", folder / "rows.parquet", "--drift", "--versions", "--json", *config)
    report = orjson.loads(told.stdout_bytes)
    assert report["cards"][0]["predictions"] == {"n": 240, "patients": 240}
    assert {c["slice"] for c in report["cards"]} == {"", "site", "scanner", "sex", "age"}
    assert len(report["drift"]) == 3
    assert TypeAdapter(Report).json_schema(mode="serialization") == orjson.loads(SCHEMA.read_bytes())
    jsonschema.validate(report, orjson.loads(SCHEMA.read_bytes()))
    from_csv = run("--rows", folder / "rows.csv", "--drift", "--versions", "--json", *config)
    assert from_csv.stdout_bytes == told.stdout_bytes


def test_without_settings_counts_are_coarse_and_it_is_said(folder: Path) -> None:
    told = run("--rows", folder / "rows.csv", "--slice", "sex", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(told.stdout)))
    assert {r["slice"] for r in rows} == {"", "sex=female", "sex=male"}
    counts = [r["n"] for r in rows if r["n"]]
    assert counts
    assert all(int(n) % 10 == 0 for n in counts)
    assert "fewer than 10 patients" in told.stderr


def test_the_flat_table_is_parquet_and_a_table_too(folder: Path, tmp_path: Path) -> None:
    run("--rows", folder / "rows.csv", "--since", "2026-06-01", "-f", "parquet", "-o", tmp_path / "scores.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "scores.parquet")
    names = table.column("name").to_pylist()
    assert {"sensitivity", "auroc", "kappa", "psi score", "change of auroc", "prediction_to_reader_hours median"} <= {
        *names
    }
    assert table.schema.field("value").type == pa.float64()
    shown = run("--rows", folder / "rows.csv", "--slice", "site").stdout
    assert "nodules 1.0, 427359005" in shown
    assert "site=North" in shown


def test_plots_are_drawn_into_a_folder(folder: Path, tmp_path: Path) -> None:
    run(
        "--rows", folder / "rows.csv", "--slice", "site", "--drift", "--plots", tmp_path / "new", "--plot-format", "png"
    )
    files = sorted((tmp_path / "new").iterdir())
    assert [f.name for f in files] == ["01-card.png", "01-drift.png", "01-site.png"]
    assert all(f.read_bytes().startswith(b"\x89PNG") for f in files)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "needs either --by"),
        (["--by", "lung-nodule-cancer", "--rows", "rows.csv"], "needs either --by"),
        (["--rows", "rows.csv", "--slice", "colour"], "allowed: site, scanner, sex, age"),
        (["--rows", "rows.txt"], "end in .parquet or .csv"),
        (["--rows", "missing.csv"], "cannot be read"),
        (["--rows", "missing.parquet", "--format", "parquet"], "needs --output"),
        (["--rows", "missing.csv", "--format", "xml"], "--format: found 'xml'"),
        (["--rows", "missing.csv", "--since", "soon"], "YYYY-MM-DD"),
    ],
)
def test_what_is_wrong_is_told(words: list[str], told: str) -> None:
    with pytest.raises(InvalidQuery, match=told):
        run(*words)


def test_without_scikit_learn_it_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cohort.scores.report", None)
    with pytest.raises(ConfigError, match=r"imaging-bridge\[scores\]"):
        run("--rows", folder / "rows.csv")


def test_the_row_changed_last_counts() -> None:
    rows = [
        a_row(1, changed="9", outcome="pending"),
        a_row(1, changed="10", outcome="confirmed"),
        a_row(2, changed="g000010", outcome="refuted"),
        a_row(2, changed="g000009", outcome="pending"),
        a_row(3, outcome="confirmed"),
        a_row(3, outcome="confirmed"),
        a_row(4, outcome="confirmed"),
        a_row(4, outcome="refuted"),
        a_row(5, changed="1", outcome="refuted"),
        a_row(5, changed="1", outcome="confirmed"),
        a_row(5, changed="2", outcome="confirmed"),
    ]
    for order in (rows, rows[::-1]):
        found = rows_of(a_table(order))
        by_name = {found.patient.names[c]: o for c, o in zip(found.patient.codes, found.outcome, strict=True)}
        assert by_name == {"patient1": 1, "patient2": 0, "patient3": 1, "patient5": 1}
        assert found.left_out == {
            "two rows for one prediction that differ": 1,
            "replaced by a later row, or the same row again": 6,
        }


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"outcome": "maybe"}, "outcome unknown"),
        ({"outcome": None}, "outcome unknown"),
        ({"outcome": "withdrawn", "predicted": None}, "withdrawn"),
        ({"score": 1.01}, "score not within 0 and 1"),
        ({"predicted": None}, "predicted missing"),
        ({"patient": ""}, "patient missing"),
        ({"study_instance_uid": None}, "study missing"),
        ({"prediction_id": " "}, "prediction_id missing"),
    ],
)
def test_rows_that_cannot_be_used_are_counted_and_stop_nothing(given: dict[str, Any], reason: str) -> None:
    found = some_rows([{}, given, {}])
    assert (len(found), found.left_out) == (2, {reason: 1})


def test_a_column_that_is_wrong_is_named_without_its_values(tmp_path: Path) -> None:
    table = a_table([a_row(1)])
    with pytest.raises(InvalidQuery, match="no column outcome"):
        rows_of(table.drop_columns("outcome"))
    with pytest.raises(InvalidQuery, match="column score: found string"):
        rows_of(table.set_column(table.column_names.index("score"), "score", pa.array(["high"])))
    file = tmp_path / "rows.csv"
    pyarrow.csv.write_csv(table, file)
    file.write_text(file.read_text().replace("0.9,", "Mary Miller,"))
    with pytest.raises(InvalidQuery, match="column score: allowed is double") as told:
        read_rows(file)
    assert "Mary" not in str(told.value)
    file.write_text("\0\1")
    with pytest.raises(InvalidQuery, match=r"rows.csv|no column"):
        read_rows(file)


def test_optional_columns_may_be_missing_and_other_columns_are_passed_over() -> None:
    table = a_table([a_row(1)]).drop_columns(["score", "site", "changed", "reader_agrees"])
    found = rows_of(table.append_column("note", pa.array(["x"])))
    assert [value for value, _ in slices(found, "site")] == ["unknown"]
    assert found.reader_agrees.tolist() == [-1]


def test_values_that_are_shown_alike_are_one_slice() -> None:
    found = some_rows([{"manufacturer": "ACME One", "model_name": ""}, {}, {"manufacturer": None, "model_name": None}])
    assert [(value, len(own)) for value, own in slices(found, "scanner")] == [("ACME One", 2), ("unknown", 1)]


def test_moments_count_by_their_instant() -> None:
    table = a_table([a_row(1, predicted_at=datetime(2026, 1, 1, 23, 30, tzinfo=UTC))])
    naive = table.set_column(
        list(COLUMNS).index("predicted_at"), "predicted_at", pa.array([datetime(2026, 1, 1, 23, 30)])
    )
    assert rows_of(naive).predicted_at.tolist() == rows_of(table).predicted_at.tolist()
