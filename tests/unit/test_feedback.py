from __future__ import annotations

import csv
import io
import stat
import warnings
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pytest
from fastapi import FastAPI
from typer.testing import CliRunner

from bridge.errors import InvalidQuery, NotAllowed, Unavailable
from cohort.api import router
from cohort.catalogue import outcome, read_outcome
from cohort.cli import app
from cohort.desk import Caller, Desk
from cohort.feedback import Wanted
from cohort.generation import Generation
from cohort.lake import Lake
from cohort.outcome_changes import FILE, changed
from cohort.outcome_rows import ROW
from cohort.privacy import Policy
from tests.outcome_cases import PREDICTED, publish
from tests.policies import EVERYTHING, EVERYTHING_TOML
from tests.validity import told_wrong

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fastapi.testclient import TestClient

ME = Caller("me", "cli")
ROWS = Policy(line_level=True)
NAME = "lung-nodule-cancer"
PEOPLE: dict[str, Any] = {
    "patients": [{"id": "p1", "mrn": "1", "birthDate": "1950-06-15"}, {"id": "p2", "mrn": "2"}],
    "programs": [{"id": "d1", "name": "LungNet", "version": "2"}],
    "studies": [
        {"uid": "1.2.1", "patient": "p1", "modality": ["CT"], "started": "2022-01-01T09:00:00Z", "site": "North"},
        {"uid": "1.2.2", "patient": "p2", "modality": ["CT"], "started": "2022-01-02T09:00:00Z"},
    ],
    "predictions": [
        PREDICTED | {"id": "a", "patient": "p1", "study": "1.2.1", "program": "d1"},
        PREDICTED | {"id": "b", "patient": "p2", "study": "1.2.2", "program": "d1"},
    ],
}  # fmt: skip
CANCER = {
    "id": "path",
    "patient": "p1",
    "code": ["loinc", "22637-3"],
    "answer": ["sct", "254637007"],
    "effectiveDateTime": "2022-02-01",
}
BENIGN = CANCER | {"answer": ["sct", "110396000"]}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    made = Lake(tmp_path / "lake")
    publish(made, PEOPLE)
    return made


def wanted(**more: Any) -> Wanted:
    return Wanted(outcome(NAME), {}, "LungNet", **more)


def current(lake: Lake) -> Generation:
    found = lake.current()
    assert found is not None
    return found


class Puller:
    """A pipeline that keeps what it pulled, and its cursor."""

    def __init__(self, lake: Lake, policy: Policy = EVERYTHING) -> None:
        self._lake, self._desk = lake, Desk(lake.root, policy)
        self.cursor: str | None = None
        self.rows: dict[str, Mapping[str, Any]] = {}

    def pull(self, most: int = 10_000) -> list[tuple[str, str]]:
        """What came: (prediction, outcome)."""
        found = self._desk.outcomes(current(self._lake), wanted(most=most), ME, self.cursor)
        self.cursor, answer = found.cursor, found.answer
        names = [name for name, _ in answer.columns]
        came = [dict(zip(names, row, strict=True)) for row in answer.rows]
        self.rows |= {row["prediction_id"]: row for row in came}
        return [(row["prediction_id"], row["outcome"]) for row in came]


def test_a_late_a_corrected_and_a_withdrawn_outcome_are_seen_as_changes_and_nothing_else_is(lake: Lake) -> None:
    puller = Puller(lake)
    assert puller.pull() == [("a", "censored"), ("b", "censored")]
    assert puller.pull() == []
    publish(lake, {"observations": [CANCER]}, 2)
    assert puller.pull() == [("a", "confirmed")]
    publish(lake, {"observations": [CANCER]}, 3)  # the same again
    assert puller.pull() == []
    publish(lake, {"observations": [BENIGN]}, 4)
    assert puller.pull() == [("a", "refuted")]
    publish(lake, {"predictions": [PEOPLE["predictions"][1] | {"deleted": True}]}, 5)
    assert puller.pull() == [("b", "withdrawn")]
    assert puller.rows["b"]["patient"] is None
    publish(lake, {"predictions": [PEOPLE["predictions"][1]]}, 6)
    assert puller.pull() == [("b", "censored")]
    assert Puller(lake).pull() == [("a", "refuted"), ("b", "censored")]


def test_everybody_has_a_cursor_of_their_own_and_pages_lose_nothing(lake: Lake) -> None:
    first, second = Puller(lake), Puller(lake)
    assert first.pull(1) == [("a", "censored")]
    assert first.pull(1) == [("b", "censored")]
    assert first.pull(1) == []
    publish(lake, {"observations": [CANCER]}, 2)
    assert second.pull() == [("b", "censored"), ("a", "confirmed")]
    assert first.pull(1) == [("a", "confirmed")]
    assert first.rows == second.rows


def test_a_lost_file_of_changes_is_told_and_not_papered_over(lake: Lake) -> None:
    puller = Puller(lake)
    puller.pull()
    (lake.root / FILE).unlink()
    with pytest.raises(InvalidQuery, match="ask without a cursor"):
        puller.pull()
    puller.cursor = None
    assert len(puller.pull()) == 2


@pytest.mark.parametrize("cursor", ["", "x", "x.1", "WORD.2", "WORD.-1", "WORD.", "WORD.1e3", f"WORD.{'9' * 30}"])
def test_a_cursor_that_nobody_gave_is_refused(tmp_path: Path, cursor: str) -> None:
    word = changed(tmp_path, "s", [("a", "1")], None, 10).cursor.partition(".")[0]
    with pytest.raises(InvalidQuery, match="cursor"):
        changed(tmp_path, "s", [("a", "1")], cursor.replace("WORD", word), 10)


def test_series_are_apart_and_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    one = changed(tmp_path, "one", [("a", "1"), ("b", "1")], None, 10)
    other = changed(tmp_path, "other", [("a", "2")], None, 10)
    assert [n for _, n, _ in one.rows] == [1, 2]
    assert [n for _, n, _ in other.rows] == [1]
    with pytest.raises(InvalidQuery):
        changed(tmp_path, "other", [("a", "2")], one.cursor, 10)
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


def test_a_file_that_cannot_be_read_is_an_error_that_passes(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database" * 100)
    with pytest.raises(Unavailable, match="DatabaseError"):
        changed(tmp_path, "s", [], None, 10)


def test_rows_need_line_level_and_are_logged(lake: Lake) -> None:
    with pytest.raises(NotAllowed, match="line_level"):
        Desk(lake.root).outcomes(current(lake), wanted(), ME)
    desk = Desk(lake.root, ROWS)
    desk.outcomes(current(lake), wanted(), ME)
    first, second = desk.log.questions()
    assert (first["kind"], first["what"], first["reason"]) == ("outcomes", NAME, "NotAllowed")
    assert (second["parameters"]["model"], second["rows"]) == ("LungNet", 2)


def test_ids_dates_and_sites_are_pseudonyms_and_delays_stay(lake: Lake) -> None:
    publish(lake, {"observations": [CANCER]}, 2)
    answer = Desk(lake.root, ROWS).outcomes(current(lake), wanted(), ME).answer
    row = next(dict(zip([*ROW, "changed"], r, strict=True)) for r in answer.rows if "confirmed" in r)
    assert [n for n, _ in answer.columns] == [*ROW, "changed"]
    assert row["delay_days"] == 31
    moved = (date(2022, 1, 1) - date.fromisoformat(row["index_date"])).days
    assert 1 <= moved <= 365
    assert (date(2022, 2, 1) - date.fromisoformat(row["evidence_date"])).days == moved
    sql = Desk(lake.root, ROWS).sql
    known = sql(current(lake), "SELECT patient_id, observation_id, study_instance_uid FROM imaging_finding", ME).rows
    assert (row["patient"], row["prediction_id"], row["study_instance_uid"]) in known
    path = sql(current(lake), "SELECT 'Observation/' || observation_id FROM observation WHERE code = '22637-3'", ME)
    assert path.rows == ((row["evidence"],),)
    shown = str(answer.rows)
    for secret in ("p1", "1.2.1", "North", "2022-02-01"):
        assert f"'{secret}'" not in shown
    assert any("pseudonyms" in note for note in answer.notes)


def test_documents_of_ones_own_cannot_test_what_singles_people_out(lake: Lake) -> None:
    changes = {
        "name": "mine",
        "finding": {"codes": {"system": "http://snomed.info/sct", "code": "427359005"}, "where": {"device": "x"}},
    }
    mine = read_outcome({**outcome(NAME).document, **changes})
    with pytest.raises(NotAllowed, match=r"finding.device singles people out"):
        Desk(lake.root, ROWS).outcomes(current(lake), Wanted(mine, {}), ME)
    assert Desk(lake.root, EVERYTHING).outcomes(current(lake), Wanted(mine, {}), ME).answer.rows == ()


def test_as_of_a_day_there_are_no_changes(lake: Lake) -> None:
    publish(lake, {"observations": [CANCER]}, 2)
    desk = Desk(lake.root, EVERYTHING)
    found = desk.outcomes(current(lake), wanted(on=date(2022, 1, 31)), ME)
    assert [(r[0], r[10], r[-1]) for r in found.answer.rows] == [("a", "pending", None), ("b", "pending", None)]
    assert found.cursor == ""
    assert not (lake.root / FILE).exists()
    with pytest.raises(InvalidQuery, match="cursor"):
        desk.outcomes(current(lake), wanted(on=date(2022, 1, 31)), ME, "x.1")


@pytest.fixture
def web(lake: Lake) -> TestClient:
    made = FastAPI()
    made.include_router(router(lake, Desk(lake.root, EVERYTHING)))
    return TestClient(made)


def test_the_api_gives_pages_in_every_format(web: TestClient, tmp_path: Path) -> None:
    at = f"/cohort/api/feedback/{NAME}"
    assert NAME in [d["name"] for d in web.get("/cohort/api/feedback").json()]
    first = web.get(at, params={"model": "LungNet", "version": "2", "limit": 1})
    assert [r["prediction_id"] for r in first.json()["rows"]] == ["a"]
    second = web.get(first.links["next"]["url"])
    assert [r["prediction_id"] for r in second.json()["rows"]] == ["b"]
    assert "next" not in second.links
    assert (
        web.get(at, params={"model": "LungNet", "version": "2", "cursor": second.headers["X-Outcomes-Cursor"]}).json()[
            "rows"
        ]
        == []
    )
    assert web.get(at, params={"model": "LungNet", "version": "1"}).json()["rows"] == []
    assert [r["prediction_id"] for r in csv.DictReader(io.StringIO(web.get(at, params={"format": "csv"}).text))] == [
        "a",
        "b",
    ]
    assert len(web.get(at, params={"format": "ndjson"}).text.splitlines()) == 2
    (tmp_path / "a.parquet").write_bytes(web.get(at, params={"format": "parquet"}).content)
    described = duckdb.sql(f"DESCRIBE SELECT * FROM '{tmp_path}/a.parquet'").fetchall()
    types = {name: kind for name, kind, *_ in described}
    assert list(types) == [*ROW, "changed"]
    assert (types["score"], types["predicted"], types["index_date"], types["delay_days"]) == (
        "DOUBLE",
        "BOOLEAN",
        "DATE",
        "BIGINT",
    )
    assert types["predicted_at"] == types["reader_at"] == "TIMESTAMP WITH TIME ZONE"


def test_the_api_refuses_what_is_wrong(web: TestClient) -> None:
    assert web.get("/cohort/api/feedback/cold").status_code == 404
    assert web.get(f"/cohort/api/feedback/{NAME}?cursor=x.1").status_code == 400
    assert web.get(f"/cohort/api/feedback/{NAME}?limit=0").status_code == 422
    assert web.get(f"/cohort/api/feedback/{NAME}?date=2022-01-31").json()["rows"][0]["outcome"] == "pending"


def test_outcomes_are_valid_observations(lake: Lake, web: TestClient) -> None:
    at = f"/cohort/api/feedback/{NAME}?format=fhir"
    cursor = web.get(at).headers["X-Outcomes-Cursor"]
    publish(lake, {"observations": [CANCER], "predictions": [PEOPLE["predictions"][1] | {"deleted": True}]}, 2)
    made = web.get(f"{at}&cursor={cursor}")
    assert made.headers["content-type"] == "application/fhir+json"
    assert not told_wrong(made.json(), "r4")
    confirmed, withdrawn = (e["resource"] for e in made.json()["entry"])
    for one in (confirmed, withdrawn):
        assert not told_wrong(one, "r4")
    assert confirmed["focus"] == [{"reference": "Observation/path", "type": "Observation"}]
    assert (confirmed["effectiveDateTime"], confirmed["device"]["display"]) == ("2022-02-01", "LungNet 2")
    assert confirmed["valueCodeableConcept"]["coding"][0]["code"] == "confirmed"
    assert (withdrawn["status"], "valueCodeableConcept" in withdrawn) == ("entered-in-error", False)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def test_the_command_writes_rows_and_tells_the_cursor(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "bridge.toml").write_text(EVERYTHING_TOML, "utf-8")
    common = ["--by", NAME, "--lake", str(lake.root), "--config", str(tmp_path / "bridge.toml")]
    made = run("outcomes", "LungNet@2", *common, "--format", "json")
    assert made.exit_code == 0, made.output
    assert [r["prediction_id"] for r in orjson.loads(made.stdout)["rows"]] == ["a", "b"]
    cursor = made.stderr.splitlines()[-1].removeprefix("Cursor: ")
    out = tmp_path / "new.ndjson"
    made = run("outcomes", "LungNet@2", *common, "--format", "ndjson", "--cursor", cursor, "--output", str(out))
    assert (made.exit_code, out.read_bytes()) == (0, b"")
    made = run("outcomes", "LungNet", *common, "--date", "2022-01-31", "--format", "csv")
    assert made.stdout.count("pending") == 2
    assert "Cursor" not in made.stderr
    assert "censored" in run("outcomes", "LungNet", *common).stdout
    assert "censored" in run("outcomes", "LungNet", *common[2:]).stdout  # one definition speaks of its findings
    assert "--by: needed; known" in str(run("outcomes", "Nobody's", *common[2:]).exception)
    assert run("outcomes", "LungNet", *common, "--format", "fhir").stdout.startswith('{"resourceType":"Bundle"')


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--by", "cold"], "known: fracture"), (["--by", NAME, "--format", "xml"], "allowed: table"),
     (["--by", NAME, "--format", "parquet"], "needs --output"), (["--by", NAME, "--cursor", "x.1"], "ask without")],
)  # fmt: skip
def test_the_command_says_what_is_wrong(lake: Lake, tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "bridge.toml").write_text(EVERYTHING_TOML, "utf-8")
    made = run("outcomes", "LungNet", "--lake", str(lake.root), "--config", str(tmp_path / "bridge.toml"), *arguments)
    assert made.exit_code != 0
    assert said in str(made.exception)
