from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
from typer.testing import CliRunner

from bridge.errors import InvalidQuery
from cohort.cli import app
from cohort.engine.views import rows_sql, run_view, write_parquet

VIEW: dict[str, Any] = {
    "resource": "Patient",
    "name": "names",
    "select": [
        {"column": [{"name": "id", "path": "getResourceKey()", "type": "string"}]},
        {
            "forEach": "name",
            "column": [{"name": "family", "path": "family", "type": "string", "description": "Surname"}],
        },
    ],
}
SEVERAL: dict[str, Any] = {
    "resource": "Patient",
    "select": [{"column": [{"name": "id", "path": "id"}, {"name": "family", "path": "name.family"}]}],
}
LINES = [
    {"resourceType": "Patient", "id": "a", "name": [{"family": "One"}, {"family": "Two"}]},
    {"resourceType": "Patient", "id": "b"},
    {"resourceType": "Patient", "id": "c", "name": [{"family": "=1+1"}]},
]


def ndjson(folder: Path, *lines: Any) -> Path:
    file = folder / "Patient.ndjson"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return file


def saved(folder: Path, view: Any) -> str:
    file = folder / "view.json"
    file.write_text(json.dumps(view), "utf-8")
    return str(file)


def test_rows_come_from_duckdb_and_are_bounded(tmp_path: Path) -> None:
    made = run_view(VIEW, [ndjson(tmp_path, *LINES)], 2)
    assert made.engine == "duckdb"
    assert made.answer.columns == (("id", "VARCHAR"), ("family", "VARCHAR"))
    assert made.answer.rows == (("a", "One"), ("a", "Two"))
    assert made.answer.truncated


def test_several_files_gzip_too(tmp_path: Path) -> None:
    packed = tmp_path / "more.ndjson.gz"
    packed.write_bytes(gzip.compress(json.dumps(LINES[2] | {"id": "d"}).encode()))
    made = run_view(VIEW, [ndjson(tmp_path, *LINES), packed], 10)
    assert sorted(row[0] for row in made.answer.rows) == ["a", "a", "c", "d"]
    assert made.engine == "duckdb"


@pytest.mark.parametrize(
    "line",
    [
        {"resourceType": "Organization", "id": "x", "name": "a text where Patient has objects"},
        {"resourceType": "Patient", "id": "x", "name": "a text where Patient has objects"},
    ],
)
def test_lines_of_another_shape_are_left_to_the_evaluator(tmp_path: Path, line: dict[str, Any]) -> None:
    made = run_view(VIEW, [ndjson(tmp_path, *LINES, line)], 10)
    assert made.engine == "evaluator"
    assert "shape" in made.reason
    assert sorted(row for row in made.answer.rows if row[0] != "x") == [("a", "One"), ("a", "Two"), ("c", "=1+1")]


def test_a_resource_with_several_values_is_named_and_the_others_stay(tmp_path: Path) -> None:
    made = run_view(SEVERAL, [ndjson(tmp_path, *LINES)], 10)
    assert made.answer.rows == (("b", None), ("c", "=1+1"))
    ((file, line, reason),) = made.parked
    assert (file, line) == ("Patient.ndjson", 1)
    assert "column family has 2 values" in reason
    assert "One" not in reason


def test_deeper_than_sql_reads_is_evaluated(tmp_path: Path) -> None:
    item: dict[str, Any] = {"linkId": "0"}
    for n in range(1, 20):
        item = {"linkId": str(n), "item": [item]}
    file = ndjson(tmp_path, {"resourceType": "QuestionnaireResponse", "id": "q", "item": [item]})
    view = {
        "resource": "QuestionnaireResponse",
        "select": [{"repeat": ["item"], "column": [{"name": "l", "path": "linkId"}]}],
    }
    made = run_view(view, [file], 100)
    assert made.engine == "evaluator"
    assert [row[0] for row in made.answer.rows] == [str(n) for n in reversed(range(20))]


def test_an_invalid_view_is_refused_by_the_path(tmp_path: Path) -> None:
    wrong = {"resource": "Patient", "select": [{"column": [{"name": "x", "path": "name.family.nope()"}]}]}
    with pytest.raises(InvalidQuery, match=r"name\.family\.nope\(\)"):
        run_view(wrong, [ndjson(tmp_path)], 1)
    unknown = {"resource": "Patient", "select": [{"column": [{"name": "x", "path": "name.nope"}]}]}
    with pytest.raises(
        InvalidQuery, match=r"select\[0\]\.column\[0\]\.path: path 'name.nope': HumanName has no element nope"
    ):
        rows_sql(unknown, tmp_path / "x")


def test_parquet_has_all_rows(tmp_path: Path) -> None:
    out = tmp_path / "o'ut.parquet"
    assert write_parquet(VIEW, [ndjson(tmp_path, *LINES)], out) == ""
    with duckdb.connect() as connection:
        assert len(connection.execute("SELECT * FROM read_parquet($1)", [str(out)]).fetchall()) == 3
    assert "several values" in write_parquet(SEVERAL, [tmp_path / "Patient.ndjson"], tmp_path / "none.parquet")
    assert not (tmp_path / "none.parquet").exists()


def test_run_writes_csv_that_no_spreadsheet_computes(tmp_path: Path) -> None:
    data = str(ndjson(tmp_path, *LINES))
    result = CliRunner().invoke(app, ["view", "run", saved(tmp_path, VIEW), "--data", data, "-f", "csv"])
    assert result.exit_code == 0
    assert "\nc,'=1+1" in result.output.replace("\r", "")


def test_run_says_what_it_could_not_use(tmp_path: Path) -> None:
    data = str(ndjson(tmp_path, *LINES))
    result = CliRunner().invoke(app, ["view", "run", saved(tmp_path, SEVERAL), "--data", data, "-f", "json"])
    assert result.exit_code == 1
    assert "Not used: Patient.ndjson line 1" in result.output
    out = tmp_path / "out.parquet"
    arguments = ["view", "run", saved(tmp_path, SEVERAL), "--data", data, "-f", "parquet", "-o", str(out)]
    assert CliRunner().invoke(app, arguments).exit_code == 1
    assert out.exists()


def test_check_and_explain(tmp_path: Path) -> None:
    file = saved(tmp_path, VIEW)
    checked = CliRunner().invoke(app, ["view", "check", file])
    assert checked.exit_code == 0
    assert "Surname" in checked.output
    assert "runs as SQL" in checked.output
    assert "read_json(" in CliRunner().invoke(app, ["view", "explain", file]).output
    assert "from_json(" in CliRunner().invoke(app, ["view", "explain", file, "--dialect", "spark"]).output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "VIEW", "--data", "nowhere.ndjson"], "--data"),
        (["run", "VIEW", "--data", "DATA", "-f", "xml"], "--format"),
        (["run", "VIEW", "--data", "DATA", "-f", "parquet"], "--output"),
        (["run", "DATA", "--data", "DATA"], "JSON"),
        (["check", "nowhere.json"], "cannot be read"),
        (["explain", "VIEW", "--dialect", "oracle"], "--dialect"),
    ],
)
def test_wrong_arguments_are_named(tmp_path: Path, arguments: list[str], said: str) -> None:
    names = {"VIEW": saved(tmp_path, VIEW), "DATA": str(ndjson(tmp_path, *LINES))}
    result = CliRunner().invoke(app, ["view", *(names.get(a, a) for a in arguments)])
    assert isinstance(result.exception, InvalidQuery)
    assert said in str(result.exception)
