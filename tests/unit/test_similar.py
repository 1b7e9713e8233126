from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from typer.testing import CliRunner

from bridge.errors import InvalidQuery, NotAllowed
from cohort.api import router
from cohort.catalogue import outcome
from cohort.cli import app
from cohort.desk import Caller, Desk
from cohort.generation import Generation
from cohort.lake import Lake
from cohort.privacy import Policy
from cohort.similar import Alike
from tests.outcome_cases import PREDICTED, publish
from tests.policies import EVERYTHING, EVERYTHING_TOML

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fastapi.testclient import TestClient

ME = Caller("me", "cli")
PEOPLE: dict[str, Any] = {
    "patients": [
        {"id": "p1", "mrn": "1", "birthDate": "1960-02-29", "gender": "female"},
        {"id": "p2", "mrn": "2", "birthDate": "1955-02-28", "gender": "female", "died": "2024-01-01"},  # the first day
        {"id": "p3", "mrn": "3", "birthDate": "1965-03-01", "gender": "female"},  # a day too late
        {"id": "p4", "mrn": "4", "birthDate": "1960-01-01", "gender": "male"},
        {"id": "p5", "mrn": "5", "birthDate": "1961-01-01", "gender": "female"},
        {"id": "p6", "mrn": "6"},
    ],
    "conditions": [
        *({"id": f"c{n}", "patient": f"p{n}", "code": ["sct", "254637007"]} for n in (1, 2, 3, 4)),
        {"id": "c5", "patient": "p5", "code": ["sct", "254637007"], "verification": "refuted"},
    ],
    "medications": [
        {"id": "m1", "patient": "p1", "code": ["atc", "L01XA01"], "display": "cisplatin"},
        {"id": "m2", "patient": "p2", "code": ["atc", "L01XA01"], "display": "cisplatin"},
        {"id": "m2b", "patient": "p2", "code": ["atc", "L01XA01"], "display": "cisplatin"},
        {"id": "m3", "patient": "p2", "code": ["atc", "A"], "display": "never", "status": "draft"},
    ],
    "procedures": [{"id": "q1", "patient": "p4", "code": ["sct", "1"]}],
    "studies": [
        {"uid": "1.2.1", "patient": "p1", "modality": ["CT"], "started": "2022-01-01T09:00:00Z"},
        {"uid": "1.2.2", "patient": "p1", "modality": ["MR"], "started": "2022-01-01T09:00:00Z"},
        {"uid": "1.2.3", "patient": "p2", "modality": ["CT"], "started": "2022-01-01T09:00:00Z"},
        {"uid": "1.2.4", "patient": "p3", "modality": ["MR"], "started": "2022-01-01T09:00:00Z"},
    ],
    "predictions": [
        PREDICTED | {"id": "a", "patient": "p1", "study": "1.2.1"},
        PREDICTED | {"id": "b", "patient": "p2", "study": "1.2.3"},
        PREDICTED | {"id": "c", "patient": "p3", "study": "1.2.4", "present": False},
    ],
    "observations": [
        {"id": "o", "patient": "p2", "code": ["loinc", "22637-3"], "answer": ["sct", "254637007"],
         "effectiveDateTime": "2022-02-01"},
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    made = Lake(tmp_path_factory.mktemp("similar") / "lake")
    publish(made, PEOPLE)
    return made


def current(lake: Lake) -> Generation:
    found = lake.current()
    assert found is not None
    return found


def lines(lake: Lake, alike: Alike, policy: Policy = EVERYTHING) -> list[tuple[Any, ...]]:
    answer = Desk(lake.root, policy).similar(current(lake), alike, ME)
    assert [name for name, _ in answer.columns] == ["what", "code_system", "code", "display", "patients"]
    return [(row[0], row[2], row[4]) for row in answer.rows]


def test_those_alike_share_every_feature_and_the_one_named_is_not_among_them(lake: Lake) -> None:
    assert lines(lake, Alike("p1")) == [("alike", "", 1), ("died", "", 1), ("treatment: medication", "L01XA01", 1)]
    assert lines(lake, Alike("1", ("condition",))) == [
        ("alike", "", 3), ("died", "", 1), ("treatment: medication", "L01XA01", 1), ("treatment: procedure", "1", 1)
    ]  # fmt: skip
    assert lines(lake, Alike("p1", ("sex", "age"), years=6))[0] == ("alike", "", 3)


def test_of_a_study_its_own_modality_and_findings_count(lake: Lake) -> None:
    assert lines(lake, Alike("p1", ("modality",)))[0] == ("alike", "", 2)
    assert lines(lake, Alike("1.2.1", ("modality",)))[0] == ("alike", "", 1)
    assert lines(lake, Alike("1.2.1", ("finding",)))[0] == ("alike", "", 1)  # p3's is absent
    with pytest.raises(InvalidQuery, match="finding is not known"):
        lines(lake, Alike("1.2.2", ("finding",)))


def test_what_became_of_predictions_about_them_is_told(lake: Lake) -> None:
    found = lines(lake, Alike("p1", ("condition",), outcome=outcome("lung-nodule-cancer")))
    assert [line for line in found if line[0] == "outcome: lung-nodule-cancer"] == [
        ("outcome: lung-nodule-cancer", "censored", 1), ("outcome: lung-nodule-cancer", "confirmed", 1)
    ]  # fmt: skip


def test_counts_of_few_are_left_out(lake: Lake) -> None:
    policy = Policy(small_cells=3, line_level=True, identifiers="identifiers")
    assert lines(lake, Alike("p1", ("condition",)), policy) == [("alike", "", 3)]
    assert lines(lake, Alike("p1"), policy) == []
    assert Desk(lake.root, policy).similar(current(lake), Alike("p1"), ME).notes


def test_under_pseudonyms_nobody_is_found_by_an_id(lake: Lake) -> None:
    policy = Policy(small_cells=1, line_level=True)
    desk = Desk(lake.root, policy)
    people = desk.sql(current(lake), "SELECT patient_id FROM patient WHERE gender = 'male'", ME).rows
    assert lines(lake, Alike(people[0][0], ("condition",)), policy)[0] == ("alike", "", 3)
    studies = desk.sql(current(lake), "SELECT study_instance_uid FROM imaging_study", ME).rows
    assert lines(lake, Alike(studies[0][0], ("condition",)), policy)[0] == ("alike", "", 3)
    for whom in ("p1", "1", "1.2.1"):
        with pytest.raises(InvalidQuery, match="no such patient or study"):
            lines(lake, Alike(whom), policy)


@pytest.mark.parametrize(
    ("alike", "said"),
    [(Alike("nobody' OR 1=1 --"), "no such"), (Alike("p1", ("shoe size",)), "allowed: sex"),
     (Alike("p1", ()), "at least"), (Alike("p1", years=51), "years"), (Alike(""), "whom"),
     (Alike("p6"), "sex is not known"), (Alike("x" * 201), "whom")],
)  # fmt: skip
def test_what_is_wrong_is_said(lake: Lake, alike: Alike, said: str) -> None:
    with pytest.raises(InvalidQuery, match=said):
        lines(lake, alike)


def test_it_needs_line_level_and_is_logged(lake: Lake) -> None:
    desk = Desk(lake.root)
    with pytest.raises(NotAllowed, match="line_level"):
        desk.similar(current(lake), Alike("p1"), ME)
    last = desk.log.questions()[-1]
    assert (last["kind"], last["reason"], last["parameters"]["features"]) == (
        "similar",
        "NotAllowed",
        "sex,age,condition",
    )


def test_the_command_and_the_api_answer(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "bridge.toml").write_text(EVERYTHING_TOML, "utf-8")
    where = ["--lake", str(lake.root), "--config", str(tmp_path / "bridge.toml")]
    made = CliRunner().invoke(app, ["similar", "p1", *where, "--alike", "condition", "--format", "csv"])
    assert made.exit_code == 0, made.exception
    assert made.stdout.splitlines()[1] == "alike,,,,3"
    web = FastAPI()
    web.include_router(router(lake, Desk(lake.root, EVERYTHING)))
    ask = TestClient(web).post
    body = {"whom": "p1", "alike": ["condition"], "outcome": "lung-nodule-cancer"}
    assert ask("/cohort/api/similar", json=body).json()["rows"][0]["patients"] == 3
    assert ask("/cohort/api/similar", json={"whom": "nobody"}).status_code == 400
    assert ask("/cohort/api/similar", json=body | {"alike": ["x"]}).status_code == 422
    assert ask("/cohort/api/similar", json=body | {"outcome": "cold"}).status_code == 404
