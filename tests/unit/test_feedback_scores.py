"""Score cards of the lake: command, API and desk, under every policy."""

from __future__ import annotations

import csv
import io
import sys
import warnings
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet
import pytest
from fastapi import FastAPI
from typer.testing import CliRunner

from bridge.errors import ConfigError, InvalidQuery, NotAllowed
from cohort.api import router
from cohort.catalogue import outcome, read_outcome
from cohort.cli import app
from cohort.desk import Caller, Desk
from cohort.feedback import Wanted
from cohort.generation import Generation
from cohort.lake import Lake
from cohort.privacy import Policy
from cohort.query_log import QueryLog
from cohort.scores.asked import Asked
from cohort.scores.report import Report, report
from cohort.scores.rows import rows_of_records
from tests.outcome_cases import PREDICTED, publish
from tests.policies import EVERYTHING, EVERYTHING_TOML

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fastapi.testclient import TestClient

ME, NAME = Caller("me", "cli"), "lung-nodule-cancer"
CANCER, BENIGN = "254637007", "110396000"


def people() -> dict[str, Any]:
    """Sixty patients, each with one prediction; every third has cancer, which pathology finds a month later. LungNet
    says present of what has, absent of most that has not; the first ten of a hospital called North."""
    made: dict[str, Any] = {
        "programs": [{"id": "d1", "name": "LungNet", "version": "2"}],
        "patients": [], "studies": [], "predictions": [], "observations": [],
    }  # fmt: skip
    for n in range(60):
        day, cancer = date(2022, 1, 1) + timedelta(days=5 * n), n % 3 == 0
        who = {"patient": f"p{n}"}
        made["patients"].append({"id": f"p{n}", "mrn": str(n), "birthDate": "1950-06-15", "gender": "female"})
        study = {"uid": f"1.2.{n}", "modality": ["CT"], "started": f"{day}T09:00:00Z"}
        made["studies"].append(who | study | {"site": "North" if n < 10 else "South"})
        says = cancer or n % 10 == 1
        made["predictions"].append(
            PREDICTED | who | {"id": f"a{n}", "study": f"1.2.{n}", "program": "d1", "present": says}
            | {"percent": 51 + n % 49, "made": f"{day}T10:00:00Z"}
        )  # fmt: skip
        answer = CANCER if cancer else BENIGN
        found = {"id": f"o{n}", "code": ["loinc", "22637-3"], "answer": ["sct", answer]}
        made["observations"].append(who | found | {"effectiveDateTime": str(day + timedelta(days=30))})
    return made


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    made = Lake(tmp_path_factory.mktemp("scores") / "lake")
    publish(made, people())
    return made


def current(lake: Lake) -> Generation:
    found = lake.current()
    assert found is not None
    return found


def asked(lake: Lake, policy: Policy = EVERYTHING, **more: Any) -> Report:
    wanted = Wanted(outcome(NAME), {}, "LungNet")
    return Desk(lake.root, policy).scores(current(lake), wanted, Asked.of("LungNet", **more), ME)


def test_the_report_is_that_of_the_rows_that_outcomes_gives(lake: Lake) -> None:
    pulled = Desk(lake.root, EVERYTHING).outcomes(current(lake), Wanted(outcome(NAME), {}, "LungNet"), ME).answer
    rows = rows_of_records([name for name, _ in pulled.columns], pulled.rows)
    found = asked(lake, drift=True)
    assert found == report(rows, Asked.of("LungNet", drift=True), EVERYTHING)
    whole = found.cards[0]
    cells = {name: count.n for name, count in whole.confusion.items()}
    assert cells == {"tp": 20, "fp": 4, "fn": 0, "tn": 36}
    assert whole.turnaround[2].median == 30.0
    assert {(c.slice, c.value) for c in found.cards} >= {("site", "North"), ("site", "South"), ("sex", "female")}
    assert found.drift[0].window.first_day == date(2022, 4, 1)


def test_without_any_setting_a_report_is_coarse_and_needs_no_rows(lake: Lake) -> None:
    found = asked(lake, Policy())
    assert found.cards[0].predictions.patients == 60
    assert {name: count.n for name, count in found.cards[0].confusion.items()} == {
        "tp": 20, "fp": None, "fn": None, "tn": 30,
    }  # fmt: skip
    assert "fewer than 10 patients" in found.notes[0]
    entry = QueryLog(lake.root / "log").questions()[-1]
    assert (entry["kind"], entry["what"], entry["event"], entry["rows"]) == ("scores", NAME, "answered", 0)


def test_under_pseudonyms_sites_have_theirs_and_months_are_true(lake: Lake) -> None:
    found = asked(lake, Policy(small_cells=1), drift=True)
    sites = [c.value for c in found.cards if c.slice == "site"]
    assert len(sites) == 2
    assert not {"North", "South"} & set(sites)
    assert b"North" not in orjson.dumps(found)
    exact = asked(lake, drift=True)
    assert [d.window for d in found.drift] == [d.window for d in exact.drift]
    assert found.cards[0].measures == exact.cards[0].measures


def test_a_document_of_ones_own_that_singles_people_out_is_refused(lake: Lake) -> None:
    document = dict(outcome(NAME).document)
    document["evidence"] = [{"outcome": "confirmed", "condition": {"where": {"condition_id": "c1"}}}]
    wanted = Wanted(read_outcome(document), {}, "LungNet")
    with pytest.raises(NotAllowed, match="condition_id"):
        Desk(lake.root).scores(current(lake), wanted, Asked.of("LungNet"), ME)


def run(lake: Lake, *words: str | Path) -> Any:
    done = CliRunner().invoke(app, ["scores", *map(str, words), "--lake", str(lake.root)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def test_the_command_asks_the_lake_or_a_file_that_outcomes_wrote(lake: Lake, tmp_path: Path) -> None:
    config, file = tmp_path / "bridge.toml", tmp_path / "outcomes.parquet"
    config.write_text(EVERYTHING_TOML)
    of_lake = run(lake, "LungNet@2", "--by", NAME, "--config", config, "--json", "--plots", tmp_path / "plots")
    told = orjson.loads(of_lake.stdout_bytes)
    assert told["cards"][0]["target"]["model_version"] == "2"
    assert (tmp_path / "plots" / "01-card.svg").read_bytes().startswith(b"<?xml")
    words = ["outcomes", "LungNet", "--by", NAME, "-f", "parquet", "-o", str(file), "--lake", str(lake.root)]
    assert CliRunner().invoke(app, [*words, "--config", str(config)]).exit_code == 0
    assert pyarrow.parquet.read_table(file).num_rows == 60
    of_file = run(lake, "LungNet@2", "--rows", file, "--config", config, "--json")
    assert orjson.loads(of_file.stdout_bytes)["cards"] == told["cards"]
    with pytest.raises(InvalidQuery, match="no prediction of this model"):
        run(lake, "Nobody", "--by", NAME)


@pytest.fixture
def web(lake: Lake) -> TestClient:
    made = FastAPI()
    made.include_router(router(lake, Desk(lake.root)))
    return TestClient(made)


def test_the_api_gives_the_report_its_numbers_and_its_picture(web: TestClient, lake: Lake) -> None:
    at = f"/cohort/api/feedback/{NAME}/scores"
    told = web.get(at, params={"model": "LungNet", "version": "2", "slice": "sex", "drift": True})
    assert told.status_code == 200
    assert told.headers["X-Lake-Generation"] == current(lake).id
    assert [(c["slice"], c["value"]) for c in told.json()["cards"]] == [("", ""), ("sex", "female")]
    flat = web.get(at, params={"model": "LungNet", "format": "csv"})
    rows = list(csv.DictReader(io.StringIO(flat.text)))
    assert {"sensitivity", "auroc", "predictions"} <= {r["name"] for r in rows}
    picture = web.get(at, params={"model": "LungNet", "format": "png"})
    assert picture.content.startswith(b"\x89PNG")
    assert picture.headers["Content-Security-Policy"].startswith("default-src 'none'")


@pytest.mark.parametrize(
    ("name", "params", "status"),
    [
        ("no-such", {"model": "LungNet"}, 404),
        (NAME, {"model": "Nobody"}, 400),
        (NAME, {"model": "LungNet", "slice": "colour"}, 400),
        (NAME, {"model": "LungNet", "format": "pdf"}, 422),
    ],
)
def test_the_api_refuses_what_is_wrong(web: TestClient, name: str, params: dict[str, str], status: int) -> None:
    assert web.get(f"/cohort/api/feedback/{name}/scores", params=params).status_code == status


def test_without_scikit_learn_the_desk_says_what_to_install(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cohort.scores.report", None)
    with pytest.raises(ConfigError, match=r"imaging-bridge\[scores\]"):
        asked(lake)
